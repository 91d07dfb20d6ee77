"""Noise of which later rounds take back a part: a banded Toeplitz matrix C, and what its inverse makes of white noise.

The rounds' sums x are released as C x + z, z white; the server reads C^-1 (C x + z) = x + C^-1 z, whose running sums,
which are what a model is, carry less noise than independent rounds would leave (Choquette-Choo et al. 2023, arXiv
2306.08153; Kalinin and Lampert 2024, arXiv 2405.13763 on Toeplitz ones). With as many bands as rounds lie between two
parts of a device, no two of its parts meet in one release: the squared sensitivity is parts * sum(c^2).

The coefficients are whole parts of 2^16, so that all that is released is whole numbers, and no float touches the data.
"""

from functools import lru_cache
from typing import Any

import numpy as np

UNIT = 1 << 16  # of a coefficient: the first one is this


@lru_cache(maxsize=32)
def coefficients(rounds: int, bands: int) -> tuple[int, ...]:
    """C's `bands` coefficients in parts of UNIT, UNIT itself first, that make the mean error over `rounds` least."""
    from scipy.optimize import minimize

    start = _square_root(bands)[1:]
    if bands == 1:
        return (UNIT,)
    found = minimize(_loss, start, args=(rounds,), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    best = found.x if np.isfinite(found.fun) and found.fun <= _loss(start, rounds)[0] else start
    return (UNIT, *(round(float(value) * UNIT) for value in best))


def squared_norm(coefficients: tuple[int, ...]) -> float:
    """sum(c^2): the squared sensitivity of one part."""
    return sum(value * value for value in coefficients) / UNIT**2


def prefix_variance(coefficients: tuple[int, ...], rounds: int) -> float:
    """The mean over `rounds` of the variance of a running sum's noise, as a multiple of z's."""
    gains = np.cumsum(_divided(_impulse(rounds), np.array(coefficients) / UNIT))
    return float(np.arange(rounds, 0, -1) @ gains**2 / rounds)


def _loss(later: np.ndarray, rounds: int) -> tuple[float, np.ndarray]:
    """ln of the squared sensitivity times the mean squared error, for c = (1, later), and its gradient by `later`.

    Running sums of C^-1 z have the coefficients g = 1 / ((1 - s) c(s)); a change of c by d changes g by -g d / c.
    """
    c = np.concatenate([[1.0], later])
    with np.errstate(over="ignore", invalid="ignore"):
        gains = np.cumsum(_divided(_impulse(rounds), c))
        weights = np.arange(rounds, 0, -1) / rounds
        error, norm = float(weights @ gains**2), float(c @ c)
        if not np.isfinite(error):
            return np.inf, np.zeros_like(later)
        further, by_gain = _divided(gains, c), 2 * weights * gains
        slope = [-(by_gain[j:] @ further[: rounds - j]) if j < rounds else 0.0 for j in range(1, len(c))]
    return float(np.log(error) + np.log(norm)), np.array(slope) / error + 2 * later / norm


def _square_root(bands: int) -> np.ndarray:
    """The coefficients of 1 / sqrt(1 - s), the best of all for endless sums (Fichtenberger et al. 2022), cut off."""
    c = np.ones(bands)
    for j in range(1, bands):
        c[j] = c[j - 1] * (2 * j - 1) / (2 * j)
    return c


def _divided(series: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The power series `series` / c, as many coefficients."""
    from scipy.signal import lfilter

    divided: Any = lfilter([1.0], c, series)
    return np.asarray(divided)


def _impulse(rounds: int) -> np.ndarray:
    first = np.zeros(rounds)
    first[0] = 1.0
    return first
