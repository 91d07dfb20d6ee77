"""The numpy twins of quantize.pyx and accumulate.pyx, the oracle of their tests.

Same bytes everywhere but in `l2_norm`, whose order of summation is numpy's (relative tolerance 1e-12).
"""

import numpy as np

ONE_STEP = np.float32(1 << 24)
LAST_STEP = 127 << 24
LARGEST = np.float32(2.0**127)
SMALLEST_BLOCK = np.float32(2.0**-96)


def block_keys(seed: int, blocks: int) -> np.ndarray:
    """uint64 (blocks,): SplitMix64 (Steele, Lea and Flood 2014) from `seed`."""
    z = np.uint64(seed) + np.arange(1, blocks + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def random_bits(seed: int, size: int, block: int) -> np.ndarray:
    """uint32 (size,): a keyed lowbias32 hash of each element's place in its block."""
    place = np.arange(size)
    keys = block_keys(seed, -(-size // block))[place // block]
    h = (place % block).astype(np.uint32) * np.uint32(0x9E3779B9) + keys.astype(np.uint32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h += (keys >> np.uint64(32)).astype(np.uint32)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    return h ^ (h >> np.uint32(16))


def quantize_int8(x: np.ndarray, *, block: int = 256, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(q (P,) int8, scales (ceil(P / block),) float32) of x (P,) float32; ValueError if not finite."""
    if not np.all(np.abs(x) <= LARGEST):
        raise ValueError("update must be finite and at most 2^127, got a value that is not")
    starts = np.arange(0, x.size, block)
    largest = np.maximum.reduceat(np.abs(x), starts) if x.size else np.empty(0, np.float32)
    vanishing = largest < SMALLEST_BLOCK
    scales = np.where(vanishing, np.float32(0), largest / np.float32(127))
    factors = np.where(vanishing, np.float32(0), ONE_STEP / np.where(vanishing, np.float32(1), scales))
    fixed = (x * factors[np.arange(x.size) // block]).astype(np.int32)
    fixed = np.clip(fixed, -LAST_STEP, LAST_STEP)
    up = (random_bits(seed, x.size, block) >> np.uint32(8)).astype(np.int32)
    return ((fixed + up) >> 24).astype(np.int8), scales


def dequantize_int8(q: np.ndarray, scales: np.ndarray, *, block: int = 256) -> np.ndarray:
    """q * scale (P,) float32."""
    return q.astype(np.float32) * np.repeat(scales, block)[: q.size]


def accumulate_int8(
    acc: np.ndarray, q: np.ndarray, scales: np.ndarray, weight: float, *, block: int = 256
) -> None:
    """acc (P,) += float32(weight * scale) * q."""
    steps = (weight * scales.astype(np.float64)).astype(np.float32)
    acc += q.astype(np.float32) * np.repeat(steps, block)[: q.size]


def accumulate_float32(acc: np.ndarray, x: np.ndarray, weight: float) -> None:
    """acc (P,) += float32(weight) * x."""
    acc += np.float32(weight) * x


def scale_inplace(x: np.ndarray, factor: float) -> None:
    """x (P,) *= float32(factor)."""
    x *= np.float32(factor)


def l2_norm(x: np.ndarray) -> float:
    """The Euclidean norm of x (P,), summed in float64."""
    return float(np.sqrt(np.sum(np.square(x, dtype=np.float64))))
