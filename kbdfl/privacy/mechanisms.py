"""Noise on whole numbers: the discrete Gaussian, and Skellam's difference of two Poisson counts.

Canonne, Kamath and Steinke 2020, arXiv 2004.00010; Agarwal, Kairouz and Liu 2021, arXiv 2110.04995. Each call draws
from a `Source` of its own unless it is given one, so no two releases share noise.
"""

from functools import lru_cache
from math import floor, isfinite, sqrt
from typing import TYPE_CHECKING

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.privacy.sampling import BLOCKS, DIGITS, TAIL, Blocks, Weights, cut, draw
from kbdfl.privacy.source import Source

if TYPE_CHECKING:
    import mpmath

LARGEST = 2.0**50  # a standard deviation of Gaussian noise; sums over any cohort stay far inside int64
LARGEST_VARIANCE = 2.0**50  # of Skellam noise
_PRECISE = 2.0**-46  # what is left out of a series


def discrete_gaussian(deviation: float, count: int, source: Source | None = None) -> np.ndarray:
    """int64 (count,): P(y) proportional to exp(-y^2 / (2 deviation^2)).

    A vector of whole numbers of sensitivity D has D^2 / (2 deviation^2)-zCDP with it (theorem 4 of the paper), and the
    variance is at most deviation^2. Raises ConfigError unless 0 < deviation <= 2^50.
    """
    _check("deviation", deviation, LARGEST)
    return draw(_gaussian(float(deviation)), count, source or Source())


def skellam(variance: float, count: int, source: Source | None = None) -> np.ndarray:
    """int64 (count,): the difference of two Poisson numbers of mean variance / 2.

    Such noise of many devices adds up to the same with the sum of their variances. Raises ConfigError unless
    0 < variance <= 2^50.
    """
    _check("variance", variance, LARGEST_VARIANCE)
    blocks, source = _poisson(float(variance) / 2), source or Source()
    return draw(blocks, count, source) - draw(blocks, count, source)


def _check(name: str, value: float, most: float) -> None:
    if not (isfinite(value) and 0 < value <= most):
        raise ConfigError(f"the noise's {name} must be > 0 and at most {most:g}, got {value}")


@lru_cache(maxsize=16)
def _gaussian(deviation: float) -> Blocks:
    import mpmath

    twice = 2 * deviation * deviation

    def floats(value: np.ndarray) -> np.ndarray:
        value = value.astype(float)
        return value * value / -twice

    def exactly(value: int) -> "mpmath.mpf":
        return -mpmath.mpf(value * value) / (2 * mpmath.mpf(deviation) ** 2)

    return cut(Weights(0, deviation, None, floats, exactly))


@lru_cache(maxsize=16)
def _poisson(rate: float) -> Blocks:
    import mpmath

    peak = floor(rate)
    with mpmath.workdps(DIGITS):
        log_rate, log_peak = mpmath.log(mpmath.mpf(rate)), mpmath.loggamma(peak + 1)
    at_peak, series = 0.0, _series(rate)

    def floats(value: np.ndarray) -> np.ndarray:
        # Stirling's series, its terms gathered so that they do not cancel (Loader 2000, "Fast and accurate computation
        # of binomial probabilities"): with x = y / rate - 1, the logarithm of y's weight is, up to a constant,
        # -rate ((1 + x) ln(1 + x) - x) - ln(y) / 2 - 1 / (12 y) + 1 / (360 y^3).
        below = value < 0
        value = np.where(below, 1, value).astype(float)
        away = value - rate
        log = -away * np.polyval(series, away / rate)
        log -= np.log(value) / 2 + (1 - 1 / (30 * value * value)) / (12 * value) + at_peak
        return np.where(below, -np.inf, log)

    def exactly(value: int) -> "mpmath.mpf":
        if value < 0:
            return mpmath.ninf
        return (value - peak) * log_rate + log_peak - mpmath.loggamma(value + 1)

    if sqrt(rate) >= BLOCKS:
        at_peak = float(floats(np.array([peak]))[0])
    return cut(Weights(peak, sqrt(rate), 0, floats, exactly))


def _series(rate: float) -> np.ndarray:
    """((1 + x) ln(1 + x) - x) / x as a polynomial, for x within reach: x / 2 - x^2 / 6 + x^3 / 12 - ..."""
    reach, terms = 1.1 * sqrt(2 * TAIL / rate), 2
    while terms < 60 and rate * reach**terms / (terms * (terms - 1)) > _PRECISE:
        terms += 1
    powers = [(-1) ** k / (k * (k - 1)) for k in range(terms, 1, -1)]
    return np.array([*powers, 0.0])
