"""The model as phones receive it: every value a whole number of steps, the step a power of two for each block.

Server and phones both train from what is on the grid, so a delta is a delta of the very vector that the server has
in mind. What the server keeps beside it stays float32: a change too small for a step is not lost, it shows once it
has added up. Steps follow a tensor's size and, being powers of two, hardly ever change; so the difference between two
versions is small whole numbers, most of them zero.
"""

from dataclasses import dataclass

import numpy as np

from kbdfl.errors import WireError
from kbdfl.params import ParamSpec

BLOCK = 256
VECTOR_STEPS = 8
_MOST = 127
_SMALLEST, _LARGEST = -96, 64  # exponents: what a float32 can hold with room to spare
_WIDTHS = (2, 4, 8)  # bits a packed level may take


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """levels int8 (P,) in [-127, 127] and exponents int8 (ceil(P / 256),): a value is level * 2^exponent."""

    levels: np.ndarray
    exponents: np.ndarray

    @classmethod
    def of(cls, params: np.ndarray, spec: ParamSpec, *, steps: float) -> "Grid":
        """The points nearest to `params` float32 (P,), finite: `steps` to a tensor's root mean square.

        The step is the next smaller power of two, or as large as it takes for a block's largest value. A tensor has
        one step, though its rows differ in size: so the rows of frequent words, which are large, get most of the
        bits. Biases, few and felt at once, have 8 times as many steps.
        """
        starts = np.arange(0, len(params), BLOCK)
        exponents = np.full(len(starts), _LARGEST, np.int64)
        at = 0
        for view in spec.views(params).values():
            blocks = slice(at // BLOCK, -(-(at + view.size) // BLOCK))
            size = np.sqrt(np.mean(np.square(view, dtype=np.float64)))
            wanted = steps * (VECTOR_STEPS if view.ndim == 1 else 1)
            exponent = np.floor(np.log2(size / wanted)) if size else _LARGEST
            exponents[blocks] = np.minimum(
                exponents[blocks], exponent
            )  # a block of two tensors has the finer step
            at += view.size
        largest = np.maximum.reduceat(np.abs(params), starts).astype(np.float64)
        with np.errstate(divide="ignore"):
            needed = np.ceil(np.log2(largest / _MOST))
        exponents = np.clip(np.maximum(exponents, needed), _SMALLEST, _LARGEST).astype(np.int8)
        return cls(_nearest(params, exponents), exponents)

    @classmethod
    def zero(cls, size: int) -> "Grid":
        """What a phone without a model holds."""
        return cls(np.zeros(size, np.int8), np.zeros(-(-size // BLOCK), np.int8))

    @property
    def steps(self) -> np.ndarray:
        """Each value's step, float32 (P,)."""
        return np.repeat(np.ldexp(np.float32(1), self.exponents.astype(np.int32)), BLOCK)[: len(self.levels)]

    @property
    def values(self) -> np.ndarray:
        """float32 (P,), exactly."""
        return self.levels * self.steps

    def minus(self, held: "Grid") -> "Grid":
        """What turns `held` into this one: differences modulo 256."""
        return Grid(self.levels - held._moved(self.exponents), self.exponents - held.exponents)

    def plus(self, difference: "Grid") -> "Grid":
        """The inverse of `minus`. Raises WireError for what no server can have sent."""
        exponents = checked_exponents(self.exponents + difference.exponents)
        levels = self._moved(exponents) + difference.levels
        if len(levels) and levels.min() < -_MOST:
            raise WireError("levels must be in [-127, 127], got -128")
        return Grid(levels, exponents)

    def _moved(self, exponents: np.ndarray) -> np.ndarray:
        """The levels nearest to its values with these `exponents`; blocks that keep theirs keep their levels."""
        if not self.levels.any():
            return self.levels  # zeros are zeros at any step: what a phone without a model holds
        changed = np.flatnonzero(exponents != self.exponents)
        levels = self.levels if not len(changed) else self.levels.copy()
        for block in changed:
            at = slice(block * BLOCK, (block + 1) * BLOCK)
            one = Grid(self.levels[at], self.exponents[block : block + 1])
            levels[at] = _nearest(one.values, exponents[block : block + 1])
        return levels


def checked_exponents(exponents: np.ndarray) -> np.ndarray:
    """`exponents` int8, in range. Raises WireError."""
    if len(exponents) and not _SMALLEST <= exponents.min() <= exponents.max() <= _LARGEST:
        raise WireError(f"exponents must lie in [{_SMALLEST}, {_LARGEST}]")
    return exponents


def _nearest(values: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Whole steps, int8: half a step goes to the even one, what is beyond 127 to 127."""
    inverse = np.repeat(np.ldexp(np.float32(1), -exponents.astype(np.int32)), BLOCK)[: len(values)]
    return np.clip(np.rint(values * inverse), -_MOST, _MOST).astype(np.int8)


def pack_levels(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """`levels` int8 (P,) in as few bits as most of them need: (packed uint8, escapes int8, bits).

    A level that does not fit is written as the lowest number there is, and stands in full among the escapes.
    """
    escaped = {bits: _beyond(levels, (1 << (bits - 1)) - 1) for bits in (2, 4)}
    cost = {bits: bits * len(levels) + 8 * np.count_nonzero(beyond) for bits, beyond in escaped.items()}
    bits = min(cost, key=cost.__getitem__)
    if cost[bits] >= 8 * len(levels):
        return levels.view(np.uint8), np.empty(0, np.int8), 8
    lowest = -(1 << (bits - 1))
    small = np.where(escaped[bits], np.int8(lowest), levels).view(np.uint8) & np.uint8((1 << bits) - 1)
    per_byte = 8 // bits
    small = np.pad(small, (0, -len(small) % per_byte)).reshape(-1, per_byte)
    packed = small[:, 0].copy()
    for place in range(1, per_byte):
        packed |= small[:, place] << np.uint8(place * bits)
    return packed, levels[escaped[bits]], bits


def _beyond(levels: np.ndarray, most: int) -> np.ndarray:
    return (levels > most) | (levels < -most)


def unpack_levels(packed: np.ndarray, escapes: np.ndarray, *, bits: int, size: int) -> np.ndarray:
    """The inverse of `pack_levels`, int8 (size,). Raises WireError."""
    if bits not in _WIDTHS:
        raise WireError(f"bits must be one of {_WIDTHS}, got {bits}")
    if len(packed) != -(-size * bits // 8):
        raise WireError(f"{size} levels of {bits} bits need {-(-size * bits // 8)} bytes, got {len(packed)}")
    if bits == 8:
        if len(escapes):
            raise WireError("levels of 8 bits have no escapes")
        return packed.view(np.int8)
    per_byte, unused = 8 // bits, 8 - bits
    small = np.empty((len(packed), per_byte), np.uint8)
    for place in range(per_byte):
        small[:, place] = packed << np.uint8(unused - place * bits)
    # Shifted to the top and back, so that the sign comes along.
    levels = small.reshape(-1).view(np.int8) >> unused
    if levels[size:].any():
        raise WireError("what follows the last level in its byte must be zero")
    levels = levels[:size].copy()
    escaped = levels == -(1 << (bits - 1))
    if int(escaped.sum()) != len(escapes):
        raise WireError(f"{int(escaped.sum())} levels are escaped, got {len(escapes)}")
    levels[escaped] = escapes
    return levels
