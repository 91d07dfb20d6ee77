"""A round's reports on their way to one mean update: a running sum, or all of them kept for a robust mean.

Neither depends on the order of the reports: sums are exact (`kbdfl.kernels.accumulate`), so that a part of them may be
made elsewhere, and what is kept is put in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from kbdfl.algorithms.robust import Cohort, Krum, Median, TrimmedMean
from kbdfl.kernels.accumulate import l2_norm
from kbdfl.transform import Draws, Transform, Update, accumulate_chain, decode_chain


@dataclass(frozen=True, slots=True)
class Mean:
    """The weighted mean, summed as reports arrive: memory for one vector, and no defence but the bound on norms."""

    @property
    def fewest(self) -> int:
        """How many reports it needs."""
        return 1


WEIGHT_STEP = 2.0**-32

Robust = Median | TrimmedMean | Krum
Aggregate = Mean | Robust

AGGREGATES: dict[str, type] = {"mean": Mean, "median": Median, "trimmed-mean": TrimmedMean, "krum": Krum}


class Gathering(Protocol):
    """The reports of one round."""

    def add(self, device: str, update: Update, draws: Draws, *, weight: float, scale: float = 1.0) -> None:
        """Count a device's update, `scale` times as long as it is; `draws` are its report's.

        Raises WireError for one that is not finite or not whole, and changes nothing.
        """

    def mean(self) -> np.ndarray:
        """float32 (P,), once there are reports enough."""
        ...


class Summing(Gathering, Protocol):
    """The reports of a round that are added up in any order, and in several places."""

    def merge(self, other: Any) -> None:
        """Count all that `other`, of the same class, has added, of the same round."""

    def state(self) -> dict[str, Any]:
        """A copy of all that it holds."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""

    def add_state(self, state: dict[str, Any]) -> None:
        """Count what another one held, of the same round."""


def gather(
    aggregate: Aggregate, transforms: Sequence[Transform], *, size: int, norm_bound: float
) -> Gathering:
    """An empty round for updates of `size` values, none of which counts as longer than `norm_bound`; 0 = no bound."""
    if isinstance(aggregate, Mean):
        return RunningSum(transforms, size, norm_bound)
    return _Kept(aggregate, transforms, size, norm_bound)


def bounding_factor(delta: np.ndarray, norm_bound: float) -> float:
    """What shortens `delta` float32 (P,) to the norm `norm_bound`; 1 if it is not longer, or if the bound is 0."""
    norm = l2_norm(delta) if norm_bound else 0.0
    return norm_bound / norm if norm > norm_bound else 1.0


class RunningSum:
    """Adds every update once; `count` says how many. See `Gathering`.

        mean = sum(scale_i weight_i update_i) / sum(weight_i)

    It is not divided by the scales: stale updates make a shorter mean (Nguyen et al. 2021, arXiv 2106.06639).
    """

    def __init__(self, transforms: Sequence[Transform], size: int, norm_bound: float) -> None:
        self._transforms, self._norm_bound = transforms, norm_bound
        self._total = np.zeros(size)
        self._weight = 0  # in steps of WEIGHT_STEP: whole numbers add up exactly
        self.count: int = 0

    def add(self, device: str, update: Update, draws: Draws, *, weight: float, scale: float = 1.0) -> None:
        factor = scale
        if self._norm_bound:
            delta = decode_chain(self._transforms, update, self._total.size, draws)
            factor *= bounding_factor(delta, self._norm_bound)
        accumulate_chain(self._transforms, update, draws, weight=weight * factor, acc=self._total)
        self._weight += round(weight / WEIGHT_STEP)
        self.count += 1

    def add_sum(self, values: np.ndarray, *, count: int) -> None:
        """Count `count` updates that weigh 1 each, by their sum `values` float32 (P,)."""
        self._total += values
        self._weight += count * round(1 / WEIGHT_STEP)
        self.count += count

    def merge(self, other: Self) -> None:
        """Count all that `other` has added, of the same round."""
        self._total += other._total
        self._weight += other._weight
        self.count += other.count

    @classmethod
    def merged(cls, sums: Sequence[Self]) -> Self:
        """One sum of all that `sums` of one round have added."""
        if len(sums) == 1:
            return sums[0]
        first = sums[0]
        total = cls(first._transforms, first._total.size, first._norm_bound)
        for each in sums:
            total.merge(each)
        return total

    def state(self) -> dict[str, Any]:
        """A copy of all that it holds: the sum float64 (P,), its weight in WEIGHT_STEPs, and how many were added."""
        return {"total": self._total.copy(), "weight": self._weight, "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self._total, self._weight, self.count = state["total"], state["weight"], state["count"]

    def add_state(self, state: dict[str, Any]) -> None:
        """Count all that another sum had added when its `state` was taken, of the same round."""
        self._total += state["total"]
        self._weight += state["weight"]
        self.count += state["count"]

    def mean(self) -> np.ndarray:
        return (self._total / (self._weight * WEIGHT_STEP)).astype(np.float32)


class _Kept:
    """Keeps every update as it came; weights are not looked at."""

    def __init__(
        self, aggregate: Robust, transforms: Sequence[Transform], size: int, norm_bound: float
    ) -> None:
        self._aggregate, self._transforms = aggregate, transforms
        self._size, self._norm_bound = size, norm_bound
        self._updates: dict[str, tuple[Update, Draws, float]] = {}

    def add(self, device: str, update: Update, draws: Draws, *, weight: float, scale: float = 1.0) -> None:
        delta = decode_chain(
            self._transforms, update, self._size, draws
        )  # one that cannot be read is refused now
        self._updates[device] = update, draws, scale * bounding_factor(delta, self._norm_bound)

    def mean(self) -> np.ndarray:
        # By name: the order in which reports arrived must not show in the last bits, nor break a tie.
        updates, draws, factors = zip(
            *(self._updates[device] for device in sorted(self._updates)), strict=True
        )
        return self._aggregate.combine(Cohort(self._transforms, self._size, updates, draws, factors))
