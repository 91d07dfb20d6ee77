"""What a finished run shows: the bundle, and report.html, one file with its plots inside."""

import html
import json
from itertools import accumulate
from typing import Any

import numpy as np

from kbdfl.errors import DataError
from kbdfl.export.bundle import MANIFEST, write_bundle
from kbdfl.export.run import bundle_facts
from kbdfl.privacy import FileBooks, statement
from kbdfl.report.audit import AUDIT, audit_section, read_audit
from kbdfl.report.curves import MOST_POINTS, Line, mode, recall_figure, recall_points, thinned
from kbdfl.report.fleet import FLEET, read_fleet
from kbdfl.report.fleet_plots import fleet_plots
from kbdfl.report.page import Plot, cards, plots, write_page
from kbdfl.run import Built, RunFolder


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
    """Draw report.html from the folder's metrics.jsonl, config.toml and, if they are there, fleet.json and audit.json.

    What the folder's bundle says of privacy stands there too, or else its ledger. Returns `summarise` of the rows.
    Raises DataError for one of these that is malformed. The page's size is bounded, whatever the number of rounds and
    of phones.
    """
    rows = folder.rows()
    summary = summarise(rows)
    charts = list(round_plots(rows).values())
    body = [cards(_cards(summary)), plots(charts)]
    if sentence := _privacy(folder):
        body.append(f"<h2>Privacy</h2><p>{html.escape(sentence)}</p>")
    if len(rows) > MOST_POINTS:
        body.append(f"<p>Of {len(rows):,} rounds a curve draws {MOST_POINTS:,}, evenly spaced.</p>")
    fleet = folder.path / FLEET
    if fleet.exists():
        phones = fleet_plots(read_fleet(fleet))
        body += ["<h2>The phones</h2>", plots(phones, first=len(charts))]
        charts += phones
    audit = folder.path / AUDIT
    if audit.exists():
        body.append(audit_section(read_audit(audit), first=len(charts)))
    config = (folder.path / "config.toml").read_text("utf-8")
    body.append(f"<h2>Configuration</h2><pre>{html.escape(config)}</pre>")
    write_page(
        folder.path / "report.html",
        title=f"kbdfl run {folder.path.name}",
        subtitle="Federated rounds, measured on users who never train.",
        body="\n".join(body),
    )
    return summary


def _privacy(folder: RunFolder) -> str:
    """The sentence that the run's model carries; empty where there is neither model nor ledger."""
    manifest = folder.path / "model" / MANIFEST
    if manifest.is_file():
        try:
            said = json.loads(manifest.read_text("utf-8")).get("privacy")
        except (ValueError, AttributeError, RecursionError):
            raise DataError(f"{manifest} must be a bundle's manifest, and is not") from None
        if isinstance(said, str):
            return said
    releases = FileBooks(folder.path).rows()
    return statement(releases[-1]) if releases else ""


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


def round_plots(rows: list[dict[str, Any]]) -> dict[str, Plot]:
    """The plots of a run's metrics rows: recall, loss, bytes, phones; staleness and epsilon where there is any."""
    points = recall_points(rows)
    recall = recall_figure([Line("recall@1", points), Line("recall@3", points, top=3)])
    drawn = thinned(rows)

    def running_sum(name: str) -> list[float]:
        return [total / 1e9 for total in thinned(list(accumulate(row[name] for row in rows)))]

    charts = {
        "loss": ("Training loss", "nats a word", {"loss": [row["train_loss"] for row in drawn]}),
        "bytes": (
            "Bytes on the wire, running total",
            "GB",
            {"up": running_sum("uplink_bytes"), "down": running_sum("downlink_bytes")},
        ),
        "phones": (
            "Phones in each round",
            "phones",
            {
                "reported": [row["reports"] for row in drawn],
                "dropped": [row["dropped"] for row in drawn],
                "refused": [row.get("refused", 0) for row in drawn],
            },
        ),
    }
    stale = [row.get("staleness") for row in rows]
    if any(value is not None for value in stale):
        charts["staleness"] = ("Staleness of reports, mean", "versions", {"staleness": thinned(stale)})
    spent = [row.get("epsilon") for row in rows]
    if any(value is not None for value in spent):
        charts["epsilon"] = ("Privacy spent", "epsilon", {"epsilon": thinned(spent)})
    rounds = [row["round"] + 1 for row in drawn]
    return {"recall": Plot("Recall on held-out users", recall)} | {
        name: Plot(title, _by_round(rounds, unit, lines)) for name, (title, unit, lines) in charts.items()
    }


def _by_round(rounds: list[int], unit: str, lines: dict[str, list[float | None]]) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, values in lines.items():
        figure.add_scatter(x=rounds, y=values, name=name, mode=mode(rounds))
    figure.update_xaxes(title="round")
    figure.update_yaxes(title=unit)
    return figure
