"""Noise that devices add themselves: how much there is in a sum, what it is worth, and that nothing can wrap around."""

from dataclasses import replace
from math import exp, inf, log, log2, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kbdfl.errors import ConfigError
from kbdfl.privacy import Account, Privacy, Shares
from kbdfl.privacy.accounting import (
    WHOLE_ORDERS,
    epsilon_of_rho,
    epsilon_of_skellam,
    rho_of,
    rho_of_skellam,
    skellam_rdp,
)
from kbdfl.privacy.distributed import TAIL, _reach
from kbdfl.secagg.payload import bits_for, to_sum, to_words

SHARES = Shares(steps=2_000.0, levels=70, size=30_000, survivors=6, devices=9)
NOISE = 0.5


def vectors(count, seed=2):
    drawn = np.random.default_rng(seed).normal(size=(count, SHARES.size))
    return SHARES.steps * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [6, 7, 9])
def test_a_sum_has_at_least_the_noise_that_is_promised_and_more_with_more_devices(count, sources):
    deltas = vectors(count)
    noise = sum(SHARES.encode(delta, NOISE, sources()) for delta in deltas) - deltas.sum(axis=0)
    promised = SHARES.variance(NOISE)
    rounding = count / 6  # at most a quarter a value each, a sixth on average
    assert noise.var() == pytest.approx(promised * count / 6 + rounding, rel=0.02)
    assert noise.var() >= 0.98 * promised * count / 6
    assert promised >= (NOISE * SHARES.steps) ** 2  # of clip norms, and of what rounding makes of them


@pytest.mark.parametrize("scale", [0.3, 1.0, 1e6])
def test_one_device_moves_the_sum_by_the_length_that_is_accounted_at_most(scale, sources, monkeypatch):
    monkeypatch.setattr(
        "kbdfl.privacy.distributed.skellam", lambda variance, count, source: np.zeros(count, np.int64)
    )
    alone = np.eye(1, SHARES.size)[0] * SHARES.steps
    for values in (scale * vectors(1)[0], scale * alone, np.full(SHARES.size, scale * 1e4)):
        steps = SHARES.encode(values, NOISE, sources())
        assert float(steps @ steps) <= SHARES.squared_l2
        assert np.abs(steps).sum() <= SHARES.l1
        assert np.abs(steps).max() <= SHARES.levels


def test_no_sum_wraps_around_whatever_is_drawn(monkeypatch):
    def extreme(variance, count, source):
        return np.where(np.arange(count) % 2, 1, -1) * np.int64(1 << 40)

    monkeypatch.setattr("kbdfl.privacy.distributed.skellam", extreme)
    bound = SHARES.bound(NOISE)
    bits = bits_for(SHARES.devices, bound)
    pulled = np.where(np.arange(SHARES.size) % 2, 1.0, -1.0) * 1e9
    parts = [SHARES.encode(pulled, NOISE) for _ in range(SHARES.devices)]
    assert max(np.abs(part).max() for part in parts) <= bound
    words = sum(to_words(part, bound=bound, bits=bits).astype(np.uint64) for part in parts) % 2**bits
    np.testing.assert_array_equal(to_sum(words.astype(np.uint32), bits=bits), sum(parts))


@given(st.floats(0.01, 1e12))
def test_noise_is_cut_where_next_to_nothing_of_it_lies_beyond(variance):
    most = _reach(variance)
    u = (most + 1) / variance
    beyond = log(2) + variance * (sqrt(1 + u * u) - 1 - u * np.arcsinh(u))
    assert beyond <= -TAIL * (1 - 1e-6)
    assert most <= 17 * sqrt(variance) + 2 * TAIL  # and no wider than that takes


def test_the_bound_on_what_is_cut_is_that_of_the_distribution():
    variance = 40.0
    exactly = 2 * stats.skellam.sf(np.arange(10, 40), variance / 2, variance / 2)
    for most, tail in zip(range(10, 40), exactly, strict=True):
        u = (most + 1) / variance
        assert tail <= 2 * exp(variance * (sqrt(1 + u * u) - 1 - u * np.arcsinh(u)))


def test_what_is_claimed_on_a_fine_grid_is_what_gaussian_noise_is_worth():
    fine = replace(SHARES, steps=2.0**17, levels=2**13)
    assert fine.epsilon(2.0, 1e-8, times=3) == pytest.approx(epsilon_of_rho(3 * rho_of(2.0), 1e-8), rel=0.03)
    coarse = replace(SHARES, steps=30.0, levels=3)
    assert coarse.epsilon(0.5, 1e-8, times=1) > epsilon_of_rho(rho_of(0.5), 1e-8)
    assert coarse.longest > 1.5 * coarse.steps  # rounding that coarse is paid for by more noise


