"""When a learning curve is where: between its points, never, and which value of a method is there first."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.device_sim.experiments.study import Tried
from kbdfl.device_sim.experiments.timing import soonest, spoken, until


def curve(*recalls, hours=1.0):
    return [
        {"hours": hours * (i + 1), "trips": 10 * (i + 1), "recall_top1": recall}
        for i, recall in enumerate(recalls)
    ]


def tried(method, value, learnt):
    return Tried(method, value, learnt[-1]["recall_top1"], 0.0, learnt, {})


def test_a_recall_between_two_points_is_reached_between_them():
    learnt = curve(0.1, 0.2, 0.3)
    assert until(learnt, 0.2) == 2.0
    assert until(learnt, 0.25) == pytest.approx(2.5)
    assert until(learnt, 0.25, count="trips") == pytest.approx(25.0)


def test_the_first_time_counts_where_a_curve_falls_again():
    assert until(curve(0.1, 0.3, 0.15, 0.3), 0.2) == pytest.approx(1.5)


def test_a_recall_that_is_never_reached_takes_for_ever():
    assert until(curve(0.1, 0.2), 0.21) == inf
    assert until([], 0.1) == inf


def test_a_curve_that_begins_above_has_its_first_points_time():
    assert until(curve(0.4, 0.5), 0.2) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 1), st.floats(0, 1))
def test_more_recall_is_never_reached_sooner(recalls, one, other):
    learnt, (less, more) = curve(*recalls), sorted((one, other))
    assert until(learnt, less) <= until(learnt, more)


def test_the_soonest_value_is_chosen_and_among_those_that_never_arrive_the_best():
    quick, slow = tried("a", "quick", curve(0.2, 0.3)), tried("a", "slow", curve(0.1, 0.15, 0.5))
    bad, better = tried("b", "bad", curve(0.05)), tried("b", "better", curve(0.1))
    assert soonest([slow, quick, bad, better], 0.25) == {"a": quick, "b": better}
    assert soonest([slow, quick], 0.45) == {"a": slow}


def test_a_table_says_a_mean_or_never():
    assert spoken([1.0, 2.0], ".2f") == "1.50"
    assert spoken([1.0, inf], ".2f") == "never"
