"""Noise that devices add themselves, summed modulo a power of two."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.errors import ConfigError
from kbdfl.privacy.accounting import epsilon_of_rho, rho_of
from kbdfl.privacy.distributed import Distributed, calibrated

ROUND = Distributed(clip_norm=1.0, levels=2_000, noise_multiplier=0.5, survivors=6, devices=9, size=30_000)


def vectors(count, seed=2):
    drawn = np.random.default_rng(seed).normal(size=(count, ROUND.size)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [6, 9])
def test_a_sum_has_at_least_the_noise_that_is_accounted_whoever_survives(count, sources):
    deltas, bits = vectors(count), ROUND.bits
    words = sum(ROUND.encode(delta, sources()) for delta in deltas) % 2**bits
    noise = ROUND.decode(words.astype(np.uint32), bits=bits) - deltas.sum(axis=0)
    accounted = ROUND.variance / ROUND.levels**2 * count / 6
    rounding = count / 6 / ROUND.levels**2  # at most a quarter a value each, a sixth on average
    assert noise.var() == pytest.approx(accounted + rounding, rel=0.02)
    assert noise.var() >= 0.98 * ROUND.variance / ROUND.levels**2


def test_one_device_moves_the_sum_by_the_length_that_is_accounted_at_most(sources, monkeypatch):
    monkeypatch.setattr(
        "kbdfl.privacy.distributed.skellam", lambda variance, count, source: np.zeros(count, np.int64)
    )
    for delta in (vectors(1)[0], 1e6 * vectors(1)[0], np.eye(1, ROUND.size, dtype=np.float32)[0]):
        steps = ROUND.encode(delta, sources())
        assert float(steps @ steps) <= ROUND.longest**2


def test_what_is_claimed_on_a_fine_grid_is_what_gaussian_noise_is_worth():
    fine = replace(ROUND, levels=2**17, noise_multiplier=2.0)
    assert fine.epsilon(1e-8, times=3) == pytest.approx(epsilon_of_rho(3 * rho_of(2.0), 1e-8), rel=0.03)
    assert ROUND.epsilon(1e-8) > epsilon_of_rho(rho_of(0.5), 1e-8)


def test_a_round_is_calibrated_to_its_fewest_survivors():
    made = calibrated(
        epsilon=6.0, delta=1e-9, times=2, clip_norm=1.0, levels=2**14, survivors=50, devices=80, size=9_000
    )
    assert made.epsilon(1e-9, times=2) <= 6.0
    assert replace(made, noise_multiplier=0.99 * made.noise_multiplier).epsilon(1e-9, times=2) > 6.0
    assert made.share == made.variance / 50


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"clip_norm": 0.0}, "clip_norm must be finite and > 0"),
        ({"noise_multiplier": float("nan")}, "noise_multiplier must be finite and > 0"),
        ({"levels": 0}, "levels must be >= 1"),
        ({"devices": 5}, "devices must be >= survivors = 6"),
        ({"levels": 2**30}, "levels must be fewer"),
    ],
)
def test_a_round_that_cannot_be_is_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        replace(ROUND, **fields)


def test_an_update_of_another_size_is_refused():
    with pytest.raises(ConfigError, match="must have 30000 numbers, got 3"):
        ROUND.encode(np.zeros(3, np.float32))
