"""A codec whose levels mean the same on every phone, so that they add up: fixed point with one step for all."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import numpy as np

from kbdfl.errors import ConfigError, WireError
from kbdfl.kernels.masking import decode_fixed, encode_fixed
from kbdfl.transform import (
    CODED,
    DELTA,
    VALUES,
    Draws,
    Transform,
    Update,
    check_size,
    decoded,
    split_sections,
)

LEVELS, BITS = 127, 8
SPREAD = 6.0  # standard deviations of a value that still fit


@dataclass(frozen=True, slots=True)
class Fixed(Transform):
    """One byte a value, stochastically rounded to the multiples of limit / 127: E[decode(encode(x))] = x within ±limit.

    The limit is 6 norm / sqrt(k kept) for k values: six standard deviations of a value, if an update of at most `norm`
    was rotated, and of it a share `kept` sampled and scaled up. What is beyond it is cut, so without a rotation before
    it this codec is biased where an update is uneven. Section "levels" uint8 (k,), modulo 256.
    """

    norm: float
    share: float = 1.0
    name: ClassVar[str] = "fixed"
    takes: ClassVar[tuple[str, ...]] = (DELTA, VALUES)
    gives: ClassVar[str] = CODED
    bits_each: ClassVar[float] = float(BITS)

    def __post_init__(self) -> None:
        if not 0 < self.norm < float("inf"):
            raise ConfigError(
                f"update_clip_norm must be > 0 with fixed, whose steps are a part of it, got {self.norm}"
            )

    @property
    def norm_stretch(self) -> float:
        return 1 + SPREAD / LEVELS / sqrt(self.share)

    def _limit(self, size: int) -> float:
        return SPREAD * self.norm / sqrt(max(size, 1) * self.share)

    def encode(self, update: Update, draws: Draws) -> Update:
        vector = update.vector
        words = encode_fixed(
            vector, limit=self._limit(len(vector)), levels=LEVELS, bits=BITS, seed=draws.report
        )
        return update.coded({"levels": words.astype(np.uint8)})

    def decode(self, update: Update, size: int, draws: Draws) -> Update:
        (levels,), rest = split_sections(update, {"levels": np.uint8})
        check_size(levels.size, size)
        if (levels == LEVELS + 1).any():
            raise WireError(f"levels must be in [-{LEVELS}, {LEVELS}], got -{LEVELS + 1}")
        words = levels.astype(np.uint32)
        return decoded(decode_fixed(words, limit=self._limit(size), levels=LEVELS, bits=BITS), rest)
