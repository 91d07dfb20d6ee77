"""audit.json of a run: what its server could read, as a section of the report and as lines of text.

`kbdfl.device_sim.attacks.whole` writes it; only what is shown here is looked at.
"""

import html
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kbdfl.errors import DataError
from kbdfl.report.page import COLOURS, Plot, plots, table

AUDIT = "audit.json"
FORMAT = 1
_HEAD = ("", "precision", "recall", "F1", "AUC")
_ARMS = {"control": "no protection", "clip_alone": "clip alone", "protected": "clip and noise"}
_NOBODY = "not one of them"


def read_audit(path: Path) -> dict[str, Any]:
    """The audit.json at `path`. Raises DataError in one line when it is not one."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {' '.join(str(error).split())}"[:200]) from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f"{path} must be an audit of format {FORMAT}")
    try:
        summary_lines(document)
        audit_section(document, first=0)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{path} lacks what an audit says: {' '.join(str(error).split())}"[:200]) from None
    return document


def summary_lines(document: dict[str, Any]) -> list[str]:
    """The audit as text: the table, the example, the figures of the noise, and the verdicts."""
    rows = [_HEAD, *_rows(document)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    example = document["example"]
    lines += ["", f"typed: {example['sentence']}"]
    lines += [f"  {name:<25}{_said(found)}" for name, found in _examples(document)]
    lines += (
        ["", *(f"{name}: {value}" for name, value in _noise_facts(document))] if "canary" in document else []
    )
    lines += ["", *(f"{'yes' if held else 'NO '}  {what}" for what, held in document["verdicts"].items())]
    return lines


def audit_section(document: dict[str, Any], *, first: int) -> str:
    """The HTML of "What the server could read"; its plots have the ids plot-`first` and up."""
    e = html.escape
    phones = int(document["phones"])
    version = document.get("version")
    parts = [
        "<h2>What the server could read</h2>",
        f"<p>{phones:,} simulated phones, one with an example, trained version {e(str(version))} on text that the run "
        "has not seen, and their frames were attacked. F1 is of the words read from a single frame (of all phones "
        "together where only a sum is seen). The AUC says how well who sees the frames tells who typed a word: 0.5 is "
        "a guess. Counts of messages and words stand beside frames that are not masked; masked ones carry none."
        "</p>",
        f'<div class="tight">{table(_HEAD, _rows(document))}</div>',
        f"<h2>An example: “{e(document['example']['sentence'])}”</h2>",
        _example_table(document),
    ]
    if "canary" in document:
        parts += [
            "<h2>Does the noise hold</h2>",
            plots(_plots(document), first=first),
            table(("", ""), [list(fact) for fact in _noise_facts(document)]),
        ]
    verdicts = "".join(
        f"<li>{'✓' if held else '<b>✗ not so:</b>'} {e(what)}</li>"
        for what, held in document["verdicts"].items()
    )
    parts.append(f'<ul class="verdicts">{verdicts}</ul>')
    return "\n".join(parts)


def _rows(document: dict[str, Any]) -> list[list[str]]:
    rows = [[name, *_figures(found), _number(found.get("auc"))] for name, found in _readings(document)]
    if "plain" in document["modes"]:
        counts = document["modes"]["plain"]["counts_auc"]
        rows.insert(1, ["the counts beside it alone", *_figures({}), _number(counts)])
    return rows


def _readings(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, figures) of all that was read, in the order in which less and less is."""
    modes = document["modes"]
    if "plain" in modes:
        yield "plain, float32", modes["plain"]
    for upload, found in modes.get("compressed", {}).items():
        yield f"compressed, {upload}", found
    if "masked" in modes:
        yield f"masked, one of {modes['masked']['phones']}", modes["masked"]
        yield "masked, the sum", modes["masked"]["sum"]
    if "noised" in modes:
        yield "noised, the sum", modes["noised"]


