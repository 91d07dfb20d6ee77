"""Thinning, and recall by round, hour and megabyte."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.report.curves import MOST_LINES, MOST_POINTS, Line, Point, recall_figure, recall_points, thinned


def row(number, recall=None, **changes):
    return {
        "round": number,
        "recall_top1": recall,
        "recall_top3": recall and 2 * recall,
        "uplink_bytes": 1_000_000,
        "downlink_bytes": 3_000_000,
        "virtual_s": 1_800.0 * (number + 1),
    } | changes


@given(count=st.integers(0, 5_000), most=st.integers(2, 1_200))
def test_thinning_keeps_the_ends_the_order_and_even_steps(count, most):
    kept = thinned(range(count), most)
    assert len(kept) == min(count, most)
    assert kept[:1] == list(range(count))[:1]
    assert kept[-1:] == list(range(count))[-1:]
    steps = {later - earlier for earlier, later in pairwise(kept)}
    assert not steps or (min(steps) >= 1 and max(steps) - min(steps) <= 1)


def test_bytes_of_rounds_without_a_measurement_count_too():
    points = recall_points([row(0, 0.1), row(1), row(2, 0.2)])
    assert points == [Point(1, 0.5, 4.0, 0.1, 0.2), Point(3, 1.5, 12.0, 0.2, 0.4)]


def test_all_measurements_are_kept_up_to_the_bound():
    rows = [row(n, 0.1) for n in range(MOST_POINTS)]
    assert [point.round for point in recall_points(rows)] == list(range(1, MOST_POINTS + 1))
    assert len(recall_points([*rows, row(MOST_POINTS, 0.1)])) == MOST_POINTS


def test_rows_of_older_runs_have_no_virtual_time():
    line = row(0, 0.1)
    del line["virtual_s"]
    assert recall_points([line])[0].hours is None


def buttons(figure):
    return {button.label: button.args for button in figure.layout.updatemenus[0].buttons}


def test_each_button_lays_the_same_recall_over_another_axis():
    points = recall_points([row(0, 0.1), row(1, 0.2)])
    figure = recall_figure([Line("recall@1", points), Line("recall@3", points, top=3)])
    assert [list(trace.y) for trace in figure.data] == [[0.1, 0.2], [0.2, 0.4]]
    found = buttons(figure)
    assert [found[label][0]["x"][1] for label in found] == [[1, 2], [0.5, 1.0], [4.0, 8.0]]
    assert [found[label][1]["xaxis.title.text"].split()[0] for label in found] == [
        "round",
        "virtual",
        "megabytes",
    ]
    assert list(figure.data[1].x) == found["by round"][0]["x"][1]


@pytest.mark.parametrize("points", [[], recall_points([row(0, 0.1, virtual_s=None)])], ids=["none", "HTTP"])
def test_without_virtual_hours_there_is_no_button_for_them(points):
    assert list(buttons(recall_figure([Line("a", points)]))) == ["by round", "by megabyte"]


def test_lines_can_be_told_apart():
    figure = recall_figure([Line(str(number), []) for number in range(MOST_LINES)])
    assert len({(trace.line.color, trace.line.dash) for trace in figure.data}) == MOST_LINES
