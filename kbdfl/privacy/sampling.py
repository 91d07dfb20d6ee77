"""Draws of whole numbers, exact to within a stated distance that no accounting notices.

Noise from float arithmetic betrays what it was added to in its last bits (Mironov 2012). Here a distribution on the
whole numbers that falls on both sides of its peak is cut into blocks of 2^k values. A draw takes a block by the weight
of its largest value, a place in it uniformly, and keeps it with the probability `weight / largest weight`:

    P(y) = P(block) 2^-k weight(y) / largest weight of the block, up to a constant

Both decisions compare a uniform number of 192 bits with a real number. Floats decide where they surely can; where the
first 64 bits are too near to tell, which happens once in some 10^10 draws, `mpmath` does, with DIGITS digits. What is
left of an error is the 192nd bit and the tail that is cut: `DISTANCE` bounds the total variation of one draw.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kbdfl.privacy.source import Source

if TYPE_CHECKING:  # it takes a tenth of a second to load, and only who makes noise needs it
    import mpmath

DIGITS = 80
BITS, MORE = 192, 128  # of a uniform number, and of them beyond the first word
TAIL = 145.0  # nats below the peak's weight, where blocks end: less than 2^-190 of any distribution here lies beyond
BLOCKS = 64  # to a standard deviation, at least
DOUBT = 2.0**-36  # of a float's acceptance probability; its error is below 2^-40
DISTANCE = (
    2.0**-175
)  # total variation of one draw: fewer than 2^14 blocks, each off by 2^-192 at most, and as much again
_BATCH = 1 << 16  # draws at a time, that fit in a cache


@dataclass(frozen=True, slots=True)
class Weights:
    """A distribution on the whole numbers whose weights do not rise away from `peak`; none is below `least`.

    `floats` is ln(weight(y) / weight(peak)) of int64 (n,), right to 2^-42 where it is above -TAIL; `exactly` is the
    same of one number, by mpmath.
    """

    peak: int
    deviation: float
    least: int | None
    floats: Callable[[np.ndarray], np.ndarray]
    exactly: "Callable[[int], mpmath.mpf]"


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A distribution, cut up.

    first   int64 (n,): the value of the largest weight in each block
    step    int64 (n,): where the others lie, up or down from it
    height  float64 (n,): ln of the first one's weight, as a part of the peak's
    bits    2^bits values a block
    ends    uint64 (n,): the first 64 bits of where each block's share ends in [0, 1)
    further the other 128 bits
    """

    weights: Weights
    first: np.ndarray
    step: np.ndarray
    height: np.ndarray
    bits: int
    ends: np.ndarray
    further: tuple[int, ...]


def cut(weights: Weights) -> Blocks:
    """The blocks of a distribution."""
    import mpmath

    bits = max(0, int(np.floor(np.log2(max(weights.deviation / BLOCKS, 1.0)))))
    with mpmath.workdps(DIGITS):
        upward = list(_side(weights, weights.peak, 1 << bits))
        blocks = upward + list(_side(weights, weights.peak - 1, -1 << bits))
        shares = [mpmath.exp(height) for _, height in blocks]
        total, ends, sofar = mpmath.fsum(shares), [], mpmath.mpf(0)
        for share in shares:
            sofar += share
            ends.append(min(int(mpmath.floor(sofar / total * 2**BITS)), 2**BITS - 1))
    ends[-1] = 2**BITS - 1
    first = np.array([first for first, _ in blocks], np.int64)
    return Blocks(
        weights,
        first,
        np.where(np.arange(len(blocks)) < len(upward), 1, -1),
        np.zeros(len(first)) if bits == 0 else weights.floats(first),
        bits,
        np.array([end >> MORE for end in ends], np.uint64),
        tuple(end % 2**MORE for end in ends),
    )


def _side(weights: Weights, first: int, step: int) -> "Iterator[tuple[int, mpmath.mpf]]":
    """The blocks on one side of the peak, from it away; the last one may reach below the least value."""
    while weights.least is None or first >= weights.least:
        height = weights.exactly(first)
        if height < -TAIL:
            return
        yield first, height
        first += step


def draw(blocks: Blocks, count: int, source: Source, *, doubt: float = DOUBT) -> np.ndarray:
    """int64 (count,), independent; `doubt` is wider in tests, so that the exact road is taken."""
    out = np.empty(count, np.int64)
    for begin in range(0, count, _BATCH):
        part, done = out[begin : begin + _BATCH], 0
        while done < len(part):
            kept = _some(blocks, len(part) - done, source, doubt)
            part[done : done + len(kept)] = kept
            done += len(kept)
    return out


def _some(blocks: Blocks, count: int, source: Source, doubt: float) -> np.ndarray:
    """Of `count` draws those that are kept."""
    chosen = _choose(blocks, source.words(count), source)
    first = blocks.first[chosen]
    if blocks.bits == 0:
        return first
    within = (source.words(count) >> np.uint64(64 - blocks.bits)).astype(np.int64)
    value, words = first + blocks.step[chosen] * within, source.words(count)
    margin = np.exp(blocks.weights.floats(value) - blocks.height[chosen]) - words * 2.0**-64
    keep = margin > 0
    for place in np.flatnonzero(np.abs(margin) <= doubt):
        keep[place] = _accept(blocks.weights, int(value[place]), int(first[place]), int(words[place]), source)
    return value[keep]


def _choose(blocks: Blocks, words: np.ndarray, source: Source) -> np.ndarray:
    """The block in whose share of [0, 1) each number lies that begins with `words`."""
    chosen = np.searchsorted(blocks.ends, words, side="right")
    before = np.searchsorted(blocks.ends, words, side="left")
    for place in np.flatnonzero(chosen != before):  # its first 64 bits are those of an end
        more, at = _more(source), int(before[place])
        while at < int(chosen[place]) and more >= blocks.further[at]:
            at += 1
        chosen[place] = at
    return np.minimum(chosen, len(blocks.ends) - 1)


def _accept(weights: Weights, value: int, first: int, word: int, source: Source) -> bool:
    """Whether the number that begins with `word` is below the value's chance."""
    import mpmath

    number = (word << MORE) + _more(source)
    with mpmath.workdps(DIGITS):
        chance: Any = mpmath.exp(weights.exactly(value) - weights.exactly(first))
        below: Any = mpmath.floor(chance * 2**BITS)
        return bool(number < below)


def _more(source: Source) -> int:
    """The rest of a number of which 64 bits are drawn."""
    first, second = source.words(2)
    return (int(first) << 64) + int(second)
