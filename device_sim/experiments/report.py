"""What an experiment leaves in its folder: results.json, table.md and plot.html."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kbdfl.device_sim.experiments.study import Study

# further columns of the methods' table: by title, the text for each method
Columns = Mapping[str, Mapping[str, str]]

# what methods are to be seen against: by title of a quantity, its number for each method that has one
Against = Mapping[str, Mapping[str, float]]

# Okabe and Ito's, which colour-blind readers can tell apart
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a6d00", "#555555")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #f6f7f9 }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.6rem; margin: 0 }} h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem }} p {{ color: #5b6675 }}
body > div, pre {{ background: #fff; border: 1px solid #e2e6ec; border-radius: .6rem; padding: .5rem; margin: 0 }}
body > div {{ min-width: 0; overflow: hidden }} pre {{ overflow-x: auto }}
</style></head><body>
<h1>{title}</h1><p>{subtitle}</p>
<h2>Recall on held-out users, mean and range over seeds</h2><div>{judged}</div>
{against}<h2>Recall@1 on held-out users while it learns, a line a seed</h2><div>{learned}</div>
<h2>Tables</h2><pre>{table}</pre>
<script>addEventListener("load", () => dispatchEvent(new Event("resize")))</script>
</body></html>
"""


def rows(study: Study) -> list[dict[str, Any]]:
    """A row a method: what was chosen, recall on held-out users as mean and range over seeds, tokens and seconds."""
    found = []
    for method in study.methods:
        runs = study.of(method)
        row: dict[str, Any] = {"method": method, "value": runs[0].value, "at_edge": study.at_edge(method)}
        for name in ("recall_top1", "recall_top3"):
            values = [getattr(run, name) for run in runs]
            row[name] = {"mean": sum(values) / len(values), "low": min(values), "high": max(values)}
        row["tokens"] = round(sum(run.tokens for run in runs) / len(runs))
        row["wall_s"] = round(sum(run.wall_s for run in runs) / len(runs), 1)
        found.append(row)
    return found


def table(study: Study, columns: Columns = MappingProxyType({})) -> str:
    """Two Markdown tables: the methods on held-out users, with further columns, and the grids on validation users."""
    seeds = len({run.seed for run in study.runs})

    def spread(recall: dict[str, float]) -> str:
        ends = f" ({100 * recall['low']:.2f}–{100 * recall['high']:.2f})" if seeds > 1 else ""
        return f"{100 * recall['mean']:.2f}{ends}"

    methods = [
        (
            row["method"],
            row["value"] + (" (an end of its grid)" if row["at_edge"] else ""),
            spread(row["recall_top1"]),
            spread(row["recall_top3"]),
            f"{row['tokens']:,}",
            f"{row['wall_s']:.1f}",
            *(texts.get(row["method"], "") for texts in columns.values()),
        )
        for row in rows(study)
    ]
    grid = [
        (
            tried.method,
            tried.value + (" (chosen)" if tried.chosen else ""),
            f"{100 * tried.recall_top1:.2f}",
            f"{100 * tried.recall_top3:.2f}",
        )
        for tried in study.tried
    ]
    over = f"mean (range) over {seeds} seeds" if seeds > 1 else f"seed {study.runs[0].seed}"
    return "\n".join(
        [
            f"Held-out users, percent, {over}:",
            "",
            *_markdown(
                ("method", "chosen", "recall@1", "recall@3", "tokens a seed", "seconds a seed", *columns),
                methods,
            ),
            "",
            f"Validation users, percent, seed {study.runs[0].seed}:",
            "",
            *_markdown(("method", "tried", "recall@1", "recall@3"), grid),
            "",
        ]
    )


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """A table whose columns also line up in a terminal; the first two hold words, the others numbers."""
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [f"{'-' * width}--" if i < 2 else f"{'-' * width}-:" for i, width in enumerate(widths)]
    return [line(head), f"|{'|'.join(rule)}|", *map(line, body)]


