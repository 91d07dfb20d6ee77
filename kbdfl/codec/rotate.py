"""A random rotation before few bits: it spreads what a few values hold over all of a block.

Vargaftik et al. 2021 (DRIVE), arXiv 2105.08339; Suresh et al. 2017, arXiv 1611.00429: random signs, then a Hadamard
transform, in blocks of 4,096.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kbdfl.kernels.rotate import rotate, unrotate
from kbdfl.transform import DELTA, VALUES, Draws, Transform, Update, check_size, decoded, split_sections

BLOCK = 4_096


@dataclass(frozen=True, slots=True)
class Rotate(Transform):
    """A rotation of the report's own; DRIVE's signs are unbiased over it."""

    name: ClassVar[str] = "rotate"
    takes: ClassVar[tuple[str, ...]] = (DELTA, VALUES)
    gives: ClassVar[str] = VALUES
    summable: ClassVar[bool] = False

    def _seed(self, draws: Draws) -> int:
        return draws.report

    def encode(self, update: Update, draws: Draws) -> Update:
        return update.coded({"delta": rotate(update.vector, seed=self._seed(draws), block=BLOCK)})

    def decode(self, update: Update, size: int, draws: Draws) -> Update:
        (values,), rest = split_sections(update, {"delta": np.float32})
        check_size(values.size, size)
        return decoded(unrotate(values, seed=self._seed(draws), block=BLOCK), rest)


@dataclass(frozen=True, slots=True)
class SharedRotate(Rotate):
    """The same rotation for all reports of a round: the sum of what is rotated is the rotated sum."""

    name: ClassVar[str] = "rotate-shared"
    summable: ClassVar[bool] = True

    def _seed(self, draws: Draws) -> int:
        return draws.round