def _examples(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, found in _readings(document):
        if "example" in found:
            yield name, found["example"]


def _figures(found: dict[str, Any]) -> list[str]:
    return [_number(found.get(name)) for name in ("precision", "recall", "f1")]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _said(found: dict[str, Any]) -> str:
    """What was read of the example, as words."""
    right = " ".join(found["right"]) or _NOBODY
    more = found["wrong_words"]
    return f"{right}; beside {more} that were not typed" if more else right


def _example_table(document: dict[str, Any]) -> str:
    e, example = html.escape, document["example"]
    unknown = len(set(example["sentence"].lower().split()) - set(example["known"]))
    note = f" ({unknown} of its words the model does not know)" if unknown else ""
    rows = [("typed" + note, " ".join(f"<mark>{e(word)}</mark>" for word in example["known"]))]
    for name, found in _examples(document):
        read = " ".join(f"<mark>{e(word)}</mark>" for word in found["right"]) or f"<i>{_NOBODY}</i>"
        if found["wrong_words"]:
            some = ", ".join(map(e, found["wrong"]))
            more = found["wrong_words"] - len(found["wrong"])
            read += f" <small>and, wrongly, {some}{f' and {more:,} more' if more > 0 else ''}</small>"
        rows.append((f"read: {e(name)}", read))
    body = "".join(f"<tr><td>{name}</td><td>{read}</td></tr>" for name, read in rows)
    return f'<div class="table read"><table><tbody>{body}</tbody></table></div>'


def _noise_facts(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    canary, member, own = document["canary"], document["membership"], document["mechanism"]
    yield (
        "secrets that were never seen",
        f"below {canary['null_limit_bits']:.1f} of {canary['secret_bits']:.0f} bits, the mean of {canary['secrets']}",
    )
    for name, title in _ARMS.items():
        found = canary[name]
        yield (
            f"exposure with {title}",
            f"{found['mean_bits']:.1f} bits, recall@1 of the model {100 * found['recall_top1']:.1f} %",
        )
    yield (
        "whether a phone took part, AUC",
        f"{member['plain_auc']:.2f} in plain sums, {member['protected_auc']:.2f} in noised ones of {member['cohort']}",
    )
    yield (
        "epsilon of one release",
        f"measured > {own['lower_epsilon']:.2f}, claimed {own['claimed_epsilon']:.2f} at delta {document['delta']:g}",
    )
    for name, found in document["planted"].items():
        verdict = f"caught by “{found['game']}”" if found["refuted"] else "NOT caught"
        yield (
            f"planted: {name}",
            f"{verdict}, measured > {found['lower_epsilon']:.2f}, claimed {found['claimed_epsilon']:.2f}",
        )


def _plots(document: dict[str, Any]) -> list[Plot]:
    import plotly.graph_objects as go

    canary = document["canary"]
    exposure = go.Figure()
    for number, (name, title) in enumerate(_ARMS.items()):
        exposure.add_box(
            y=canary[name]["bits"],
            name=title,
            boxpoints="all",
            marker_color=COLOURS[number],
            showlegend=False,
        )
    exposure.add_hline(y=canary["null_limit_bits"], line_dash="dot", line_color="#555555")
    exposure.update_yaxes(title="bits", range=[0, canary["secret_bits"] + 0.5])
    found = {"as it is": document["mechanism"]} | document["planted"]
    epsilon = go.Figure()
    shown: dict[str, Callable[[dict[str, Any]], float]] = {
        "claimed": lambda one: one["claimed_epsilon"],
        "measured lower bound": lambda one: one["lower_epsilon"],
    }
    for title, value in shown.items():
        epsilon.add_bar(x=list(found), y=[value(one) for one in found.values()], name=title)
    epsilon.update_yaxes(title="epsilon of one release")
    return [
        Plot(
            "Bits of a secret that the model gives away",
            exposure,
            "Below the dotted line lies the mean of secrets that no phone ever typed.",
        ),
        Plot(
            "Epsilon, claimed and measured",
            epsilon,
            "A bar of the second kind above the first refutes the claim.",
        ),
    ]
