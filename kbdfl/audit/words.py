"""Which words a phone typed, read from its update: what anyone can do who sees a frame that is not masked.

In a next-word model with a softmax the output bias of word w moves by

    delta bias_w = learning_rate * sum_t (1[y_t = w] - p_t(w))

and its embedding row, tied to the output, by the same weights times the state r_t, and besides where w was an input. So
a word that was typed moves its bias up, or, if it is so frequent that more of it was expected than came, moves its row
further than its bias accounts for (Suliman and Leith 2022, arXiv 2210.16947). A word that was not typed moves both down
a little, its row by the states' length for each unit of its bias, or neither at all in a sampled softmax.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from kbdfl.model import CifgConfig
from kbdfl.model.cifg import SPECIAL_TOKENS
from kbdfl.text import EOS, PAD

EXCESS = 1.6  # times as far as an untyped word's row would have moved
CERTAIN = 4.0  # with EXCESS: a bias that rose by four standard deviations of the noise was typed
BLOCK = 256  # values that share a scale in the codecs that round
NEVER_MOVED = -1e9  # the evidence for a word whose row stayed where it was


@dataclass(frozen=True, slots=True)
class Recovery:
    """How well sets of words were read: of those read the share typed, and of those typed the share read."""

    precision: float
    recall: float
    f1: float

    @classmethod
    def of(cls, read: Sequence[Collection[int]], typed: Sequence[Collection[int]]) -> "Recovery":
        """Over several phones together: every word of every phone counts alike. Nothing read has precision 0."""
        hits = sum(len(set(ours) & set(theirs)) for ours, theirs in zip(read, typed, strict=True))
        all_read, all_typed = sum(map(len, read)), sum(map(len, typed))
        precision = hits / all_read if all_read else 0.0
        recall = hits / all_typed if all_typed else 0.0
        both = precision + recall
        return cls(precision, recall, 2 * precision * recall / both if both else 0.0)


def evidence(delta: np.ndarray, config: CifgConfig, *, sparse: bool = False) -> np.ndarray:
    """How much further each word moved than an untyped one would have, float64 (V,), as the logarithm of a ratio.

    `delta` float32 (P,) is a decoded update of a model of this shape. What its codec adds is seen in it: noise that is
    everywhere in the rows of <pad> and <eos>, which nobody can type, and the step of a rounding in the smallest values;
    in a `sparse` one, of the largest values alone, those say nothing. Specials have NEVER_MOVED.
    """
    views = config.spec.views(delta)
    rows, bias = views["emb"].astype(np.float64), views["bias"].astype(np.float64)
    idle = np.concatenate([rows[[PAD, EOS]].ravel(), bias[[PAD, EOS]]])
    noise = float(np.mean(idle**2))  # variance of a value
    step = np.zeros(len(rows)) if sparse else _smallest(rows)
    rounding = step**2 / 4  # most that rounding to multiples of a step adds to the variance
    length, up = (rows**2).sum(1), np.maximum(bias, 0) ** 2
    down = np.maximum(-bias, 0)
    fell = down > 3 * np.sqrt(noise)
    fell[:SPECIAL_TOKENS] = False
    ratio = np.median(length[fell] / down[fell] ** 2) if fell.any() else 0.0
    # A bias below the smallest may have been rounded to 0.
    least = 0.0 if sparse else np.repeat(_smallest(_blocks(bias)), BLOCK)[: len(bias)]
    expected = config.embed * (noise + rounding) + ratio * (down + least) ** 2
    found = np.maximum(_log_ratio(length, expected), _log_ratio(up, np.full(len(up), CERTAIN * noise)))
    found[:SPECIAL_TOKENS] = NEVER_MOVED
    return found


def _blocks(values: np.ndarray) -> np.ndarray:
    """float64 (n,) as rows of BLOCK, the last one filled with zeros."""
    return np.pad(values, (0, -len(values) % BLOCK)).reshape(-1, BLOCK)


def _smallest(rows: np.ndarray) -> np.ndarray:
    """The smallest magnitude of each row (n, k) that is not zero, float64 (n,); 0 where all are."""
    least = np.where(rows != 0, np.abs(rows), np.inf).min(1)
    return np.where(np.isfinite(least), least, 0.0)


def _log_ratio(moved: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """log(moved / expected), elementwise; NEVER_MOVED where nothing moved, finite where nothing was expected."""
    tiny = np.finfo(np.float64).tiny
    ratio = np.log(np.maximum(moved, tiny)) - np.log(np.maximum(expected, tiny))
    return np.where(moved > 0, ratio, NEVER_MOVED)


def read_words(
    delta: np.ndarray, config: CifgConfig, *, excess: float = EXCESS, sparse: bool = False
) -> frozenset[int]:
    """The ids of the words that moved `excess` times as far as untyped ones would have; arguments as `evidence`."""
    found = evidence(delta, config, sparse=sparse)
    return frozenset(np.flatnonzero(found > 2 * np.log(excess)).tolist())
