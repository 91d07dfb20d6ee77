"""Clipping to a ball: a bound on what one device can change (McMahan et al. 2018, arXiv 1710.06963)."""

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.kernels.accumulate import l2_norm
from kbdfl.transform import Transform, Update

# Each scaled value is rounded to float32 once more, which may lengthen the vector by 2^-23 of its length.
JUST_INSIDE = 1 - 2.0**-22


@dataclass(frozen=True, slots=True)
class ClipNorm(Transform):
    """delta * min(1, clip_norm / ||delta||), the Euclidean norm never above `clip_norm` (> 0)."""

    clip_norm: float
    name: ClassVar[str] = "clip_norm"

    def __post_init__(self) -> None:
        if not (isfinite(self.clip_norm) and self.clip_norm > 0):
            raise ConfigError(f"clip_norm must be finite and > 0, got {self.clip_norm}")

    def encode(self, update: Update, *, seed: int) -> Update:
        delta = update.delta
        norm = l2_norm(delta)
        if not isfinite(norm):
            raise ValueError("update must be finite, got a NaN or an infinity")
        if norm <= self.clip_norm:
            return update
        return Update.of_delta(delta * np.float32(self.clip_norm / norm * JUST_INSIDE))
