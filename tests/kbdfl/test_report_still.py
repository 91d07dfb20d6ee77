"""Still pictures of plotly's figures: every point where the axes say it is."""

import math
import re
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.report.curves import MOST_LINES, Line, Point, recall_figure
from kbdfl.report.still import HEIGHT, WIDTH, still

SVG = "{http://www.w3.org/2000/svg}"


def figure(**lines):
    """A figure of these lines: name=(xs, ys)."""
    made = go.Figure()
    for name, (x, y) in lines.items():
        made.add_scatter(x=x, y=y, name=name, mode="lines+markers")
    made.update_layout(title="a <title>")
    made.update_xaxes(title="round")
    made.update_yaxes(title="GB")
    return made


class Picture:
    """What can be seen in an SVG."""

    def __init__(self, svg):
        self.root = ElementTree.fromstring(svg)
        self.texts = [node.text for node in self.root.iter(f"{SVG}text")]

    @property
    def dots(self):
        return [(float(node.get("cx")), float(node.get("cy"))) for node in self.root.iter(f"{SVG}circle")]

    @property
    def lines(self):
        return [node.get("d") for node in self.root.iter(f"{SVG}path") if node.get("stroke-width") == "2"]

    def scale(self, *, across):
        """(place, value) of the texts on an axis."""
        found = []
        for node in self.root.iter(f"{SVG}text"):
            if node.get("text-anchor") == ("middle" if across else "end"):
                value = re.fullmatch(r"(-?[\d,.e+-]+)%?", node.text or "")
                if value:
                    place = float(node.get("x")) if across else float(node.get("y")) - 4
                    found.append((place, float(value[1].replace(",", ""))))
        return found

    def value(self, place, *, across):
        """What the axis says of a place."""
        (first, low), *_, (last, high) = self.scale(across=across)
        return low + (place - first) / (last - first) * (high - low)


VALUES = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
MISSING = st.sampled_from([None, float("nan"), float("inf")])  # of a run that diverged, JSON's NaN


@given(values=st.lists(MISSING | VALUES, min_size=1, max_size=30))
def test_a_point_stands_where_the_axes_say_and_what_is_not_measured_is_a_gap(values):
    rounds = list(range(1, len(values) + 1))
    picture = Picture(still(figure(loss=(rounds, values))))
    values = [None if value is None or not math.isfinite(value) else value for value in values]
    measured = [(x, y) for x, y in zip(rounds, values, strict=True) if y is not None]
    assert len(picture.dots) == len(measured)
    if not measured:
        assert "nothing is measured yet" in picture.texts
        return
    high = max(abs(y) for _, y in measured) or 1
    for (cx, cy), (x, y) in zip(picture.dots, measured, strict=True):
        assert 0 < cx < WIDTH
        assert 0 < cy < HEIGHT
        assert picture.value(cx, across=True) == pytest.approx(x, abs=0.01 * len(values))
        assert picture.value(cy, across=False) == pytest.approx(y, abs=0.01 * high)
    starts = [
        1 for before, now in zip([None, *values], values, strict=False) if before is None and now is not None
    ]
    assert picture.lines[0].count("M") == len(starts)


def test_its_texts_are_the_figures_and_no_markup():
    picture = Picture(still(figure(**{"a & b": ([1, 2], [3, 4]), "<script>": ([1, 2], [5, 6])})))
    assert {"a <title>", "round", "GB", "a & b", "<script>"} <= set(picture.texts)
    assert len(picture.lines) == 2
    assert not list(picture.root.iter(f"{SVG}script"))


def test_one_line_needs_no_legend():
    assert "loss" not in Picture(still(figure(loss=([1, 2], [3, 4])))).texts


def test_recall_is_drawn_in_per_cent_from_nought():
    points = [
        Point(round=5 * n, hours=None, megabytes=1.0 * n, top1=0.1 + n / 100, top3=0.2) for n in range(1, 9)
    ]
    picture = Picture(still(recall_figure([Line("recall@1", points), Line("recall@3", points, top=3)])))
    assert [text for text in picture.texts if text and text.endswith("%")] == [
        "0%",
        "5%",
        "10%",
        "15%",
        "20%",
    ]
    assert picture.scale(across=True)[0][1] == 0
    assert len(picture.dots) == 16


def test_more_lines_than_there_is_room_for_are_counted():
    points = [Point(round=n, hours=None, megabytes=1.0, top1=0.1, top3=0.2) for n in range(70)]
    lines = [Line(f"a run with a name {number}", points) for number in range(MOST_LINES)]
    picture = Picture(still(recall_figure(lines)))
    assert len(picture.lines) == MOST_LINES
    assert picture.dots == []  # so many points are a line
    (rest,) = [text for text in picture.texts if text and text.startswith("and ")]
    named = [text for text in picture.texts if text and text.startswith("a run")]
    assert rest == f"and {MOST_LINES - len(named)} more"
    assert {path.get("stroke-dasharray") for path in picture.root.iter(f"{SVG}path")} > {None, "9 6"}
