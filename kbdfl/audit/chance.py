"""What is better than chance: the area under a ROC curve, and bounds of a probability that was counted."""

from functools import lru_cache
from math import log, log1p

import numpy as np

from kbdfl.errors import ConfigError

_HALVINGS = 40


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The chance that a random positive scores above a random other one, ties by halves (Mann and Whitney 1947).

    `scores` float (n,), `positive` bool (n,). Raises ConfigError unless both kinds are there.
    """
    count = int(positive.sum())
    if not 0 < count < len(scores):
        raise ConfigError(f"an AUC needs positives and others, got {count} of {len(scores)}")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2  # of equal scores the mean rank
    above = rank[place][positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(scores) - count)))


def within_words(scores: np.ndarray, typed: np.ndarray) -> tuple[float, int]:
    """(AUC, pairs) of telling who typed a word: among the phones of each word, and then over words by their pairs.

    `scores` float (n, W), `typed` bool (n, W) of n phones and W words. That a word is a common one tells nothing here.
    Raises ConfigError when every word was typed by all phones or by none.
    """
    total = pairs = 0.0
    for column, truth in zip(scores.T, typed.T, strict=True):
        count = int(truth.sum())
        if 0 < count < len(truth):
            weight = count * (len(truth) - count)
            total += weight * auc(column, truth)
            pairs += weight
    if not pairs:
        raise ConfigError("attribution needs a word that some phones typed and others did not")
    return total / pairs, int(pairs)


def share_bounds(hits: int, trials: int, *, confidence: float) -> tuple[float, float]:
    """Lower and upper bound of a probability, each right with at least `confidence` (Clopper and Pearson 1934)."""
    if not (0 <= hits <= trials and trials > 0):
        raise ConfigError(f"hits must lie in [0, {trials}], got {hits}")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence must lie in [0.5, 1), got {confidence}")
    low = _lower(hits, trials, 1 - confidence)
    return low, 1 - _lower(trials - hits, trials, 1 - confidence)


def _lower(hits: int, trials: int, error: float) -> float:
    """The p at which P(Binomial(trials, p) >= hits) is `error`."""
    if hits == 0:
        return 0.0
    k = np.arange(hits, trials + 1)
    logs = _log_factorials(trials)
    choose = logs[trials] - logs[k] - logs[trials - k]
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        p = (low + high) / 2
        tail = np.exp(choose + k * log(p) + (trials - k) * log1p(-p)).sum() if p < 1 else 1.0
        low, high = (low, p) if tail > error else (p, high)
    return low


@lru_cache(maxsize=8)
def _log_factorials(most: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
