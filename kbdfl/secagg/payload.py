"""What is summed: whole numbers in [-bound, bound] as words modulo 2^b, b bits each on the wire.

With n devices invited the sum lies in [-n bound, n bound], and b is the fewest bits for which n bound < 2^(b - 1): it
cannot overflow, whoever drops out and whatever the values (Bonawitz et al. 2017, section 4). All devices weigh
alike, for a device that states its own weight could buy influence, and nobody sees whether it is true. Noise that a
device adds to its values for differential privacy must be cut to ±noise_bound, which the bound includes.
"""

import numpy as np

from kbdfl.errors import ConfigError, WireError
from kbdfl.transform import Update, split_sections

MOST_BITS = 32  # of a word
GROUP = 8  # words that fill whole bytes together


def bits_for(devices: int, bound: int) -> int:
    """b, the fewest bits in which the sum of `devices` numbers in [-bound, bound] is exact. ConfigError above 32."""
    if devices < 1 or bound < 1:
        raise ConfigError(f"devices and bound must be >= 1, got {devices} and {bound}")
    bits = (devices * bound).bit_length() + 1
    if bits > MOST_BITS:
        raise ConfigError(
            f"the sum of {devices} numbers up to {bound} takes {bits} bits, at most {MOST_BITS} can be had"
        )
    return bits


def to_words(levels: np.ndarray, *, bound: int, bits: int) -> np.ndarray:
    """Integers (m,) as words modulo 2^bits, (m,) uint32. Raises ConfigError for one beyond ±bound, or not integers."""
    if levels.ndim != 1 or levels.dtype.kind not in "iu":
        raise ConfigError(f"levels must be integers on one axis, got {levels.dtype} on {levels.ndim}")
    if levels.size and not (-bound <= int(levels.min()) and int(levels.max()) <= bound):
        raise ConfigError(
            f"levels must be in [-{bound}, {bound}], got {int(levels.min())} to {int(levels.max())}"
        )
    return levels.astype(np.int64).astype(np.uint32) & _ones(bits)


def to_sum(words: np.ndarray, *, bits: int) -> np.ndarray:
    """Words modulo 2^bits (m,) uint32, read as numbers in [-2^(bits - 1), 2^(bits - 1)): (m,) int64."""
    shift = np.uint32(MOST_BITS - bits)
    return ((words << shift).view(np.int32) >> shift.astype(np.int32)).astype(np.int64)


def summable_levels(update: Update) -> np.ndarray:
    """The levels in [-127, 127], int8 (k,), of an update whose chain ends in the codec `fixed`.

    Raises WireError for another, as one with places or scales of its own, which would not add up.
    """
    (levels,), rest = split_sections(update, {"levels": np.uint8})
    if rest:
        raise WireError(f"an update to be summed must hold levels alone, got {sorted(rest)}")
    return levels.view(np.int8)


def packed_bytes(size: int, bits: int) -> int:
    """How long `size` words of `bits` bits are."""
    return (size * bits + 7) // 8


def pack(words: np.ndarray, bits: int) -> bytes:
    """Words (m,) uint32 below 2^bits, `bits` bits each, lowest bit first; what is left of the last byte is zero."""
    rows = -(-len(words) // GROUP)
    columns = np.zeros((GROUP, rows), np.uint64)  # eight words a column: each step below works on long rows
    padded = np.zeros(rows * GROUP, np.uint64)
    padded[: len(words)] = words
    columns[:] = padded.reshape(rows, GROUP).T
    packed = np.empty((bits, rows), np.uint8)
    for byte in range(bits):
        first, last = 8 * byte // bits, (8 * byte + 7) // bits
        column = columns[first] >> np.uint64(8 * byte - first * bits)
        for word in range(first + 1, last + 1):
            column = column | columns[word] << np.uint64(word * bits - 8 * byte)
        packed[byte] = column.astype(np.uint8)
    return packed.T.tobytes()[: packed_bytes(len(words), bits)]


def unpack(data: bytes, size: int, bits: int) -> np.ndarray:
    """The `size` words of `pack`, (size,) uint32. Raises WireError for another length, or if a bit left over is set."""
    if len(data) != packed_bytes(size, bits):
        raise WireError(f"{size} words must be {packed_bytes(size, bits)} bytes, got {len(data)}")
    if (left := -size * bits % 8) and data[-1] >> (8 - left):
        raise WireError("the bits after the last word must be zero")
    rows = -(-size // GROUP)
    padded = np.zeros(rows * bits, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    packed = padded.reshape(rows, bits).T.astype(np.uint64)
    words = np.empty((rows, GROUP), np.uint32)
    for word in range(GROUP):
        first, last = word * bits // 8, (word * bits + bits - 1) // 8
        column = packed[first] >> np.uint64(word * bits - 8 * first)
        for byte in range(first + 1, last + 1):
            column = column | packed[byte] << np.uint64(8 * byte - word * bits)
        words[:, word] = column.astype(np.uint32) & _ones(bits)
    return words.ravel()[:size]


def _ones(bits: int) -> np.uint32:
    return np.uint32(0xFFFFFFFF >> (MOST_BITS - bits))
