"""Curves of bounded size, and recall by what it took: rounds, virtual hours, megabytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

from kbdfl.report.page import COLOURS

MOST_POINTS = 1_000  # of a curve: about one for each pixel of a wide plot, so more would not be seen
_MARKED = 60  # points that may be told apart
_DASHES = ("solid", "dash", "dot", "dashdot")
MOST_LINES = len(COLOURS) * len(_DASHES)  # that may be told apart

Value = TypeVar("Value")


def thinned(values: Sequence[Value], most: int = MOST_POINTS) -> list[Value]:
    """At most `most` (>= 2) of the values, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[number * (len(values) - 1) // (most - 1)] for number in range(most)]


def mode(x: Sequence[Any]) -> str:
    """How plotly shall draw a curve: with its points if they are few."""
    return "lines+markers" if len(x) < _MARKED else "lines"


@dataclass(frozen=True, slots=True)
class Point:
    """A measurement: recall after so many rounds, virtual hours (None over HTTP), megabytes up and down."""

    round: int
    hours: float | None
    megabytes: float
    top1: float
    top3: float


@dataclass(frozen=True, slots=True)
class Line:
    """A run's measured recall, `top` 1 or 3, as a line with a name."""

    name: str
    points: Sequence[Point]
    top: int = 1


def recall_points(rows: Sequence[dict[str, Any]]) -> list[Point]:
    """Of the rows of metrics.jsonl those with recall, all up to MOST_POINTS; bytes add up over every row."""
    bytes_ = accumulate(row["uplink_bytes"] + row["downlink_bytes"] for row in rows)
    found = [(row, total) for row, total in zip(rows, bytes_, strict=True) if row["recall_top1"] is not None]
    return [
        Point(
            round=row["round"] + 1,
            hours=None if row.get("virtual_s") is None else row["virtual_s"] / 3600,
            megabytes=total / 1e6,
            top1=float(row["recall_top1"]),
            top3=float(row["recall_top3"]),
        )
        for row, total in thinned(found)
    ]


def recall_figure(lines: Sequence[Line]) -> Any:
    """Recall by round, with buttons for virtual hours, if any line has them, and for megabytes."""
    import plotly.graph_objects as go

    axes = {
        "by round": ("round", "round"),
        "by virtual hour": ("hours", "virtual hours"),
        "by megabyte": ("megabytes", "megabytes up and down, running total"),
    }
    if all(point.hours is None for line in lines for point in line.points):
        del axes["by virtual hour"]
    figure = go.Figure()
    xs: dict[str, list[list[float | None]]] = {label: [] for label in axes}
    for number, line in enumerate(lines):
        for label, (name, _) in axes.items():
            xs[label].append([getattr(point, name) for point in line.points])
        figure.add_scatter(
            x=xs["by round"][-1],
            y=[getattr(point, f"top{line.top}") for point in line.points],
            name=line.name,
            mode=mode(line.points),
            line={
                "color": COLOURS[number % len(COLOURS)],
                "dash": _DASHES[number // len(COLOURS) % len(_DASHES)],
            },
        )
    buttons = [
        {
            "label": label,
            "method": "update",
            "args": [{"x": xs[label]}, {"xaxis.title.text": title, "xaxis.autorange": True}],
        }
        for label, (_, title) in axes.items()
    ]
    figure.update_layout(
        updatemenus=[
            {
                "type": "buttons",
                "direction": "right",
                "buttons": buttons,
                "x": 0,
                "xanchor": "left",
                "y": 1.03,
                "yanchor": "bottom",
                "pad": {"t": 0, "b": 0, "l": 0, "r": 0},
                "bgcolor": "#e2e6ec",
                "bordercolor": "#c4ccd6",
                "font": {"size": 12},
            }
        ],
        # below, where a narrow page may give each name a row without pushing it into the buttons
        legend={"yref": "container", "y": 0, "yanchor": "bottom"},
        height=350,
    )
    figure.update_xaxes(title="round", rangemode="tozero")
    figure.update_yaxes(title="share of all words", tickformat=".2~%", hoverformat=".2%", rangemode="tozero")
    return figure
