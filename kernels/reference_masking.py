"""The numpy twins of masking.pyx, the oracle of its tests: same arguments, same bytes."""

import numpy as np

from kbdfl.kernels.reference_quantize import random_bits

DRAWS = 1024


def encode_fixed(x: np.ndarray, *, limit: float, levels: int, bits: int, seed: int) -> np.ndarray:
    """(P,) uint32 < 2^bits: x clipped, times levels / limit, rounded at random, modulo 2^bits."""
    if not np.all(np.isfinite(x)):
        raise ValueError("values must be finite, got a NaN or an infinity")
    y = np.clip(x.astype(np.float64) * (levels / limit), -levels, levels)
    below = np.floor(y)
    up = (random_bits(seed, x.size, DRAWS) >> np.uint32(1)) < (y - below) * 2.0**31
    return ((below.astype(np.int64) + up) & (2**bits - 1)).astype(np.uint32)


def decode_fixed(words: np.ndarray, *, limit: float, levels: int, bits: int) -> np.ndarray:
    """(P,) float32: words modulo 2^bits, centred, times limit / levels."""
    half = 1 << (bits - 1)
    centred = ((words.astype(np.int64) + half) & (2**bits - 1)) - half
    return (centred * (limit / levels)).astype(np.float32)


def mask_add(words: np.ndarray, mask: np.ndarray, *, bits: int) -> None:
    """words (P,) uint32 = (words + mask) modulo 2^bits."""
    words += mask
    words &= np.uint32(2**bits - 1)


def mask_subtract(words: np.ndarray, mask: np.ndarray, *, bits: int) -> None:
    """words (P,) uint32 = (words - mask) modulo 2^bits."""
    words -= mask
    words &= np.uint32(2**bits - 1)
