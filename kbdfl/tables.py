"""Small tables for notebooks: HTML without styles, so that they look as the notebook's own."""

import html
from collections.abc import Mapping, Sequence


def facts_table(title: str, facts: Mapping[str, str]) -> str:
    """Names and values, one pair a row, under a title."""
    rows = "".join(
        f'<tr><th style="text-align:left;white-space:nowrap">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f'<table><caption style="text-align:left"><b>{html.escape(title)}</b></caption><tbody>{rows}</tbody></table>'


def rows_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A head and rows of texts."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def percent(share: float | None) -> str:
    """0.1234 as 12.3 %; None as not measured."""
    return "not measured" if share is None else f"{share:.1%}"
