"""Codecs that send every parameter: as it is, or as one byte with a scale a block."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import numpy as np

from kbdfl.errors import ConfigError, WireError
from kbdfl.kernels.accumulate import accumulate_int8, l2_norm
from kbdfl.kernels.quantize import dequantize_int8, quantize_int8
from kbdfl.transform import (
    CODED,
    DELTA,
    LARGEST_NORM,
    VALUES,
    Draws,
    Transform,
    Update,
    check_size,
    decoded,
    split_sections,
    take_sections,
)


@dataclass(frozen=True, slots=True)
class Float32(Transform):
    """The delta itself, four bytes a parameter: section "values" float32 (P,)."""

    name: ClassVar[str] = "float32"
    takes: ClassVar[tuple[str, ...]] = (DELTA, VALUES)
    gives: ClassVar[str] = CODED

    @property
    def bits_each(self) -> float:
        return 32.0

    def encode(self, update: Update, draws: Draws) -> Update:
        return update.coded({"values": update.vector})

    def decode(self, update: Update, size: int, draws: Draws) -> Update:
        (values,), rest = split_sections(update, {"values": np.float32})
        check_size(values.size, size)
        # Written so that a NaN fails it.
        if not (norm := l2_norm(values)) <= LARGEST_NORM:
            raise WireError(f"an update's norm must be at most {LARGEST_NORM:.3g}, got {norm:.3g}")
        return decoded(values, rest)

    def decode_span(self, update: Update, span: slice, size: int, draws: Draws) -> Update:
        (values,) = take_sections(update, {"values": np.float32})
        check_size(values.size, size)
        return self.decode(Update({"values": values[span]}), span.stop - span.start, draws)


@dataclass(frozen=True, slots=True)
class Int8(Transform):
    """One byte a parameter with stochastic rounding: E[decode(encode(x))] = x (QSGD, arXiv 1610.02132).

    Sections "scales" float32 (ceil(P / block),), max |x| / 127 of each block, and "levels" int8 (P,) in
    [-127, 127]. The scales differ from device to device, so levels cannot be summed unseen.
    """

    block: int = 256
    name: ClassVar[str] = "int8"
    takes: ClassVar[tuple[str, ...]] = (DELTA, VALUES)
    gives: ClassVar[str] = CODED
    summable: ClassVar[bool] = False

    @property
    def bits_each(self) -> float:
        return 8.0

    def __post_init__(self) -> None:
        if not 1 <= self.block <= 1 << 20:
            raise ConfigError(f"block must be in [1, {1 << 20}], got {self.block}")

    @property
    def norm_stretch(self) -> float:
        # Rounding moves each value of a block by at most max|x| / 127, and max|x| <= the block's norm.
        return 1 + sqrt(self.block) / 127

    def encode(self, update: Update, draws: Draws) -> Update:
        levels, scales = quantize_int8(update.vector, block=self.block, seed=draws.report)
        return update.coded({"scales": scales, "levels": levels})

    def decode(self, update: Update, size: int, draws: Draws) -> Update:
        (scales, levels), rest = split_sections(update, {"scales": np.float32, "levels": np.int8})
        self._check(scales, levels)
        check_size(levels.size, size)
        return decoded(dequantize_int8(levels, scales, block=self.block), rest)

    def decode_span(self, update: Update, span: slice, size: int, draws: Draws) -> Update:
        first = span.start // self.block
        begin, blocks = first * self.block, slice(first, -(-span.stop // self.block))
        scales, levels = take_sections(update, {"scales": np.float32, "levels": np.int8})
        check_size(levels.size, size)
        part = Update({"scales": scales[blocks], "levels": levels[begin : span.stop]})
        return Update.of_delta(self.decode(part, span.stop - begin, draws).delta[span.start - begin :])

    def accumulate(self, update: Update, draws: Draws, *, weight: float, acc: np.ndarray) -> None:
        scales, levels = take_sections(update, {"scales": np.float32, "levels": np.int8})
        self._check(scales, levels)
        check_size(levels.size, acc.size)
        accumulate_int8(acc, levels, scales, weight, block=self.block)

    def _check(self, scales: np.ndarray, levels: np.ndarray) -> None:
        check_scales(scales, size=levels.size, block=self.block)
        if levels.size and levels.min() < -127:
            raise WireError("levels must be in [-127, 127], got -128")


def check_scales(scales: np.ndarray, *, size: int, block: int) -> None:
    """Raise WireError unless there is a finite scale >= 0 for each block of `size` values."""
    blocks = -(-size // block)
    if scales.size != blocks:
        raise WireError(f"{size} levels need {blocks} scales, got {scales.size}")
    # Written so that a NaN fails it.
    if not np.all((scales >= 0) & (scales <= LARGEST_NORM)):
        raise WireError(f"scales must be finite and in [0, {LARGEST_NORM:.3g}]")
