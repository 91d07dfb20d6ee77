"""Runs beside each other: compare.html with their recall in one plot, what came of them, and where they differ."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbdfl.errors import ConfigError, DataError
from kbdfl.report.curves import MOST_LINES, Line, Point, recall_figure, recall_points
from kbdfl.report.page import Plot, plots, table, write_page
from kbdfl.report.run import summarise
from kbdfl.run import RunConfig, RunFolder

# Settings that decide on which held-out words recall is measured.
_MEASURED_ON = ("run.seed", "run.source", "run.devices", "run.evaluate_words")


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A run folder: `facts` sum up its rows, `settings` are its configuration's values by `table.field`."""

    name: str
    path: Path
    facts: dict[str, Any]
    points: list[Point]
    settings: dict[str, Any]


def read_runs(paths: Sequence[Path]) -> list[ComparedRun]:
    """The runs in these folders, under the folders' names, or where two are alike under their paths.

    Raises ConfigError and DataError: for fewer than two, for one given twice, for a folder that is no run's.
    """
    if not 2 <= len(paths) <= MOST_LINES:
        raise ConfigError(f"--compare takes 2 to {MOST_LINES} runs, got {len(paths)}")
    places = [path.resolve() for path in paths]
    names = [place.name for place in places]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"a run is compared with others, but {path} was given twice")
    return [
        _read_run(path, str(path) if names.count(name) > 1 else name)
        for path, name in zip(paths, names, strict=True)
    ]


def differences(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """By `table.field` the runs' values, of the settings that are not alike; None: a run has no such setting."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    values = {name: [run.settings.get(name) for run in runs] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def caution(runs: Sequence[ComparedRun]) -> str:
    """A sentence about runs whose recall may have been measured on different words; else empty."""
    unlike = [name for name in _MEASURED_ON if name in differences(runs)]
    if not unlike:
        return ""
    return f"Recall may be of other held-out words in each run: they differ in {', '.join(unlike)}."


def facts_table(runs: Sequence[ComparedRun]) -> list[list[str]]:
    """What came of the runs, as rows of texts: what it is, then a text a run."""
    return [
        [title, *("–" if run.facts[name] is None else form.format(run.facts[name]) for run in runs)]
        for name, (title, form) in _FACTS.items()
    ]


def differences_table(runs: Sequence[ComparedRun]) -> list[list[str]]:
    """`differences` as rows of texts."""
    return [
        [name, *("–" if value is None else _text(value) for value in values)]
        for name, values in differences(runs).items()
    ]


def write_comparison(path: Path, runs: Sequence[ComparedRun]) -> None:
    """Write the page; a curve has at most `curves.MOST_POINTS` points, whatever the number of rounds."""
    head = ["", *(run.name for run in runs)]
    unlike = differences_table(runs)
    timeless = [run.name for run in runs if run.points and all(point.hours is None for point in run.points)]
    note = f"Without virtual hours: {', '.join(timeless)}." if 0 < len(timeless) < len(runs) else ""
    figure = recall_figure([Line(run.name, run.points) for run in runs])
    figure.update_layout(height=400 + 20 * len(runs))  # a row of the legend each
    write_page(
        path,
        title=f"{len(runs)} kbdfl runs compared",
        subtitle=caution(runs) or "Measured on users who never train.",
        body="\n".join(
            [
                plots([Plot("Recall@1 on held-out users", figure, note, wide=True)]),
                "<h2>What came of them</h2>",
                table(head, facts_table(runs)),
                "<h2>Settings that differ</h2>",
                table(head, unlike) if unlike else "<p>None.</p>",
            ]
        ),
    )


# by name of a fact: its title and its form
_FACTS = {
    "recall_top1": ("recall@1, last measured", "{:.2%}"),
    "recall_top3": ("recall@3, last measured", "{:.2%}"),
    "rounds": ("rounds", "{:,}"),
    "committed": ("rounds committed", "{:,}"),
    "reports": ("reports counted", "{:,}"),
    "uplink_bytes_per_report": ("bytes up a report", "{:,}"),
    "downlink_bytes_per_report": ("bytes down a report", "{:,}"),
    "megabytes": ("megabytes up and down", "{:,.1f}"),
    "virtual_h": ("virtual hours", "{:,.2f}"),
    "wall_s": ("wall seconds", "{:,.1f}"),
}


def _read_run(path: Path, name: str) -> ComparedRun:
    if not path.is_dir():
        raise DataError(f"no run folder at {path}")
    if not (path / "config.toml").is_file():
        raise DataError(f"{path} is no run folder: it has no config.toml")
    config = RunConfig.load(path / "config.toml")
    folder = RunFolder(path)
    try:
        rows = folder.rows()
        facts, points = _facts(rows), recall_points(rows)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise DataError(
            f"{folder.metrics} must hold a round's JSON object a line, got something else"
        ) from None
    if not rows:
        raise DataError(f"{path} has no closed round to compare")
    settings = {
        f"{part}.{field}": value
        for part, fields in tomllib.loads(config.to_toml()).items()
        for field, value in fields.items()
    }
    return ComparedRun(name, path, facts, points, settings)


def _facts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    virtual_s = rows[-1].get("virtual_s") if rows else None
    known = summarise(rows) | {
        "megabytes": sum(row["uplink_bytes"] + row["downlink_bytes"] for row in rows) / 1e6,
        "virtual_h": None if virtual_s is None else virtual_s / 3600,
    }
    return {name: None if known[name] is None else 0 + known[name] for name in _FACTS}  # words are no numbers


def _text(value: Any) -> str:
    """As TOML would have it, but words without quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)
