"""The numpy twins of rotate.pyx, the oracle of its tests: same arguments, same bytes."""

from collections.abc import Iterator

import numpy as np

from kbdfl.kernels.reference_quantize import block_keys, keyed_bits


def rotate(x: np.ndarray, *, seed: int, block: int = 4096) -> np.ndarray:
    """`x` (P,) float32 with random signs, times the Hadamard matrix over sqrt(n), block by block."""
    out = np.array(x, np.float32)
    for part, signs in _blocks(out, seed, block):
        part[:] = hadamard(part * signs)
    return out


def unrotate(y: np.ndarray, *, seed: int, block: int = 4096) -> np.ndarray:
    """The inverse, which is the transpose."""
    out = np.array(y, np.float32)
    for part, signs in _blocks(out, seed, block):
        part[:] = hadamard(part) * signs
    return out


def hadamard(x: np.ndarray) -> np.ndarray:
    """`x` (n,) float32, n a power of two, times the Hadamard matrix / sqrt(n), by strides of 1, 2, 4, ..."""
    stride = 1
    while stride < x.size:
        low, high = x.reshape(-1, 2, stride).transpose(1, 0, 2)
        x = np.stack([low + high, low - high], axis=1).reshape(-1)
        stride *= 2
    return x * np.float32(1 / np.sqrt(np.float64(x.size)))


def _blocks(out: np.ndarray, seed: int, block: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each block, a view, with its signs float32."""
    keys = block_keys(seed, out.size // block + 32)  # what is left is at most so many powers of two
    start = 0
    for key in keys:
        while block > out.size - start:
            block //= 2
        if block == 0:
            return
        bits = keyed_bits(key, np.arange(-(-block // 32)))
        minus = np.unpackbits(bits.astype("<u4").view(np.uint8), bitorder="little")[:block]
        yield out[start : start + block], 1 - 2 * minus.astype(np.float32)
        start += block