def write_results(
    folder: Path,
    document: dict[str, Any],
    study: Study,
    *,
    columns: Columns,
    axis: str,
    against: Against = MappingProxyType({}),
) -> None:
    """Fill `folder`, which exists; results.json holds `document`, and all that was tried and run.

    Learning curves are plotted over their `axis`: tokens, rounds, hours or trips; recall@1 `against` each quantity too.
    """
    whole = document | {
        "table": rows(study),
        "columns": columns,
        "tried": [asdict(tried) for tried in study.tried],
        "runs": [asdict(run) for run in study.runs],
    }
    (folder / "results.json").write_text(json.dumps(whole, indent=1) + "\n", "utf-8")
    (folder / "table.md").write_text(table(study, columns), "utf-8")
    judged, learned = _plots(study, axis)
    question = document["question"]
    page = _PAGE.format(
        title=html.escape(f"kbdfl experiment {document['experiment']}"),
        subtitle=html.escape(
            f"{question[:1].upper()}{question[1:]}? {document['preset']}, {document['logs']}"
        ),
        judged=judged,
        against="".join(
            f"<h2>Recall@1 against {html.escape(title)}</h2><div>{_against(study, title, numbers, place)}</div>\n"
            for place, (title, numbers) in enumerate(against.items())
        ),
        learned=learned,
        table=html.escape(table(study, columns)),
    )
    (folder / "plot.html").write_text(page, "utf-8")


def _plots(study: Study, axis: str) -> tuple[str, str]:
    """Bars of the methods on held-out users, and their learning curves on validation users."""
    import plotly.graph_objects as go

    judged, learned, found = go.Figure(), go.Figure(), rows(study)
    for name, label in (("recall_top1", "recall@1"), ("recall_top3", "recall@3")):
        mean = [row[name]["mean"] for row in found]
        judged.add_bar(
            x=[row["method"] for row in found],
            y=mean,
            name=label,
            error_y={
                "array": [row[name]["high"] - row[name]["mean"] for row in found],
                "arrayminus": [row[name]["mean"] - row[name]["low"] for row in found],
            },
        )
    for method in study.methods:
        for number, run in enumerate(study.of(method)):
            if run.curve:
                learned.add_scatter(
                    x=[point[axis] for point in run.curve],
                    y=[point["recall_top1"] for point in run.curve],
                    name=method,
                    legendgroup=method,
                    showlegend=number == 0,
                    mode="lines+markers",
                    line={"color": _COLOURS[study.methods.index(method) % len(_COLOURS)]},
                )
    learned.update_xaxes(title="virtual hours" if axis == "hours" else axis)
    return _drawn(judged, "plot-judged", first=True), _drawn(learned, "plot-learned", first=False)


def _against(study: Study, title: str, numbers: Mapping[str, float], place: int) -> str:
    """Mean and range of recall@1 over a quantity of many magnitudes, a point a method."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for row in rows(study):
        if row["method"] not in numbers:
            continue
        recall = row["recall_top1"]
        figure.add_scatter(
            x=[numbers[row["method"]]],
            y=[recall["mean"]],
            name=row["method"],
            mode="markers",
            marker={"size": 10},
            error_y={
                "array": [recall["high"] - recall["mean"]],
                "arrayminus": [recall["mean"] - recall["low"]],
            },
        )
    figure.update_xaxes(title=title, type="log")
    return _drawn(figure, f"plot-against-{place}", first=False, from_zero=False)


def _drawn(figure: Any, name: str, *, first: bool, from_zero: bool = True) -> str:
    figure.update_layout(
        template="plotly_white",
        height=380,
        colorway=_COLOURS,
        margin={"l": 60, "r": 20, "t": 20, "b": 45},
        legend={"orientation": "h", "y": -0.2},
    )
    figure.update_yaxes(
        tickformat=".0%" if from_zero else ".1%",
        rangemode="tozero" if from_zero else "normal",
        title="share of all words",
    )
    return figure.to_html(
        full_html=False,
        include_plotlyjs=first,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