@given(variance=st.floats(1.0, 1e12), length=st.floats(1.0, 1e6), size=st.integers(1, 10**7))
def test_rho_bounds_the_divergence_at_every_whole_order(variance, length, size):
    figures = {"variance": variance, "squared_l2": length**2, "l1": min(length**2, sqrt(size) * length)}
    rho = rho_of_skellam(**figures)
    worst = max(skellam_rdp(order, **figures) / order for order in WHOLE_ORDERS)
    assert worst <= rho * (1 + 1e-9)


def test_nothing_is_claimed_of_more_draws_than_delta_covers():
    assert SHARES.epsilon(2.0, 1e-9, times=1, releases=1_000) < inf
    assert SHARES.epsilon(2.0, 2.0**-130, times=1, releases=1_000) == inf
    assert SHARES.epsilon(0.0, 1e-9, times=1) == inf


def test_a_budget_becomes_the_least_noise_that_keeps_it():
    asked = Privacy("skellam", epsilon=6.0, delta=1e-9, separation=5)
    made = asked.with_noise(rounds=10, cohort=50, shares=SHARES)
    account = Account(made, 1.0, 10, 50, SHARES.size, SHARES)
    assert 5.999 < account.epsilon(10) <= 6.0
    less = replace(made, noise_multiplier=0.999 * made.noise_multiplier)
    assert Account(less, 1.0, 10, 50, SHARES.size, SHARES).epsilon(10) > 6.0
    # Two parts of a device: the figures of the paper's corollary, composed.
    figures = {"variance": SHARES.variance(made.noise_multiplier), "squared_l2": SHARES.squared_l2}
    assert account.epsilon(10) == epsilon_of_skellam(**figures, l1=SHARES.l1, delta=1e-9, times=2)
    assert account.rho(10) == 2 * rho_of_skellam(**figures, l1=SHARES.l1)
    assert (account.rho(0), SHARES.each(made.noise_multiplier)) == (0.0, figures["variance"] / 6)


def test_fewer_survivors_make_larger_shares_and_a_wider_word_but_no_less_privacy():
    few = replace(SHARES, survivors=3)
    assert few.each(NOISE) == 2 * SHARES.each(NOISE)
    assert few.epsilon(NOISE, 1e-9, times=1) == SHARES.epsilon(NOISE, 1e-9, times=1)
    assert log2(few.noise_bound(NOISE) / SHARES.noise_bound(NOISE)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": 0.0}, "steps must be finite and > 0"),
        ({"steps": float("nan")}, "steps must be finite and > 0"),
        ({"levels": 0}, "levels must be >= 1"),
        ({"survivors": 0}, "survivors must be >= 1"),
        ({"devices": 5}, "devices must be >= survivors = 6"),
    ],
)
def test_shares_that_cannot_be_are_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        replace(SHARES, **fields)


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan"), 1e9])
def test_noise_that_cannot_be_drawn_is_refused(noise):
    with pytest.raises(ConfigError, match="noise_multiplier must be > 0 and leave"):
        replace(SHARES, steps=1e7).encode(np.zeros(SHARES.size), noise)


def test_an_update_of_another_size_is_refused():
    with pytest.raises(ConfigError, match="must have 30000 numbers, got 3"):
        SHARES.encode(np.zeros(3), NOISE)


def test_an_account_needs_shares_where_devices_add_the_noise_and_nowhere_else():
    with pytest.raises(ConfigError, match="shares must come with noise that devices add"):
        Account(Privacy("skellam", noise_multiplier=1.0), 1.0, 1, 1, 1)
    with pytest.raises(ConfigError, match="shares must come with noise that devices add"):
        Account(Privacy("gaussian", noise_multiplier=1.0), 1.0, 1, 1, 1, SHARES)
    with pytest.raises(ConfigError, match="must not be skellam without secure aggregation"):
        Privacy("skellam", epsilon=1.0).with_noise(rounds=1, cohort=1)


@given(st.floats(0.05, 50.0), st.floats(1.01, 4.0), st.integers(1, 40))
def test_who_is_told_to_add_less_by_a_hundredth_needs_another_room(noise, times, survivors):
    """So that phones of one session, whose terms name the room, have noise of one deviation, to a hundredth."""
    shares = replace(SHARES, survivors=survivors, devices=40)
    told_less = (
        shares.noise_bound(noise / times),
        replace(shares, survivors=survivors + 1, devices=41).noise_bound(noise),
    )
    assert max(told_less) < shares.noise_bound(noise)
