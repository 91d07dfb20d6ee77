"""Codecs that send every parameter: as it is, or as one byte with a scale a block."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import numpy as np

from kbdfl.errors import ConfigError, WireError
from kbdfl.kernels.accumulate import accumulate_int8, l2_norm
from kbdfl.kernels.quantize import dequantize_int8, quantize_int8
from kbdfl.transform import LARGEST_NORM, Transform, Update, take_sections


@dataclass(frozen=True, slots=True)
class Float32(Transform):
    """The delta itself, four bytes a parameter: section "values" float32 (P,)."""

    name: ClassVar[str] = "float32"
    gives: ClassVar[str] = "float32"

    def encode(self, update: Update, *, seed: int) -> Update:
        return Update({"values": update.delta})

    def decode(self, update: Update) -> Update:
        (values,) = take_sections(update, {"values": np.float32})
        # Written so that a NaN fails it.
        if not (norm := l2_norm(values)) <= LARGEST_NORM:
            raise WireError(f"an update's norm must be at most {LARGEST_NORM:.3g}, got {norm:.3g}")
        return Update.of_delta(values)

    def decode_span(self, update: Update, span: slice) -> Update:
        (values,) = take_sections(update, {"values": np.float32})
        return self.decode(Update({"values": values[span]}))


@dataclass(frozen=True, slots=True)
class Int8(Transform):
    """One byte a parameter with stochastic rounding: E[decode(encode(x))] = x (QSGD, arXiv 1610.02132).

    Sections "scales" float32 (ceil(P / block),), max |x| / 127 of each block, and "levels" int8 (P,) in
    [-127, 127]. The scales differ from device to device, so levels cannot be summed unseen.
    """

    block: int = 256
    name: ClassVar[str] = "int8"
    gives: ClassVar[str] = "int8"
    summable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.block <= 1 << 20:
            raise ConfigError(f"block must be in [1, {1 << 20}], got {self.block}")

    @property
    def norm_stretch(self) -> float:
        # Rounding moves each value of a block by at most max|x| / 127, and max|x| <= the block's norm.
        return 1 + sqrt(self.block) / 127

    def encode(self, update: Update, *, seed: int) -> Update:
        levels, scales = quantize_int8(update.delta, block=self.block, seed=seed)
        return Update({"scales": scales, "levels": levels})

    def decode(self, update: Update) -> Update:
        scales, levels = self._checked(update)
        return Update.of_delta(dequantize_int8(levels, scales, block=self.block))

    def decode_span(self, update: Update, span: slice) -> Update:
        first = span.start // self.block
        begin, blocks = first * self.block, slice(first, -(-span.stop // self.block))
        scales, levels = take_sections(update, {"scales": np.float32, "levels": np.int8})
        part = Update({"scales": scales[blocks], "levels": levels[begin : span.stop]})
        return Update.of_delta(self.decode(part).delta[span.start - begin :])

    def accumulate(self, update: Update, *, weight: float, acc: np.ndarray) -> None:
        scales, levels = self._checked(update)
        if levels.shape != acc.shape:
            raise WireError(f"an update of {acc.size} values is needed, got {levels.size}")
        accumulate_int8(acc, levels, scales, weight, block=self.block)

    def _checked(self, update: Update) -> list[np.ndarray]:
        scales, levels = take_sections(update, {"scales": np.float32, "levels": np.int8})
        blocks = -(-levels.size // self.block)
        if scales.size != blocks:
            raise WireError(f"{levels.size} levels need {blocks} scales, got {scales.size}")
        # Written so that a NaN fails it.
        if not np.all((scales >= 0) & (scales <= LARGEST_NORM)):
            raise WireError(f"scales must be finite and in [0, {LARGEST_NORM:.3g}]")
        if levels.size and levels.min() < -127:
            raise WireError("levels must be in [-127, 127], got -128")
        return [scales, levels]
