"""What a task promises, and what that costs."""

from dataclasses import replace
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.algorithms import PRESETS
from kbdfl.errors import ConfigError
from kbdfl.privacy import Participations, Parts, Privacy
from kbdfl.privacy.accounting import rho_of
from kbdfl.privacy.participation import allowed
from kbdfl.run import RunConfig
from kbdfl.task import RoundRule

GAUSSIAN = Privacy("gaussian", noise_multiplier=2.0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"mechanism": "laplace"},
            "mechanism must be one of none, gaussian, tree, banded, skellam, got 'laplace'",
        ),
        ({"noise_multiplier": -1.0}, "noise_multiplier must be >= 0 and finite"),
        ({"noise_multiplier": float("nan")}, "noise_multiplier must be >= 0 and finite"),
        ({"epsilon": float("inf")}, "epsilon must be >= 0 and finite"),
        ({"delta": 0.0}, "delta must lie in"),
        ({"participations": -1}, "participations must be >= 0"),
        ({"separation": -3}, "separation must be >= 0"),
        ({"quantile": 1.0}, "quantile must lie in"),
        ({"noise_multiplier": 0.0}, "must have a noise_multiplier or an epsilon"),
        ({"mechanism": "none"}, "noise_multiplier must come with a mechanism"),
        ({"bands": 4}, "bands must come with banded"),
        ({"restart": 4}, "restart must come with tree"),
        ({"mechanism": "banded", "bands": 4, "separation": 3}, "bands must be at most separation = 3"),
        ({"mechanism": "tree", "quantile": 0.5}, "quantile must be 0 with noise that later rounds take back"),
        ({"mechanism": "skellam", "quantile": 0.5}, "quantile must be 0 with noise that devices add"),
        ({"clip_rate": 0.1}, "clip_rate must come with a quantile"),
        ({"count_noise": 3.0}, "count_noise must come with a quantile"),
    ],
)
def test_a_promise_that_makes_no_sense_is_refused(fields, said):
    with pytest.raises(ConfigError, match=said) as error:
        replace(GAUSSIAN, **fields)
    assert "\n" not in str(error.value)


def test_without_a_mechanism_there_is_none():
    assert not Privacy().on
    assert Privacy().with_noise(rounds=3, cohort=3) == Privacy()


@pytest.mark.parametrize(
    ("mechanism", "quantile"), [("gaussian", 0.0), ("gaussian", 0.5), ("tree", 0.0), ("banded", 0.0)]
)
def test_the_noise_of_a_budget_is_the_least_that_keeps_it(mechanism, quantile):
    asked = Privacy(mechanism, epsilon=4.0, delta=1e-8, separation=20, quantile=quantile)
    made = asked.with_noise(rounds=100, cohort=50)
    assert made.noise_multiplier > 0
    assert replace(made, noise_multiplier=0.0) == asked
    assert made.claim(made.rho(100, rounds=100, cohort=50), draws=10**8) <= 4.0
    less = replace(made, noise_multiplier=0.999 * made.noise_multiplier)
    assert less.claim(less.rho(100, rounds=100, cohort=50), draws=1) > 4.0


def test_noise_that_was_given_is_left():
    assert replace(GAUSSIAN, epsilon=1.0).with_noise(rounds=9, cohort=9).noise_multiplier == 2.0


def test_a_count_that_costs_more_than_the_budget_is_refused():
    with pytest.raises(ConfigError, match="count_noise must be larger"):
        Privacy("gaussian", epsilon=0.5, quantile=0.5, count_noise=0.1).with_noise(rounds=50, cohort=10)


def test_independent_noise_costs_each_part_alike():
    bounded = replace(GAUSSIAN, separation=10, participations=3)
    assert [bounded.parts(released) for released in (1, 10, 11, 21, 31, 500)] == [1, 1, 2, 3, 3, 3]
    assert bounded.rho(500, rounds=500, cohort=9) == pytest.approx(3 * rho_of(2.0))
    assert GAUSSIAN.rho(7, rounds=500, cohort=9) == pytest.approx(7 * rho_of(2.0))
    assert GAUSSIAN.rho(0, rounds=500, cohort=9) == 0


def test_the_count_of_a_moving_clip_norm_is_charged():
    """As one Gaussian of the combined noise (Andrew et al. 2021, theorem 1): 1 / z^2 + 1 / (2 sigma)^2."""
    moving = replace(GAUSSIAN, quantile=0.5, count_noise=4.0, participations=5)
    assert moving.rho(100, rounds=100, cohort=80) == pytest.approx(5 * (1 / 2.0**2 + 1 / (2 * 4.0) ** 2) / 2)
    assert replace(moving, count_noise=0.0).counting_noise(80) == 4.0


@given(
    st.sampled_from(["gaussian", "tree", "banded"]), st.integers(1, 30), st.integers(0, 6), st.integers(1, 80)
)
@settings(max_examples=60, deadline=None)
def test_rho_never_falls_and_is_bounded_by_the_end(mechanism, separation, participations, rounds):
    privacy = Privacy(mechanism, noise_multiplier=1.0, separation=separation, participations=participations)
    costs = [privacy.rho(released, rounds=rounds, cohort=5) for released in range(rounds + 1)]
    assert costs == sorted(costs)
    assert costs[-1] > 0


def test_a_budget_that_noise_cannot_reach_is_refused():
    with pytest.raises(ConfigError, match="epsilon must be larger"):
        Privacy("gaussian", epsilon=1e-14).with_noise(rounds=5, cohort=5)


@given(st.lists(st.integers(0, 60), max_size=60), st.integers(0, 4), st.integers(0, 12))
def test_devices_that_are_asked_as_often_as_they_may_keep_both_bounds(asked, participations, separation):
    privacy = replace(GAUSSIAN, participations=participations, separation=separation)
    known, taken = Participations(), []
    for release in sorted(asked):
        if known.may("ann", release, privacy):
            known.counted(["ann"], release)
            taken.append(release)
    assert all(b - a >= max(separation, 1) for a, b in pairwise(taken))
    assert not participations or len(taken) <= participations
    assert len(taken) <= privacy.parts(61) == (min(ceil(61 / max(separation, 1)), participations or 61))
    assert (known.of("ann") is None) == (not taken)


def test_one_device_does_not_bar_another():
    known = Participations({"ann": Parts(1, 5)})
    assert not known.may("ann", 6, replace(GAUSSIAN, separation=2))
    assert known.may("bob", 6, replace(GAUSSIAN, separation=2))


def test_nobody_is_counted_twice_in_one_release():
    assert not allowed(Parts(1, 5), 5, participations=0, separation=0)
    assert allowed(Parts(1, 5), 6, participations=0, separation=0)


@pytest.mark.parametrize("name", ["dp-fedavg", "dp-ftrl", "dp-banded", "fedadam"])
def test_a_run_reads_its_promise_back_with_the_noise_that_was_found(name, tmp_path):
    config = RunConfig(algorithm=PRESETS[name], rule=RoundRule(cohort=9, rounds=40))
    privacy = config.algorithm.privacy
    assert (privacy.noise_multiplier > 0) == privacy.on == (name != "fedadam")
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), "utf-8")
    assert RunConfig.load(path) == config


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("mechanism = 3", "privacy.mechanism must be str"),
        ("sigma = 1.0", "privacy has no field 'sigma'"),
        ("epsilon = 1.0", "epsilon must come with a mechanism"),
    ],
)
def test_a_promise_in_a_file_that_makes_no_sense_is_refused(table, said, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(f"[privacy]\n{table}\n", "utf-8")
    with pytest.raises(ConfigError, match=said):
        RunConfig.load(path)
