"""A random set of coordinates that nobody need send: both sides draw it, and what is kept counts for the rest.

Konečný et al. 2016, arXiv 1610.05492, random masks.
"""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np

from kbdfl.codec.places import check_fraction
from kbdfl.kernels.sparse import shared_indices
from kbdfl.transform import DELTA, VALUES, Draws, Transform, Update, check_size, decoded, split_sections


@dataclass(frozen=True, slots=True)
class Sample(Transform):
    """A `fraction` of the values at places of the report's own, n/k times as large: E[decode(encode(x))] = x."""

    fraction: float
    name: ClassVar[str] = "sample"
    takes: ClassVar[tuple[str, ...]] = (DELTA, VALUES)
    gives: ClassVar[str] = VALUES
    summable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fraction(self.name, self.fraction)

    @property
    def kept(self) -> float:
        return self.fraction

    @property
    def norm_stretch(self) -> float:
        return 1 / self.fraction

    def size_after(self, size: int, update: Update) -> int:
        return ceil(self.fraction * size)

    def _seed(self, draws: Draws) -> int:
        return draws.report

    def encode(self, update: Update, draws: Draws) -> Update:
        vector = update.vector
        kept = self.size_after(len(vector), update)
        places = shared_indices(len(vector), kept, self._seed(draws))
        return update.coded({"delta": vector[places] * np.float32(len(vector) / max(kept, 1))})

    def decode(self, update: Update, size: int, draws: Draws) -> Update:
        (values,), rest = split_sections(update, {"delta": np.float32})
        kept = self.size_after(size, update)
        check_size(len(values), kept)
        vector = np.zeros(size, np.float32)
        vector[shared_indices(size, kept, self._seed(draws))] = values
        return decoded(vector, rest)


@dataclass(frozen=True, slots=True)
class SharedSample(Sample):
    """As `Sample`, at the same places in all reports of a round: they can be summed unseen."""

    name: ClassVar[str] = "shared"
    summable: ClassVar[bool] = True

    def _seed(self, draws: Draws) -> int:
        return draws.round
