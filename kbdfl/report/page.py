"""The pages that show runs: one HTML file each that fetches nothing, with plotly inside once."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Okabe and Ito's, which colour-blind readers can tell apart
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a6d00", "#555555")

_STYLE = """
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #f6f7f9 }
body { max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem } p { color: #5b6675; margin: .5rem 0 }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(45%, 14rem), 1fr)); gap: .75rem }
.facts { margin: 1.5rem 0 } .facts b { display: block; font-size: 1.25rem }
.facts span { color: #5b6675; font-size: .85rem }
.facts div, figure, pre, .table { background: #fff; border: 1px solid #e2e6ec; border-radius: .6rem }
.facts div { padding: .7rem .9rem }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem }
figure { min-width: 0; overflow: hidden; margin: 0; padding: .7rem .5rem .3rem }
figure.wide { grid-column: 1 / -1 } figcaption { padding: 0 .5rem .2rem }
figcaption b { font-weight: 600 } figcaption span { display: block; color: #5b6675; font-size: .85rem }
pre { padding: 1rem; overflow-x: auto } .table { overflow-x: auto; padding: .3rem .5rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .35rem .6rem; border-top: 1px solid #eef0f4; vertical-align: bottom }
th { min-width: 6rem; overflow-wrap: anywhere } thead th { border-top: 0 }
tr > :first-child { text-align: left; color: #5b6675; min-width: 7.5rem }
tr > :first-child { position: sticky; left: 0; background: #fff }
.read td:last-child { text-align: left; overflow-wrap: anywhere } .read small { color: #5b6675 }
.read td { vertical-align: top } .read tr > :first-child { min-width: 6rem }
.tight th { min-width: 0; overflow-wrap: normal } .tight tr > :first-child { min-width: 6rem }
@media (max-width: 30rem) { .tight th, .tight td { padding: .35rem .3rem; font-size: .8rem } }
.plots + .table { margin-top: 1rem }
mark { background: #fff0c2; color: inherit; border-radius: .25rem; padding: 0 .2rem }
.verdicts { list-style: none; padding: 0 } .verdicts b { color: #b3261e }
@media (max-width: 30rem) { body { margin: 1rem auto; padding: 0 .6rem } }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style>
<script>window.PlotlyConfig = {{MathJaxConfig: "local"}};</script><script>{plotly}</script>
</head><body>
<h1>{title}</h1><p>{subtitle}</p>
{body}
<script>addEventListener("load", () => dispatchEvent(new Event("resize")))</script>
</body></html>
"""


@dataclass(frozen=True, slots=True)
class Plot:
    """A plotly figure under its title; `note` is what one reads from it, and a `wide` one has a row for itself."""

    title: str
    figure: Any
    note: str = ""
    wide: bool = False


def write_page(path: Path, *, title: str, subtitle: str, body: str) -> None:
    """Write the page to `path`; `body` is HTML, title and subtitle are text."""
    from plotly.offline import get_plotlyjs

    page = _PAGE.format(
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        style=_STYLE,
        plotly=get_plotlyjs(),
        body=body,
    )
    path.write_text(page, "utf-8")


def cards(found: Sequence[tuple[str, str]]) -> str:
    """The HTML of name and value, a card each."""
    inside = "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>" for name, value in found
    )
    return f'<section class="facts">{inside}</section>'


def plots(found: Sequence[Plot], *, first: int = 0) -> str:
    """The HTML of plots with the ids plot-`first` and up."""
    drawn = "".join(_drawn(plot, f"plot-{number}") for number, plot in enumerate(found, first))
    return f'<section class="plots">{drawn}</section>'


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """The HTML of a table of texts; the first column says what each row is."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in body)
    return f'<div class="table"><table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>'


def styled(figure: Any) -> Any:
    """The figure in the house's colours, with its legend above the plot."""
    figure.update_layout(
        template="plotly_white",
        colorway=COLOURS,
        height=figure.layout.height or 310,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        legend={"orientation": "h", "traceorder": "normal", "x": 0, "y": 1.02, "yanchor": "bottom"}
        | figure.layout.legend.to_plotly_json(),
        hoverlabel={"namelength": -1},
    )
    for axes in (figure.update_xaxes, figure.update_yaxes):
        axes(automargin=True, title={"standoff": 8})
    return figure


def _drawn(plot: Plot, name: str) -> str:
    styled(plot.figure)
    drawn = plot.figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
    note = f"<span>{html.escape(plot.note)}</span>" if plot.note else ""
    kind = ' class="wide"' if plot.wide else ""
    return f"<figure{kind}><figcaption><b>{html.escape(plot.title)}</b>{note}</figcaption>{drawn}</figure>"
