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
SUM_BITS = 32  # of a sum of levels
SPREAD = 6.0  # standard deviations of a value that still fit


@dataclass(frozen=True, slots=True)
class Fixed(Transform):
    """One byte a value, stochastically rounded to multiples of limit / levels: E[decode(encode(x))] = x within ±limit.

    The limit is 6 norm / sqrt(k kept) for k values: six standard deviations of a value, if an update of at most `norm`
    was rotated, and of it a share `kept` sampled and scaled up. What is beyond it is cut, so without a rotation before
    it this codec is biased where an update is uneven. Section "levels" uint8 (k,), modulo 256.

    Fewer levels make a sum of many phones shorter under secure aggregation (docs/secure-aggregation.md).
    """

    norm: float
    share: float = 1.0
    levels: int = LEVELS
    name: ClassVar[str] = "fixed"
    takes: ClassVar[tuple[str, ...]] = (DELTA, VALUES)
    gives: ClassVar[str] = CODED

    @property
    def bits_each(self) -> float:
        return BITS

    def __post_init__(self) -> None:
        if not 0 < self.norm < float("inf"):
            raise ConfigError(
                f"update_clip_norm must be > 0 with fixed, whose steps are a part of it, got {self.norm}"
            )
        if not 1 <= self.levels <= LEVELS:
            raise ConfigError(f"levels of fixed must be in [1, {LEVELS}], got {self.levels}")

    @property
    def norm_stretch(self) -> float:
        return 1 + SPREAD / self.levels / sqrt(self.share)

    def _limit(self, size: int) -> float:
        return SPREAD * self.norm / sqrt(max(size, 1) * self.share)

    def step(self, size: int) -> float:
        """What one level stands for, among `size` values."""
        return self._limit(size) / self.levels

    @property
    def whole_norm(self) -> float:
        """About how long an update of `norm` is here, once a share of it was sampled and scaled up."""
        return self.norm / sqrt(self.share)

    def encode(self, update: Update, draws: Draws) -> Update:
        vector = update.vector
        words = encode_fixed(
            vector, limit=self._limit(len(vector)), levels=self.levels, bits=BITS, seed=draws.report
        )
        return update.coded({"levels": words.astype(np.uint8)})

    def decode(self, update: Update, size: int, draws: Draws) -> Update:
        (levels,), rest = split_sections(update, {"levels": np.uint8})
        check_size(levels.size, size)
        signed = levels.view(np.int8)
        if signed.size and not (-self.levels <= signed.min() and signed.max() <= self.levels):
            raise WireError(
                f"levels must be in [-{self.levels}, {self.levels}], got {signed.min()} to {signed.max()}"
            )
        return decoded(self._read(levels.astype(np.uint32), BITS), rest)

    def decode_sum(self, total: np.ndarray) -> np.ndarray:
        """What the summed levels int64 (k,) of several updates stand for: float32 (k,), the sum of their values."""
        return self._read(total.astype(np.uint32), SUM_BITS)

    def _read(self, words: np.ndarray, bits: int) -> np.ndarray:
        return decode_fixed(words, limit=self._limit(len(words)), levels=self.levels, bits=bits)
