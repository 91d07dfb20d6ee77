"""A task's noise before it is begun."""

from dataclasses import replace
from math import sqrt

import pytest

from kbdfl.errors import ConfigError
from kbdfl.privacy import Privacy
from kbdfl.privacy.plan import plan, usual_separation

ASKED = Privacy("banded", epsilon=8.9, delta=1e-10, separation=300, population=4_000_000)
TASK = {"rounds": 2_000, "cohort": 6_500, "size": 1_000_000}


@pytest.mark.parametrize("mechanism", ["gaussian", "tree", "banded"])
def test_a_plan_ends_at_its_budget(mechanism):
    made = plan(replace(ASKED, mechanism=mechanism), **TASK)
    assert 8.89 < made.epsilon <= 8.9
    assert list(made.epsilons) == sorted(made.epsilons)
    assert made.epsilons[-1] == made.epsilon
    assert made.sentence.count("8.9") >= 1
    assert made.to_json()["statement"] == made.sentence


def test_correlated_noise_leaves_less_in_a_model_than_independent_noise_of_the_same_cost():
    noise = {
        name: plan(replace(ASKED, mechanism=name), **TASK).running_noise
        for name in ("gaussian", "tree", "banded")
    }
    assert noise["banded"] < noise["tree"] < noise["gaussian"] / 3


def test_the_cohort_for_a_signal_is_the_noise_over_it():
    made = plan(replace(ASKED, mechanism="gaussian"), signal=0.5, **TASK)
    length = made.account.privacy.noise_multiplier * sqrt(1_000_000)
    assert made.noise_norm == pytest.approx(length / 6_500)
    assert made.cohort_for == -(-length // 0.5)


@pytest.mark.parametrize(
    ("privacy", "task", "said"),
    [
        ({}, {"rounds": 0}, "rounds must be >= 1"),
        ({}, {"cohort": 0}, "cohort must be >= 1"),
        ({}, {"size": 0}, "size must be >= 1"),
        ({}, {"signal": 0.0}, "signal must be > 0"),
        ({"population": 100}, {}, "cohort must be at most the population of 100"),
        ({"population": 100_000}, {}, "separation must be at most 15 for 100000 devices"),
        ({"participations": 2}, {}, "participations must be at least 4 for 2000 rounds"),
        ({"delta": 1e-320}, {}, "nothing is claimed"),
    ],
)
def test_a_plan_that_cannot_be_kept_is_refused(privacy, task, said):
    with pytest.raises(ConfigError, match=said):
        plan(replace(ASKED, **privacy), **(TASK | task))


def test_a_separation_that_nobody_asked_for_leaves_half_of_the_population_idle():
    assert usual_separation(4_000_000, rounds=2_000, cohort=6_500) == 307
    assert usual_separation(100, rounds=2_000, cohort=6_500) == 1
    assert usual_separation(10**9, rounds=50, cohort=10) == 50
