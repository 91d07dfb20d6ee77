"""The numpy twins of quantize.pyx, the oracle of its tests: same arguments, same bytes."""

import numpy as np

ONE_STEP = np.float32(1 << 24)
LARGEST = np.float32(2.0**127)
SIGN_LANES = 16
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
    return keyed_bits(block_keys(seed, -(-size // block))[place // block], place % block)


def keyed_bits(keys: np.ndarray | np.uint64, places: np.ndarray) -> np.ndarray:
    """uint32: the hash of `places` under `keys` uint64, one each or one for all."""
    with np.errstate(over="ignore"):
        h = places.astype(np.uint32) * np.uint32(0x9E3779B9) + keys.astype(np.uint32)
        h ^= h >> np.uint32(16)
        h *= np.uint32(0x7FEB352D)
        h += (keys >> np.uint64(32)).astype(np.uint32)
        h ^= h >> np.uint32(15)
        h *= np.uint32(0x846CA68B)
    return h ^ (h >> np.uint32(16))


def quantize_int8(x: np.ndarray, *, block: int = 256, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(q (P,) int8, scales (ceil(P / block),) float32) of x (P,) float32; ValueError if not finite."""
    return _round_levels(x, 127, block=block, seed=seed)


def quantize_4bit(x: np.ndarray, *, block: int = 256, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(packed (ceil(P / 2),) uint8, scales (ceil(P / block),) float32)."""
    levels, scales = _round_levels(x, 7, block=block, seed=seed)
    nibbles = np.append(levels, np.zeros(x.size % 2, np.int8)).view(np.uint8) & np.uint8(15)
    return nibbles[::2] | nibbles[1::2] << np.uint8(4), scales


def quantize_2bit(x: np.ndarray, *, block: int = 256, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(packed (ceil(P / 4),) uint8, scales (ceil(P / block),) float32)."""
    levels, scales = _round_levels(x, 1, block=block, seed=seed)
    pairs = np.append(levels, np.zeros(-x.size % 4, np.int8)).view(np.uint8) & np.uint8(3)
    return np.bitwise_or.reduce([pairs[place::4] << np.uint8(2 * place) for place in range(4)]), scales


def quantize_sign(x: np.ndarray, *, block: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """(packed (ceil(P / 8),) uint8, scales (ceil(P / block),) float32)."""
    scales, _ = _scales(x, 1, ONE_STEP, block=block)
    minus = (x < 0) & (scales[np.arange(x.size) // block] > 0)
    for b in np.flatnonzero(scales):
        part = np.abs(x[b * block : (b + 1) * block]).astype(np.float64)
        lanes = np.append(part, np.zeros(-part.size % SIGN_LANES)).reshape(-1, SIGN_LANES)
        squares, absolutes = (_in_order(rows) for rows in (lanes * lanes, lanes))
        scales[b] = np.float32(squares / absolutes)
    return np.packbits(minus, bitorder="little"), scales


def _in_order(rows: np.ndarray) -> np.float64:
    """The sum of `rows` (R, lanes) as the kernel adds: down each lane, then over the lanes."""
    return np.cumsum(np.cumsum(rows, axis=0)[-1])[-1]


def quantize_1bit(x: np.ndarray, *, block: int = 256, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(packed (ceil(P / 8),) uint8, scales (ceil(P / block),) float32)."""
    scales, factors = _scales(x, 1, ONE_STEP / np.float32(2), block=block)
    of_place = np.arange(x.size) // block
    thresholds = (x * factors[of_place]).astype(np.int32) + np.int32(1 << 23)
    minus = (random_bits(seed, x.size, block) >> np.uint32(8) >= thresholds) & (scales[of_place] > 0)
    return np.packbits(minus, bitorder="little"), scales


def dequantize_int8(q: np.ndarray, scales: np.ndarray, *, block: int = 256) -> np.ndarray:
    """q * scale (P,) float32."""
    return q.astype(np.float32) * np.repeat(scales, block)[: q.size]


def dequantize_4bit(packed: np.ndarray, scales: np.ndarray, *, size: int, block: int = 256) -> np.ndarray:
    """level * scale (size,) float32."""
    return dequantize_int8(unpack_4bit(packed, size), scales, block=block)


def dequantize_2bit(packed: np.ndarray, scales: np.ndarray, *, size: int, block: int = 256) -> np.ndarray:
    """level * scale (size,) float32."""
    return dequantize_int8(unpack_2bit(packed, size), scales, block=block)


def dequantize_1bit(packed: np.ndarray, scales: np.ndarray, *, size: int, block: int = 256) -> np.ndarray:
    """±scale (size,) float32."""
    return dequantize_int8(unpack_1bit(packed, size), scales, block=block)


def unpack_4bit(packed: np.ndarray, size: int) -> np.ndarray:
    """The int8 levels (size,), the low half of a byte first."""
    nibbles = np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=1).ravel()[:size].view(np.int8)
    return (nibbles ^ np.int8(8)) - np.int8(8)


def unpack_2bit(packed: np.ndarray, size: int) -> np.ndarray:
    """levels (size,) int8 of what `quantize_2bit` packed."""
    pairs = np.stack([packed >> np.uint8(2 * place) & np.uint8(3) for place in range(4)], axis=1)
    return ((pairs.reshape(-1)[:size] ^ np.uint8(2)).astype(np.int8) - np.int8(2)).astype(np.int8)


def unpack_1bit(packed: np.ndarray, size: int) -> np.ndarray:
    """1 or -1 as int8 (size,), the lowest bit of a byte first, a set bit for minus."""
    return np.int8(1) - np.int8(2) * np.unpackbits(packed, count=size, bitorder="little").view(np.int8)


def _scales(x: np.ndarray, last: int, step: np.float32, *, block: int) -> tuple[np.ndarray, np.ndarray]:
    """A block's scale, at which max |x| is `last` steps, and step / scale; zeros where the block vanishes."""
    if not np.all(np.abs(x) <= LARGEST):
        raise ValueError("update must be finite and at most 2^127, got a value that is not")
    starts = np.arange(0, x.size, block)
    largest = np.maximum.reduceat(np.abs(x), starts) if x.size else np.empty(0, np.float32)
    vanishing = largest < SMALLEST_BLOCK
    scales = np.where(vanishing, np.float32(0), largest / np.float32(last))
    return scales, np.where(vanishing, np.float32(0), step / np.where(vanishing, np.float32(1), scales))


def _round_levels(x: np.ndarray, last: int, *, block: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    scales, factors = _scales(x, last, ONE_STEP, block=block)
    fixed = (x * factors[np.arange(x.size) // block]).astype(np.int32)
    fixed = np.clip(fixed, -(last << 24), last << 24)
    up = (random_bits(seed, x.size, block) >> np.uint32(8)).astype(np.int32)
    return ((fixed + up) >> 24).astype(np.int8), scales
