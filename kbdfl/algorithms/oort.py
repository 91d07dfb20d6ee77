"""Oort: phones whose text teaches most and who are quick about it (Lai et al. 2020, arXiv 2010.06081).

The formulas of its section 4 and algorithm 1 as functions of arrays, one element a phone, and the rule made of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log

import numpy as np

from kbdfl.algorithms.roster import Roster
from kbdfl.errors import ConfigError

CLIP = 0.95  # a phone's utility counts as at most this quantile of all
CONFIDENCE = 0.95  # c of algorithm 1: phones this close to the last one that would have a place may have it


def statistical_utility(examples: int, train_loss: float) -> float:
    """|B| sqrt(mean of loss^2) over the samples B of a phone, from what its report says.

    A report holds the mean loss only; the root of the mean square is taken to be as large. It is never smaller,
    and larger by the factor sqrt(1 + (standard deviation / mean)^2), which differs little from phone to phone.
    """
    return examples * train_loss


def temporal_uncertainty(round: int, last: np.ndarray) -> np.ndarray:
    """sqrt(0.1 log R / L) in round R >= 1 for phones that last took part in round `last`, L >= 1."""
    return np.sqrt(0.1 * log(round) / last)


def system_utility(duration_s: np.ndarray, *, preferred_s: float, penalty: float) -> np.ndarray:
    """(T / t)^alpha where a phone's t exceeds the preferred duration T, else 1: there is no reward for haste."""
    return np.minimum(1.0, preferred_s / np.maximum(duration_s, 1e-9)) ** penalty


def relaxed(utilities: Sequence[float], window: int) -> int:
    """How often the pacer has let go: windows of rounds whose utilities sum up to less than those of the one before."""
    whole = len(utilities) // window
    if whole < 2:
        return 0
    sums = np.reshape(utilities[: whole * window], (whole, window)).sum(axis=1)
    return int((sums[1:] < sums[:-1]).sum())


def draw(weights: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` places of `weights` >= 0, float64 (N,), without repetition, each in proportion to what is left.

    By exponential clocks (Efraimidis & Spirakis 2006): the first to ring at these rates. Places of weight 0 come
    last, in random order.
    """
    rings = random.exponential(size=len(weights))
    late = weights <= 0
    rates = np.where(late, 1.0, weights)
    return np.lexsort((rings / rates, late))[:count]


@dataclass(frozen=True, slots=True)
class Oort:
    """Explores phones that were never tried, else takes those of highest utility (Lai et al. 2020, algorithm 1).

    exploration        epsilon: the share of places that go to phones never tried, in round 0
    exploration_decay  what it is multiplied with every round
    least_exploration  what it does not fall below
    penalty            alpha: a phone that takes twice the preferred duration T counts 2^-alpha
    quickest           T is this quantile of the phones' last durations
    step               by which the pacer raises that quantile
    window             W: the rounds that the pacer sums utilities over
    most_parts         phones that were selected more often come last; 0 = however often
    min_separation     a phone is counted at most once in so many rounds; 0 = once an assignment

    Biased on purpose: to phones with much text that the model predicts badly, be that new language, noise or a
    lie about the loss (clipped, and never worth more than CLIP of all), and against slow or unreliable phones and
    whoever writes in them. Against the paper, T is a quantile, as in the authors' code, so that it needs no unit; the
    pacer looks every W rounds; and phones too often selected come last, they are not shut out.
    """

    exploration: float = 0.9
    exploration_decay: float = 0.98
    least_exploration: float = 0.2
    penalty: float = 2.0
    quickest: float = 0.3
    step: float = 0.05
    window: int = 20
    most_parts: int = 0
    min_separation: int = 0

    def __post_init__(self) -> None:
        for name in ("exploration", "exploration_decay", "least_exploration", "quickest", "step"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.penalty < float("inf"):
            raise ConfigError(f"penalty must be >= 0 and finite, got {self.penalty}")
        if self.window < 1:
            raise ConfigError(f"window must be >= 1, got {self.window}")
        for name in ("most_parts", "min_separation"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be >= 0, got {getattr(self, name)}")

    def exploring(self, round: int) -> float:
        """epsilon in `round`, the first of which is 0."""
        return max(self.least_exploration, self.exploration * self.exploration_decay**round)

    def utility(self, roster: Roster, rows: np.ndarray, *, round: int) -> np.ndarray:
        """Of phones tried before, float64 like `rows`.

        Statistical utilities are clipped, and divided by the clip, so that the bonus for uncertainty has a scale. A
        phone whose reports never counted has the mean of the others.
        """
        table = roster.table[rows]
        statistical = table["utility"].astype(np.float64)
        known = ~np.isnan(statistical)
        if known.any():
            clip = np.quantile(statistical[known], CLIP)
            statistical = np.minimum(statistical / clip, 1.0) if clip > 0 else np.zeros_like(statistical)
            statistical[~known] = statistical[known].mean()
        else:
            statistical = np.ones_like(statistical)
        last = np.maximum(table["part_round"], 0) + 1
        utility = statistical + temporal_uncertainty(round + 1, last)
        duration_s = table["duration_s"]
        measured = ~np.isnan(duration_s)
        if measured.any():
            share = min(1.0, self.quickest + self.step * relaxed(roster.utilities, self.window))
            preferred_s = float(np.quantile(duration_s[measured], share))
            expected_s = np.where(measured, duration_s, preferred_s)
            utility = utility * system_utility(expected_s, preferred_s=preferred_s, penalty=self.penalty)
        if self.most_parts:
            utility[table["assigned"] > self.most_parts] = 0.0
        return utility

    def invite(
        self, roster: Roster, rows: np.ndarray, *, places: int, round: int, random: np.random.Generator
    ) -> np.ndarray:
        """Whom of `rows` to give `places`: as many of them, or all."""
        tried = roster.table["assigned"][rows] > 0
        fresh, known = rows[~tried], rows[tried]
        # In units of whole places, but on average exactly: where one place at a time is free, too.
        explore = floor(self.exploring(round) * places + random.random())
        explore = min(max(explore, places - len(known)), len(fresh))
        exploit = min(places - explore, len(known))
        return np.concatenate(
            [
                fresh[draw(_speed(roster, fresh), explore, random)],
                known[_best(self.utility(roster, known, round=round), exploit, random)],
            ]
        )


def _best(utility: np.ndarray, places: int, random: np.random.Generator) -> np.ndarray:
    """Which to exploit: drawn by utility from those that come close to the best `places`."""
    if places == 0:
        return np.zeros(0, np.intp)
    cut_off = CONFIDENCE * np.partition(utility, -places)[-places]
    admitted = np.flatnonzero(utility >= cut_off)
    return admitted[draw(utility[admitted], places, random)]


def _speed(roster: Roster, rows: np.ndarray) -> np.ndarray:
    """How quick untried phones are expected to be: as their tier; a tier not known yet is as quick as all together."""
    expected_s = np.array([tier.expected_s for tier in roster.tiers])
    known = ~np.isnan(expected_s)
    speed = np.ones(len(expected_s))
    speed[known] = 1.0 / np.maximum(expected_s[known], 1e-9)
    if known.any():
        speed[~known] = speed[known].mean()
    return speed[roster.table["tier"][rows]]
