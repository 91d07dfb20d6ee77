"""How many bits a weight gets in an exported model: float32, or whole steps of a float16 scale.

int8 has a scale a row or a column, int4 a scale a block of 32 weights along the inner axis of the product.
"""

import numpy as np

from kbdfl.errors import ModelError

PRECISIONS = ("float32", "int8", "int4")
BLOCK = 32  # weights that share a scale at int4: the fewest for which the widest kernels were written
_ZERO = 8  # the nibble that stands for zero; nibbles 0..15 are -8..7 steps
# A block's largest weight may be 6 to 10 steps away from zero where nibbles reach 8: rounding all weights more
# finely can be worth clipping that one. More of them find nothing better.
_LEVELS = np.linspace(-10, -6, 33, dtype=np.float32)


def half(name: str, values: np.ndarray) -> np.ndarray:
    """`values` as float16. Raises ModelError, with the tensor's `name`, when one is too large."""
    with np.errstate(over="ignore"):  # reported below
        stored = values.astype(np.float16)
    if not np.isfinite(stored).all():
        largest = float(np.abs(values).max())
        raise ModelError(f"{name} must be below 65504 to be kept in float16, got {largest:.3g}")
    return stored


def quantise_int8(name: str, weights: np.ndarray, *, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 with one float16 scale a row (axis 1) or a column (axis 0): weights ~ q * scale.

    weights float32 (R,C), finite. Returns q int8 (R,C) in -127..127 and scales float16, (R,) or (C,). A scale
    is rounded up to float16 and weights are divided by what it holds: none is clipped, and none errs by more
    than half its scale. Raises ModelError, with the tensor's `name`, when float16 cannot hold a scale.
    """
    exact = np.abs(weights).max(axis=axis, keepdims=True) / 127
    smallest = np.finfo(np.float16).smallest_subnormal
    nearest = half(f"a scale of {name}", np.maximum(exact, smallest))
    up = np.nextafter(nearest, np.float16(np.inf))
    scales = half(f"a scale of {name}", np.where(nearest < exact, up, nearest))
    return np.rint(weights / scales.astype(np.float32)).astype(np.int8), scales.reshape(-1)


def quantise_int4(name: str, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int4 with one float16 scale a block: weights ~ (nibble - 8) * scale.

    weights float32 (N,K), finite; rows are filled up with zeros to n = ceil(K / 32) blocks. Returns packed
    uint8 (N,n,16), the even places of a block in the low nibbles, and scales float16 (N,n). Of 33 scales for
    each block, the one with the least squared error is taken. A scale has the opposite sign of its block's
    largest weight, so that this one lies on the side that reaches 8 steps. Raises ModelError, with the
    tensor's `name`, when float16 cannot hold a scale.
    """
    rows, width = weights.shape
    blocks = np.pad(weights, ((0, 0), (0, -width % BLOCK))).reshape(rows, -1, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2, keepdims=True), axis=2)
    best_error = np.full(largest.shape, np.inf, np.float32)
    best_scale = np.zeros(largest.shape, np.float16)
    for level in _LEVELS:
        scale = half(f"a scale of {name}", largest / level)
        error = np.square(_steps(blocks, scale) * scale.astype(np.float32) - blocks)
        error = error.sum(axis=2, keepdims=True)
        better = error < best_error
        best_error, best_scale = np.where(better, error, best_error), np.where(better, scale, best_scale)
    nibbles = (_steps(blocks, best_scale) + _ZERO).astype(np.uint8)
    return nibbles[:, :, ::2] | nibbles[:, :, 1::2] << 4, best_scale[:, :, 0]


def _steps(blocks: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The nearest whole numbers of steps in -8..7, float32; 0 where the scale is 0."""
    divisor = np.where(scale == 0, np.float32(np.inf), scale.astype(np.float32))
    return np.clip(np.rint(blocks / divisor), -_ZERO, _ZERO - 1)
