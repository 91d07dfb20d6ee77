"""Clipping to a ball: a bound on what one device can change (McMahan et al. 2018, arXiv 1710.06963)."""

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.kernels.accumulate import norm_clip
from kbdfl.transform import Draws, Transform, Update


@dataclass(frozen=True, slots=True)
class ClipNorm(Transform):
    """delta * min(1, clip_norm / ||delta||), the Euclidean norm never above `clip_norm` (> 0)."""

    clip_norm: float
    name: ClassVar[str] = "clip_norm"

    def __post_init__(self) -> None:
        if not (isfinite(self.clip_norm) and self.clip_norm > 0):
            raise ConfigError(f"clip_norm must be finite and > 0, got {self.clip_norm}")

    def encode(self, update: Update, draws: Draws) -> Update:
        clipped = np.empty_like(update.delta)
        norm_clip(update.delta, self.clip_norm, out=clipped)
        return Update.of_delta(clipped)
