"""Means that withstand some reports of arbitrary content: coordinate-wise median, trimmed mean, multi-Krum.

They need a round's updates one by one. These stay encoded, as they came, and are decoded CHUNK coordinates at a
time: beyond the reports themselves and the result, memory is a few times n x CHUNK values. Every phone counts once,
whatever it says of its examples: with weights, one liar would count as many. The order of the updates in a `Cohort`
is its maker's; the results follow from it alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.transform import Draws, Transform, Update, accumulate_chain, decode_span

CHUNK = 1 << 14  # a multiple of the codecs' blocks


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """n updates of `size` values, encoded by `transforms` with `draws`; each counts `factors[i]` times as long."""

    transforms: Sequence[Transform]
    size: int
    updates: Sequence[Update]
    draws: Sequence[Draws]
    factors: Sequence[float]

    def chunks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """(coordinates, their values float32 (n, C)) from the first to the last; the array is used again."""
        matrix = np.empty((len(self.updates), min(CHUNK, self.size)), np.float32)
        for start in range(0, self.size, CHUNK):
            span = slice(start, min(start + CHUNK, self.size))
            part = matrix[:, : span.stop - start]
            for row, update, draws, factor in zip(part, self.updates, self.draws, self.factors, strict=True):
                values = decode_span(self.transforms, update, span, self.size, draws)
                np.multiply(values, np.float32(factor), out=row)
            yield span, part


def middle(cohort: Cohort, trim: int) -> np.ndarray:
    """The mean, float32 (P,), of each coordinate's values without the `trim` smallest and largest; n > 2 trim."""
    n, out = len(cohort.updates), np.empty(cohort.size, np.float32)
    for span, values in cohort.chunks():
        by_coordinate = np.ascontiguousarray(values.T)
        by_coordinate.sort(axis=1)  # for many short rows quicker than partition
        by_coordinate[:, trim : n - trim].mean(axis=1, out=out[span])
    return out


def _check_count(value: int, name: str) -> None:
    if value < 0:
        raise ConfigError(f"{name} must be >= 0, got {value}")


@dataclass(frozen=True, slots=True)
class Median:
    """Each coordinate's median, the mean of both middle values if n is even (Yin et al. 2018, arXiv 1803.01498).

    It withstands any f < n / 2 reports. It is biased where honest phones differ: what few of them learn, such as
    the rows of rare words, counts as an outlier.
    """

    @property
    def fewest(self) -> int:
        """How many reports it needs."""
        return 1

    def combine(self, cohort: Cohort) -> np.ndarray:
        """float32 (P,)."""
        return middle(cohort, (len(cohort.updates) - 1) // 2)


@dataclass(frozen=True, slots=True)
class TrimmedMean:
    """Each coordinate's mean without its `faulty` smallest and largest values (Yin et al. 2018, arXiv 1803.01498).

    The paper's beta is faulty / n. 0 is the plain mean.
    """

    faulty: int = 1

    def __post_init__(self) -> None:
        _check_count(self.faulty, "faulty")

    @property
    def fewest(self) -> int:
        """How many reports it needs: more than are trimmed."""
        return 2 * self.faulty + 1

    def combine(self, cohort: Cohort) -> np.ndarray:
        """float32 (P,)."""
        return middle(cohort, self.faulty)


@dataclass(frozen=True, slots=True)
class Krum:
    """Multi-Krum: the mean of the `keep` updates that lie closest to others (Blanchard et al. 2017, arXiv 1703.02757).

    faulty  the paper's f: so many reports may be anything
    keep    the paper's m; 1 is Krum itself, 0 stands for n - faulty - 2

    An update's score is the sum of its squared distances to the n - faulty - 2 nearest others. Of equal scores the
    update that comes first is kept.
    """

    faulty: int = 1
    keep: int = 0

    def __post_init__(self) -> None:
        _check_count(self.faulty, "faulty")
        _check_count(self.keep, "keep")

    @property
    def fewest(self) -> int:
        """How many reports it needs: the paper's n > 2 f + 2."""
        return max(2 * self.faulty + 3, self.keep)

    def chosen(self, cohort: Cohort) -> np.ndarray:
        """The places, ascending, of the updates that are kept."""
        n = len(cohort.updates)
        near = n - self.faulty - 2
        squared = np.sort(squared_distances(cohort), axis=1)  # the first of each row is to itself
        scores = squared[:, 1 : near + 1].sum(axis=1)
        return np.sort(np.argsort(scores, kind="stable")[: self.keep or near])

    def combine(self, cohort: Cohort) -> np.ndarray:
        """float32 (P,)."""
        total, chosen = np.zeros(cohort.size), self.chosen(cohort)
        for place in chosen:
            update, draws = cohort.updates[place], cohort.draws[place]
            accumulate_chain(cohort.transforms, update, draws, weight=cohort.factors[place], acc=total)
        return (total / len(chosen)).astype(np.float32)


def squared_distances(cohort: Cohort) -> np.ndarray:
    """float64 (n, n): between every two updates, 0 on the diagonal."""
    products = np.zeros((len(cohort.updates),) * 2)
    for _, values in cohort.chunks():
        exact = values.astype(np.float64)
        products += np.einsum(
            "ik,jk->ij", exact, exact
        )  # BLAS would take threads, which wait for a busy machine
    norms = products.diagonal()
    squared = np.maximum(norms[:, None] + norms - 2 * products, 0)
    np.fill_diagonal(squared, 0)
    return squared
