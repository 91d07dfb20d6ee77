"""A lower bound on epsilon that is measured: releases with a phone and without it, and how well they are told apart.

Whoever could tell them apart with false positives a and false negatives b has shown that the mechanism is not mu-GDP
for any mu below  Phi^-1(1 - a) - Phi^-1(b)  (Dong, Roth and Su 2019, arXiv 1905.02383). Bounds of a and b that hold
with high confidence give one of mu, and so of epsilon (Nasr et al. 2023, arXiv 2302.07956); many phones may be tried
in one release (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846). Inputs are the worst there are, and thresholds
are chosen on other releases than they are judged on.

A claim is refuted when the bound is above it. A mechanism that keeps its promise is refuted by bad luck only, with
probability 1 - CONFIDENCE.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, exp
from statistics import NormalDist

import numpy as np

from kbdfl.audit.chance import share_bounds
from kbdfl.audit.mechanism import Mechanism
from kbdfl.errors import ConfigError

CONFIDENCE = 0.999  # of an audit, all its games together
LEAST_TRIALS, MOST_TRIALS = 1_000, 40_000  # releases with the phone, and as many without it
_PRECISION = 24.0  # trials are this over mu, squared: enough to see twice the mu that is claimed
_CROWD, _LOUD = 4, 10.0  # phones of a crowd; times the clip norm that a phone's own update has
_ASIDE = 32  # phones that are tried in one release, each in a coordinate of its own (Steinke et al. 2023)
_THRESHOLDS = 32
_NORMAL = NormalDist()

Game = Callable[
    [Mechanism, bool, int], np.ndarray
]  # (mechanism, whether the phone is there, trials) -> scores


def gaussian_delta(mu: float, epsilon: float) -> float:
    """The delta of a mu-GDP mechanism at this epsilon (Balle and Wang 2018, arXiv 1805.06530, theorem 8)."""
    if mu == 0:
        return 0.0
    tail = _NORMAL.cdf(-epsilon / mu - mu / 2)
    return _NORMAL.cdf(mu / 2 - epsilon / mu) - (exp(epsilon) * tail if tail else 0.0)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The smallest epsilon >= 0 at which a mu-GDP mechanism is (epsilon, delta)-DP. Raises ConfigError."""
    if not 0 < delta < 1:
        raise ConfigError(f"delta must lie in (0, 1), got {delta}")
    if not 0 <= mu <= 25:
        raise ConfigError(f"mu must lie in [0, 25], got {mu}")
    low, high = 0.0, mu * mu / 2 + 10 * mu + 1
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(mu, middle) > delta else (low, middle)
    return high


def _alone(mechanism: Mechanism, there: bool, trials: int) -> np.ndarray:
    """One phone with an update ten times too long: what a clip is for."""
    updates = np.eye(_ASIDE, dtype=np.float32) * np.float32(_LOUD * mechanism.clip_norm * there)
    releases = [mechanism.release(updates, round=number) for number in range(-(-trials // _ASIDE))]
    return np.concatenate(releases)[:trials]


def _against_the_crowd(mechanism: Mechanism, there: bool, trials: int) -> np.ndarray:
    """All others pull one way, the phone the other way: what a fixed denominator is for."""
    updates = np.zeros((_CROWD, 2), np.float32)
    updates[1:, 0] = mechanism.clip_norm
    updates[0, 0] = -mechanism.clip_norm * there
    return np.array([-mechanism.release(updates, round=number)[0] for number in range(trials)])


def _two_rounds(mechanism: Mechanism, there: bool, trials: int) -> np.ndarray:
    """The phone takes part in one of two rounds that are alike: what fresh noise is for."""
    silent = np.zeros((_ASIDE, _ASIDE), np.float32)
    updates = np.eye(_ASIDE, dtype=np.float32) * np.float32(mechanism.clip_norm * there)
    pairs = range(-(-trials // _ASIDE))
    return np.concatenate(
        [
            mechanism.release(updates, round=2 * number) - mechanism.release(silent, round=2 * number + 1)
            for number in pairs
        ]
    )[:trials]


GAMES: dict[str, Game] = {
    "alone": _alone,
    "against the crowd": _against_the_crowd,
    "two rounds": _two_rounds,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit of one release found: in each game the bound of mu, and of all of them the largest epsilon.

    claimed_epsilon is what its accountant says, claimed_mu what follows from the noise multiplier; lower_epsilon has
    been shown with CONFIDENCE.
    """

    claimed_mu: float
    claimed_epsilon: float
    lower_mu: dict[str, float]
    lower_epsilon: float
    delta: float
    trials: int

    @property
    def refuted(self) -> bool:
        """Whether the claim is false."""
        return max(self.lower_mu.values()) > self.claimed_mu

    @property
    def game(self) -> str:
        """The game that shows most."""
        return max(self.lower_mu, key=lambda name: self.lower_mu[name])


def lower_mu(without: np.ndarray, with_it: np.ndarray, *, confidence: float) -> float:
    """A bound of mu from scores float (n,) of releases without the phone and with it, each half for the threshold.

    It is right with `confidence`, and 0 where nothing is shown.
    """
    half, error = len(without) // 2, (1 - confidence) / 2

    def bound(threshold: float, part: slice) -> float:
        wrong = (without[part] > threshold, with_it[part] <= threshold)
        a, b = (share_bounds(int(one.sum()), len(one), confidence=1 - error)[1] for one in wrong)
        return _NORMAL.inv_cdf(1 - a) - _NORMAL.inv_cdf(b) if a < 1 and b < 1 else 0.0

    ends = np.concatenate([without[:half], with_it[:half]])
    thresholds = np.unique(np.quantile(ends, np.linspace(0.02, 0.98, _THRESHOLDS))).tolist()
    best = max(thresholds, key=lambda threshold: bound(threshold, slice(0, half)))
    return max(0.0, bound(best, slice(half, None)))


def audit_mechanism(mechanism: Mechanism, *, delta: float, trials: int | None = None) -> Finding:
    """Play all GAMES against one release of `mechanism`. Without `trials` there are enough to see half the noise."""
    mu = 1 / mechanism.noise_multiplier
    if trials is None:
        trials = min(MOST_TRIALS, max(LEAST_TRIALS, ceil((_PRECISION / mu) ** 2)))
    each = 1 - (1 - CONFIDENCE) / len(GAMES)
    found = {}
    for name, game in GAMES.items():
        without, with_it = (game(mechanism, there, trials) for there in (False, True))
        found[name] = lower_mu(without, with_it, confidence=each)
    most = min(max(found.values()), 25.0)
    return Finding(mu, mechanism.claimed_epsilon(delta), found, gaussian_epsilon(most, delta), delta, trials)
