"""What noise is worth: rho of zero-concentrated privacy, and (epsilon, delta). The one door to `dp_accounting`.

Neighbours are zero-out: two worlds that differ in one device, which in one of them reports zeros whenever it takes
part (Kairouz et al. 2021, arXiv 2103.00039). Nothing here is amplified: a phone checks in when it likes, and is no
random sample. Discrete Gaussian noise composes as rho-zCDP does (Bun and Steinke 2016, arXiv 1605.02065), also where
updates are chosen after earlier releases as long as the sum of all costs is bounded beforehand (Feldman and Zrnic
2021, arXiv 2008.11193). rho becomes epsilon by the bound of Canonne et al. 2020 (proposition 12), which
`dp_accounting` has.
"""

from collections.abc import Callable
from functools import lru_cache
from math import exp, inf, isfinite, sqrt

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.privacy.sampling import DISTANCE

# Orders of Renyi divergence that are tried, far finer than the library's own.
ORDERS = tuple(1 + np.geomspace(1e-3, 1e5, 300))
WHOLE_ORDERS = (*range(2, 65), *range(72, 257, 8), 384, 512, 1024)
# Of delta this part is set aside for what separates drawn noise from the noise that is accounted.
SET_ASIDE = 2.0**-10
_TINY, _HUGE = 1e-9, 1e9


# `dp_accounting` loads scipy, for a second: phones and those who predict, who know the terms of a task, do without.


def check_delta(delta: float) -> None:
    """Raise ConfigError unless 0 < delta < 1."""
    if not 0 < delta < 1:
        raise ConfigError(f"delta must lie in (0, 1), got {delta}")


def rho_of(noise_multiplier: float, *, squared_sensitivity: float = 1.0) -> float:
    """rho of Gaussian noise of `noise_multiplier` clip norms on releases of a sensitivity, in clip norms squared."""
    return squared_sensitivity / (2 * noise_multiplier**2)


@lru_cache(maxsize=4_096)
def epsilon_of_rho(rho: float, delta: float) -> float:
    """The epsilon of rho-zCDP at `delta`, by `dp_accounting`. Raises ConfigError for a delta outside (0, 1)."""
    check_delta(delta)
    if not rho >= 0:
        raise ConfigError(f"rho must be >= 0, got {rho}")
    if rho == 0:
        return 0.0
    if not rho < _HUGE:
        return inf
    import dp_accounting
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(ORDERS, dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    accountant.compose(dp_accounting.ZCDpEvent(rho=rho, xi=0.0))
    return float(accountant.get_epsilon(delta))


def claimed_epsilon(rho: float, delta: float, *, draws: int) -> float:
    """The epsilon of releases that cost rho, in which noise was drawn `draws` times: one number each.

    The drawn noise is within `sampling.DISTANCE` of the noise that is accounted, each time; so far apart, an (epsilon,
    delta) guarantee loses draws * DISTANCE * (1 + e^epsilon) of delta, which is set aside beforehand. inf where it is
    not enough.
    """
    return covered(epsilon_of_rho(rho, delta * (1 - SET_ASIDE)), delta, draws=draws)


def covered(epsilon: float, delta: float, *, draws: int) -> float:
    """`epsilon`, or inf where what is set aside of `delta` does not cover so many draws."""
    if epsilon > 700 or draws * DISTANCE * (1 + exp(epsilon)) > delta * SET_ASIDE:
        return inf
    return epsilon


def rho_for(epsilon: float, delta: float) -> float:
    """The largest rho, to nine digits, whose epsilon at `delta` (less what is set aside) is at most `epsilon`.

    Raises ConfigError for an epsilon that is not > 0, or that no rho above 1e-9 reaches.
    """
    if not (isfinite(epsilon) and epsilon > 0):
        raise ConfigError(f"epsilon must be > 0 and finite, got {epsilon}")
    check_delta(delta)
    low, high = _TINY, 1.0
    within = delta * (1 - SET_ASIDE)
    if epsilon_of_rho(low, within) > epsilon:
        raise ConfigError(f"epsilon must be larger at delta = {delta:g}, got {epsilon}")
    while epsilon_of_rho(high, within) <= epsilon:
        high *= 2
    for _ in range(48):
        middle = sqrt(low * high)
        if epsilon_of_rho(middle, within) <= epsilon:
            low = middle
        else:
            high = middle
    return low


@lru_cache(maxsize=4_096)
def epsilon_of_skellam(
    *,
    variance: float,
    squared_l2: float,
    l1: float,
    delta: float,
    times: int = 1,
) -> float:
    """The epsilon at `delta` of `times` releases under Skellam noise of `variance` in each coordinate.

    Agarwal et al. 2021, arXiv 2110.04995, corollary 3.6, for whole numbers of an L2 sensitivity squared and an L1
    sensitivity, at whole orders a > 1:

        RDP(a) <= a l2^2 / (2 v) + min(((2 a - 1) l2^2 + 6 l1) / (4 v^2), 3 l1 / (2 v))
    """
    from dp_accounting import rdp

    check_delta(delta)
    curve = [
        times * skellam_rdp(order, variance=variance, squared_l2=squared_l2, l1=l1) for order in WHOLE_ORDERS
    ]
    return float(rdp.compute_epsilon(WHOLE_ORDERS, curve, delta * (1 - SET_ASIDE))[0])


def skellam_rdp(order: int, *, variance: float, squared_l2: float, l1: float) -> float:
    """The bound of `epsilon_of_skellam` at one order."""
    more = min(((2 * order - 1) * squared_l2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
    return order * squared_l2 / (2 * variance) + more


def rho_of_skellam(*, variance: float, squared_l2: float, l1: float) -> float:
    """The least rho with which `skellam_rdp` is at most rho a at every whole order a > 1.

    Its first bound is l2^2 / (2 v) (1 + 1 / v) a + (6 l1 - l2^2) / (4 v^2): a line, which divided by a is highest at
    a = 2, or where a is largest.
    """
    slope = squared_l2 / (2 * variance) * (1 + 1 / variance)
    return slope + max(0.0, 6 * l1 - squared_l2) / (4 * variance**2) / 2


def epsilon_of_tree(noise_multiplier: float, delta: float, *, steps: int) -> float:
    """The epsilon, by `dp_accounting`'s own event, of one tree in which a device takes part once."""
    import dp_accounting
    from dp_accounting import rdp

    check_delta(delta)
    accountant = rdp.RdpAccountant(ORDERS, dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    accountant.compose(dp_accounting.SingleEpochTreeAggregationDpEvent(noise_multiplier, steps))
    return float(accountant.get_epsilon(delta))


def continuous_epsilon(noise_multiplier: float, delta: float, *, times: int = 1) -> float:
    """The exact epsilon of real-valued Gaussian noise, for comparison: no claim rests on it."""
    import dp_accounting
    from dp_accounting import pld

    check_delta(delta)
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    event = dp_accounting.GaussianDpEvent(noise_multiplier)
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, times))
    return float(accountant.get_epsilon(delta))


def smallest(works: Callable[[float], bool], *, guess: float = 1.0) -> float:
    """The smallest number > 0 that `works`, to nine digits, if all larger ones do. ConfigError if there is none."""
    low = high = guess
    while not works(high):
        low, high = high, high * 2
        if high > _HUGE:
            raise ConfigError("no noise is enough for this budget")
    while works(low):
        low, high = low / 2, low
        if low < _TINY:
            return low
    for _ in range(48):
        middle = sqrt(low * high)
        low, high = (low, middle) if works(middle) else (middle, high)
    return high
