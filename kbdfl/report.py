"""What a finished run shows: the bundle, and report.html, one file with its plots inside."""

import html
from typing import Any

import numpy as np

from kbdfl.export.bundle import write_bundle
from kbdfl.export.run import bundle_facts
from kbdfl.run import Built, RunFolder

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #f6f7f9 }}
body {{ max-width: 68rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.6rem; margin: 0 }} h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem }}
.facts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin: 1.5rem 0 }}
.facts div {{ background: #fff; border: 1px solid #e2e6ec; border-radius: .6rem; padding: .7rem .9rem }}
.facts b {{ display: block; font-size: 1.25rem }} .facts span {{ color: #5b6675; font-size: .85rem }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem }}
.plots > div {{ background: #fff; border: 1px solid #e2e6ec; border-radius: .6rem; padding: .5rem }}
.plots > div {{ min-width: 0; overflow: hidden }}
pre {{ background: #fff; border: 1px solid #e2e6ec; border-radius: .6rem; padding: 1rem; overflow-x: auto }}
p {{ color: #5b6675 }}
</style></head><body>
<h1>{title}</h1><p>{subtitle}</p>
<section class="facts">{facts}</section>
<section class="plots">{plots}</section>
<h2>Configuration</h2><pre>{config}</pre>
<script>addEventListener("load", () => dispatchEvent(new Event("resize")))</script>
</body></html>
"""


def finish_run(folder: RunFolder, params: np.ndarray, built: Built, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the float32 bundle to model/ and the report; what a command says of the run.

    `facts` as in `kbdfl.run.checkpoint_facts`; params float32 (P,).
    """
    write_bundle(
        folder.path / "model",
        params=params,
        config=built.task.config,
        vocabulary=built.vocabulary,
        precision="float32",
        facts=bundle_facts(facts, folder.rows()),
    )
    return write_report(folder)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals of a run's metrics rows."""
    committed = [row for row in rows if row["status"] == "committed"]
    measured = [row for row in rows if row["recall_top1"] is not None]
    reports = sum(row["reports"] for row in rows)

    def a_report(name: str) -> int | None:
        values = [row[name] for row in rows if row.get(name) is not None]
        return round(sum(values) / reports) if values and reports else None

    return {
        "rounds": len(rows),
        "committed": len(committed),
        "abandoned": len(rows) - len(committed),
        "reports": reports,
        "recall_top1": measured[-1]["recall_top1"] if measured else None,
        "recall_top3": measured[-1]["recall_top3"] if measured else None,
        "train_loss": committed[-1]["train_loss"] if committed else None,
        "uplink_bytes_per_report": a_report("uplink_bytes"),
        "downlink_bytes_per_report": a_report("downlink_bytes"),
        "socket_up_bytes_per_report": a_report("socket_up_bytes"),
        "socket_down_bytes_per_report": a_report("socket_down_bytes"),
        "wall_s": rows[-1]["wall_s"] if rows else 0.0,
    }


def write_report(folder: RunFolder) -> dict[str, Any]:
    """Draw report.html from the folder's metrics.jsonl and config.toml; returns `summarise` of the rows."""
    rows = folder.rows()
    summary = summarise(rows)
    config = (folder.path / "config.toml").read_text("utf-8")
    title = f"kbdfl run {folder.path.name}"
    page = _PAGE.format(
        title=html.escape(title),
        subtitle="Federated rounds, measured on users who never train.",
        facts="".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in _cards(summary)),
        plots="".join(f"<div>{plot}</div>" for plot in _plots(rows)),
        config=html.escape(config),
    )
    (folder.path / "report.html").write_text(page, "utf-8")
    return summary


def _cards(summary: dict[str, Any]) -> list[tuple[str, str]]:
    def percent(value: float | None) -> str:
        return "not measured" if value is None else f"{value:.1%}"

    def size(value: float | None) -> str:
        return "none" if value is None else f"{value / 1000:,.0f} kB"

    socket = [
        (f"{way} a report at the socket, heads included", size(summary[f"socket_{way}_bytes_per_report"]))
        for way in ("up", "down")
        if summary[f"socket_{way}_bytes_per_report"] is not None
    ]
    return [
        ("recall@1, held-out sample", percent(summary["recall_top1"])),
        ("recall@3, held-out sample", percent(summary["recall_top3"])),
        ("rounds committed", f"{summary['committed']:,} of {summary['rounds']:,}"),
        ("reports counted", f"{summary['reports']:,}"),
        ("uplink a report", size(summary["uplink_bytes_per_report"])),
        ("downlink a report", size(summary["downlink_bytes_per_report"])),
        *socket,
        ("wall time", f"{summary['wall_s']:,.0f} s"),
    ]


def _plots(rows: list[dict[str, Any]]) -> list[str]:
    import plotly.graph_objects as go

    measured = [row for row in rows if row["recall_top1"] is not None]
    rounds = [row["round"] + 1 for row in rows]
    at = [row["round"] + 1 for row in measured]

    def running_sum(name: str) -> list[float]:
        return (np.cumsum([row[name] for row in rows]) / 1e9).tolist()

    charts = [
        (
            "Recall on held-out users",
            "share of all words",
            [
                ("recall@1", at, [row["recall_top1"] for row in measured]),
                ("recall@3", at, [row["recall_top3"] for row in measured]),
            ],
        ),
        ("Training loss", "nats a word", [("loss", rounds, [row["train_loss"] for row in rows])]),
        (
            "Bytes on the wire, running total",
            "GB",
            [("up", rounds, running_sum("uplink_bytes")), ("down", rounds, running_sum("downlink_bytes"))],
        ),
        (
            "Phones in each round",
            "phones",
            [
                ("reported", rounds, [row["reports"] for row in rows]),
                ("dropped", rounds, [row["dropped"] for row in rows]),
                ("refused", rounds, [row.get("refused", 0) for row in rows]),
            ],
        ),
    ]
    stale = [row.get("staleness") for row in rows]
    if any(value is not None for value in stale):
        charts.append(("Staleness of reports, mean", "versions", [("staleness", rounds, stale)]))
    plots = []
    for number, (title, unit, lines) in enumerate(charts):
        figure = go.Figure()
        for name, x, y in lines:
            figure.add_scatter(x=x, y=y, name=name, mode="lines+markers" if len(x) < 60 else "lines")
        figure.update_layout(
            title=title,
            xaxis_title="round",
            yaxis_title=unit,
            template="plotly_white",
            height=340,
            margin={"l": 60, "r": 20, "t": 50, "b": 45},
            legend={"orientation": "h", "y": 1.12, "x": 1, "xanchor": "right"},
        )
        if number == 0:
            figure.update_yaxes(tickformat=".0%", rangemode="tozero")
        plots.append(
            figure.to_html(
                full_html=False,
                include_plotlyjs=number == 0,
                div_id=f"plot-{number}",
                config={"displayModeBar": False, "responsive": True},
            )
        )
    return plots
