"""Whole numbers in place of floats: an update on a grid whose unit is a part of the clip norm.

In central mode a clip norm is LEVELS steps, and values are rounded towards zero, which shortens a vector, so that its
bound holds to the last bit; a step is a millionth of the clip norm, and the bias that this leaves is under a step a
value. Under secure aggregation steps are few, and values are rounded at random (Kairouz, Liu and Steinke 2021, arXiv
2102.06387, algorithm 1): drawn again until the vector is no longer than the bound that the accounting uses.
"""

from math import isfinite, log, sqrt

import numpy as np

from kbdfl.errors import WireError
from kbdfl.kernels.accumulate import l2_norm
from kbdfl.privacy.source import Source

LEVELS = 1 << 20
BETA = 0.5  # a random rounding is longer than its bound with a chance of exp(-1/2) at most
_SHRINK = 1 - 2.0**-20
_BLOCK = 1 << 14  # values at a time, that fit in a cache


def clip_to_grid(delta: np.ndarray, clip_norm: float) -> tuple[np.ndarray, bool]:
    """`delta` float32 (P,) in steps of clip_norm / LEVELS, int64 (P,), no longer than LEVELS; and if it was within.

    Raises WireError unless all of it is finite.
    """
    norm = l2_norm(delta)
    if not isfinite(norm):
        raise WireError("an update must be finite, got a NaN or an infinity")
    within = norm <= clip_norm
    factor, steps = LEVELS / (clip_norm if within else norm), np.empty(len(delta), np.int64)
    while True:
        squared = 0.0  # squares of whole numbers that add up to less than 2^53 do so exactly, in any order
        for begin in range(0, len(delta), _BLOCK):
            values = delta[begin : begin + _BLOCK].astype(float)
            values *= factor
            np.trunc(values, out=values)
            squared += float(np.einsum("i,i", values, values))  # threads of a BLAS would wait for each other
            steps[begin : begin + _BLOCK] = values
        if squared <= float(LEVELS) ** 2:
            return steps, within
        factor *= _SHRINK


def rounded_bound(levels: float, size: int) -> float:
    """The longest that a vector of length `levels` may be once its `size` values are rounded at random (theorem 1)."""
    first = levels + sqrt(size)
    second = sqrt(levels**2 + size / 4 + sqrt(2 * log(1 / BETA)) * (levels + sqrt(size) / 2))
    return min(first, second)


def round_at_random(values: np.ndarray, *, levels: float, source: Source) -> np.ndarray:
    """int64 (P,): float values (P,), of a length of at most `levels`, each rounded up or down, right on average.

    The result is no longer than `rounded_bound`, and its mean is a little off for being drawn again until it is.
    """
    values = np.asarray(values, float)
    bound, floor = rounded_bound(levels, len(values)), np.floor(values)
    part = values - floor
    while True:
        steps = floor + ((source.words(len(values)) >> np.uint64(11)) * 2.0**-53 < part)
        # Without BLAS, whose threads wait for a busy machine.
        if float(np.einsum("i,i", steps, steps)) <= bound**2:
            return steps.astype(np.int64)
