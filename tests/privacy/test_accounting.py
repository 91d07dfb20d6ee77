"""One contract for all that turns noise into rho and epsilon, with published figures."""

from math import log, sqrt

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.errors import ConfigError
from kbdfl.privacy import accounting
from kbdfl.privacy.accounting import (
    SET_ASIDE,
    claimed_epsilon,
    continuous_epsilon,
    epsilon_of_rho,
    epsilon_of_skellam,
    epsilon_of_tree,
    rho_for,
    rho_of,
    skellam_rdp,
    smallest,
)

RHOS = st.floats(1e-4, 20.0)
DELTAS = st.sampled_from([1e-4, 1e-6, 1e-10, 1e-12])


def test_the_first_keyboard_with_a_statement_has_its_published_figures():
    """rho = 0.81 was announced as epsilon = 8.9 at delta = 1e-10 (Xu et al. 2023, arXiv 2305.18465)."""
    assert epsilon_of_rho(0.81, 1e-10) == pytest.approx(8.9, abs=0.03)


def test_the_published_range_of_rho_has_the_published_range_of_epsilon():
    """rho in (0.2, 2) there, for epsilon from 0.994 to 13.69 with later mechanisms in between."""
    assert 4 < epsilon_of_rho(0.2, 1e-10) < 4.3
    assert 13.69 < epsilon_of_rho(2.0, 1e-10) < 15


def test_five_parts_without_amplification_have_the_figure_of_the_exact_accountant():
    assert continuous_epsilon(1.0, 1e-6, times=5) == pytest.approx(12.60, abs=0.01)


def test_what_is_claimed_is_never_less_than_the_exact_figure_of_real_valued_noise():
    for noise, delta, times in ((1.0, 1e-6, 5), (3.0, 1e-10, 1), (0.8, 1e-5, 2)):
        exact = continuous_epsilon(noise, delta, times=times)
        assert exact <= epsilon_of_rho(times * rho_of(noise), delta) <= 1.1 * exact


@settings(max_examples=40, deadline=None)
@given(RHOS, DELTAS)
def test_epsilon_is_below_the_textbook_bound_and_grows_with_rho(rho, delta):
    epsilon = epsilon_of_rho(rho, delta)
    assert 0 <= epsilon <= rho + 2 * sqrt(rho * log(1 / delta))
    assert epsilon <= epsilon_of_rho(1.01 * rho, delta)
    assert epsilon >= epsilon_of_rho(rho, 2 * delta)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 40.0), DELTAS)
def test_the_rho_of_a_budget_is_the_largest_that_it_allows(epsilon, delta):
    rho, within = rho_for(epsilon, delta), delta * (1 - SET_ASIDE)
    assert epsilon_of_rho(rho, within) <= epsilon < epsilon_of_rho(rho * 1.0001, within) + 1e-12


def test_nothing_costs_nothing():
    assert epsilon_of_rho(0.0, 1e-10) == 0.0


def test_a_tree_costs_what_the_library_says():
    for steps, levels in ((1, 1), (7, 3), (8, 4), (1_000, 10), (1_024, 11)):
        assert epsilon_of_tree(2.0, 1e-6, steps=steps) == pytest.approx(
            epsilon_of_rho(levels * rho_of(2.0), 1e-6)
        )


def test_a_claim_sets_aside_what_drawn_noise_may_be_off():
    plain, claimed = epsilon_of_rho(0.8, 1e-10), claimed_epsilon(0.8, 1e-10, draws=10**10)
    assert plain < claimed < plain + 0.001


def test_nothing_is_claimed_where_that_is_not_enough(monkeypatch):
    monkeypatch.setattr(accounting, "DISTANCE", 2.0**-60)
    assert claimed_epsilon(0.8, 1e-10, draws=1) < 10
    assert claimed_epsilon(0.8, 1e-10, draws=10**6) == float("inf")


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, float("nan")])
def test_a_delta_that_is_none_is_refused(delta):
    for ask in (
        lambda: epsilon_of_rho(1.0, delta),
        lambda: rho_for(1.0, delta),
        lambda: epsilon_of_tree(1.0, delta, steps=4),
        lambda: continuous_epsilon(1.0, delta),
        lambda: epsilon_of_skellam(variance=1.0, squared_l2=1.0, l1=1.0, delta=delta),
    ):
        with pytest.raises(ConfigError, match="delta must lie in"):
            ask()


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf"), 1e-14])
def test_a_budget_that_is_none_is_refused(epsilon):
    with pytest.raises(ConfigError, match="epsilon must be"):
        rho_for(epsilon, 1e-10)


def skellam_divergence(order, variance, shift):
    """The Renyi divergence between Skellam noise and the same moved by `shift`, by its definition."""
    reach = int(12 * sqrt(variance)) + 30
    with mpmath.workdps(40):
        p = {
            y: mpmath.exp(-variance) * mpmath.besseli(y, variance)
            for y in range(-reach - shift, reach + shift + 1)
        }
        total = mpmath.fsum(p[y] ** order * p[y - shift] ** (1 - order) for y in range(-reach, reach + 1))
        return float(mpmath.log(total) / (order - 1))


@pytest.mark.parametrize(
    ("order", "variance", "shift"), [(2, 20.0, 1), (4, 30.0, 2), (8, 100.0, 3), (16, 400.0, 2)]
)
def test_the_bound_of_skellam_noise_is_above_its_divergence_and_near_it(order, variance, shift):
    exact = skellam_divergence(order, variance, shift)
    bound = skellam_rdp(order, variance=variance, squared_l2=shift**2, l1=shift)
    assert exact <= bound <= 1.3 * exact


def test_skellam_noise_on_a_fine_grid_is_worth_what_gaussian_noise_is():
    levels, noise = 2.0**14, 3.0
    skellam = epsilon_of_skellam(
        variance=(noise * levels) ** 2, squared_l2=levels**2, l1=1_000 * levels, delta=1e-10, times=4
    )
    assert skellam == pytest.approx(epsilon_of_rho(4 * rho_of(noise), 1e-10), rel=0.01)


def test_the_smallest_number_that_works_is_found():
    for wanted in (1e-5, 0.3, 1.0, 7e6):
        found = smallest(lambda value, wanted=wanted: value >= wanted)
        assert wanted <= found <= wanted * (1 + 1e-6)
    with pytest.raises(ConfigError, match="no noise is enough"):
        smallest(lambda value: False)


def test_rho_is_half_the_squared_ratio_of_sensitivity_and_noise():
    assert rho_of(2.0, squared_sensitivity=12.0) == 1.5
    assert np.isclose(rho_of(0.5), 2.0)
