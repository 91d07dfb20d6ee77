"""A draw of words that every phone of a round makes alike: the frequent ones always, rarer ones by chance.

A word of rank r, counted from 1 behind the specials, is drawn with probability q = min(1, c / r): about as often
as it is typed, were it not for the cap (Zipf's law). Exactly `count` words are drawn, by systematic sampling
(Madow 1949, Annals of Mathematical Statistics 20): the words in a random order lie on a line, each as long as
its q, and a comb of step 1 with a random start picks those that it meets.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kbdfl.model.cifg import SPECIAL_TOKENS
from kbdfl.rng import stream


@dataclass(frozen=True, slots=True, eq=False)
class DrawnWords:
    """rows int64 (S,), ascending, specials included; log_weight float32 (S,), log(1/q), 0 for certain ones."""

    rows: np.ndarray
    log_weight: np.ndarray


def chances(words: int, count: int) -> np.ndarray:
    """q float64 (words,), in order of rank, that add up to `count` < words."""
    rank = np.arange(1, words + 1)
    # With the first k certain, the others share count - k.
    rest = np.cumsum(1 / rank[::-1])[::-1]
    c = (count - np.arange(count)) / rest[:count]
    certain = np.argmax(c < rank[:count] - 1e-9)
    return np.where(rank > certain, c[certain] / rank, 1.0)


@lru_cache(maxsize=8)
def draw_words(vocab: int, *, count: int, seed: int) -> DrawnWords:
    """The specials and `count` words of `vocab`, which stand in order of frequency; 0 = all of them."""
    words = vocab - SPECIAL_TOKENS
    if count == 0 or count >= words:
        return DrawnWords(_fixed(np.arange(vocab)), _fixed(np.zeros(vocab, np.float32)))
    q = chances(words, count)
    certain = int((q == 1).sum())
    random = stream(seed, "words")
    order = certain + np.argsort(random.random(words - certain), kind="stable")
    ends = np.cumsum(q[order])
    teeth = random.random() + np.arange(count - certain)
    # Their sum is count - certain but for rounding, so the last tooth might miss the last word.
    drawn = order[np.minimum(np.searchsorted(ends, teeth), len(order) - 1)]
    rows = SPECIAL_TOKENS + np.sort(np.concatenate([np.arange(-SPECIAL_TOKENS, certain), drawn]))
    log_weight = np.concatenate([np.zeros(SPECIAL_TOKENS), -np.log(q)])[rows]
    return DrawnWords(_fixed(rows), _fixed(log_weight.astype(np.float32)))


def _fixed(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
