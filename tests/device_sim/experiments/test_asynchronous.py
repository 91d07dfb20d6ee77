"""`async`: both sides have as many phones and reports; the figures are hours and trips to one target."""

from dataclasses import replace
from math import inf

import pytest

from kbdfl.device_sim.experiments import asynchronous
from kbdfl.device_sim.experiments.asynchronous import (
    AT_ONCE,
    METHODS,
    SHARE,
    choose,
    columns,
    figures,
    settings,
)
from kbdfl.device_sim.experiments.study import Run, Study, Tried

SYNCHRONOUS, FEDBUFF = METHODS


def learnt(hours, trips, recalls=(0.1, 0.2)):
    return [
        {"hours": h, "trips": t, "recall_top1": recall}
        for h, t, recall in zip(hours, trips, recalls, strict=True)
    ]


def run(method, seed, curve):
    return Run(method, "-", seed, curve[-1]["recall_top1"], 0.0, 1, 1.0, curve, {})


@pytest.fixture
def study():
    """Targets are 0.95 of 0.2: both reach them at 0.9 of the way from their first point to their last."""
    return Study(
        [],
        [
            run(SYNCHRONOUS, 0, learnt((0.0, 4.0), (0, 300))),
            run(FEDBUFF, 0, learnt((0.0, 1.0), (0, 100))),
            run(SYNCHRONOUS, 1, learnt((0.0, 4.0), (0, 300))),
            run(FEDBUFF, 1, learnt((0.0, 2.0), (0, 150))),
        ],
    )


def test_no_side_has_more_phones_at_once_and_all_count_as_many_reports():
    for setting in settings(rounds=60, quick=False):
        if setting.method == SYNCHRONOUS:
            assert setting.rule.selected <= AT_ONCE
        else:
            assert setting.algorithm.mode.concurrency == AT_ONCE
        assert 600 <= setting.rounds * setting.rule.cohort < 600 + setting.rule.cohort
        assert setting.algorithm.server.decay_rounds == setting.rounds
    assert max(setting.rule.selected for setting in settings(rounds=60, quick=False)[:5]) == AT_ONCE


def test_figures_are_ratios_seed_by_seed(study):
    assert figures(study) == pytest.approx(
        {
            "speedup": 3.0,
            "speedup_low": 2.0,
            "speedup_high": 4.0,
            "speedup_to_90_percent": 3.0,
            "trips_ratio": 2.5,
        }
    )


def test_an_earlier_target_may_be_reached_where_the_later_one_is_not(study):
    low = [replace(one, curve=learnt((0, 1), (0, 100), (0.1, 0.185))) for one in study.of(FEDBUFF)]
    found = figures(Study([], [*study.of(SYNCHRONOUS), *low]))
    assert found["speedup"] == 0.0
    assert found["speedup_to_90_percent"] == pytest.approx(4 * 0.8 / (0.08 / 0.085))


def test_the_table_says_hours_and_trips_to_the_target(study):
    reached = (SHARE * 0.2 - 0.1) / 0.1
    assert columns(study) == {
        "hours to target": {SYNCHRONOUS: f"{4 * reached:.3f}", FEDBUFF: f"{1.5 * reached:.3f}"},
        "trips to target": {SYNCHRONOUS: f"{300 * reached:.0f}", FEDBUFF: f"{125 * reached:.0f}"},
    }


def test_a_fedbuff_that_never_has_the_target_is_no_speedup(study):
    low = [replace(one, curve=learnt((0, 1), (0, 100), (0.1, 0.18))) for one in study.of(FEDBUFF)]
    failed = Study([], [*study.of(SYNCHRONOUS), *low])
    assert figures(failed)["speedup"] == 0.0
    assert columns(failed)["hours to target"][FEDBUFF] == "never"


def test_the_value_that_has_the_best_synchronous_recall_soonest_is_chosen():
    def one(method, value, hours, recalls):
        return Tried(method, value, recalls[-1], 0.0, learnt(hours, (0, 100), recalls), {})

    best = one(SYNCHRONOUS, "small cohort", (1.0, 9.0), (0.1, 0.2))
    sooner = one(SYNCHRONOUS, "large cohort", (1.0, 2.0), (0.1, 0.195))
    weak = one(SYNCHRONOUS, "weak", (0.1, 0.2), (0.1, 0.18))
    quick, slow = one(FEDBUFF, "quick", (0.1, 0.4), (0.1, 0.2)), one(FEDBUFF, "slow", (0.1, 0.9), (0.1, 0.21))
    assert choose([best, sooner, weak, slow, quick]) == {SYNCHRONOUS: sooner, FEDBUFF: quick}


def test_a_run_on_phones_of_heavy_tailed_speeds_has_hours_and_trips(data, monkeypatch):
    monkeypatch.setattr(asynchronous, "AT_ONCE", 20)
    buffered = settings(rounds=8, quick=True)[-1]
    curve = replace(buffered, points=4).train(data, seed=1, workers=2).curve(data.validation)
    assert [point["rounds"] for point in curve] == [2, 4, 6, 8]
    assert 0 < curve[0]["hours"] < curve[-1]["hours"] < inf
    assert curve[-1]["trips"] >= 80
