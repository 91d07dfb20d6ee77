"""Codecs of four, two or one bit a value, packed into bytes, with one scale a block."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from kbdfl.codec.dense import check_scales
from kbdfl.errors import ConfigError, WireError
from kbdfl.kernels import accumulate, quantize
from kbdfl.transform import (
    CODED,
    DELTA,
    VALUES,
    Draws,
    Transform,
    Update,
    decoded,
    split_sections,
    take_sections,
)

_SECTIONS: dict[str, type] = {"scales": np.float32, "packed": np.uint8}


@dataclass(frozen=True, slots=True)
class _Packed(Transform):
    """`bits` a value; sections "scales" float32 (ceil(P / block),) and "packed" uint8 (ceil(P bits / 8),)."""

    block: int = 256
    bits: ClassVar[int]
    _dequantize: ClassVar[Callable[..., np.ndarray]]
    _accumulate: ClassVar[Callable[..., None]]
    takes: ClassVar[tuple[str, ...]] = (DELTA, VALUES)
    gives: ClassVar[str] = CODED
    summable: ClassVar[bool] = False

    @property
    def bits_each(self) -> float:
        return self.bits

    def __post_init__(self) -> None:
        if not (8 <= self.block <= 1 << 20 and self.block % 8 == 0):
            raise ConfigError(f"block must be a multiple of 8 in [8, {1 << 20}], got {self.block}")

    def decode(self, update: Update, size: int, draws: Draws) -> Update:
        (scales, packed), rest = split_sections(update, _SECTIONS)
        self._check(scales, packed, size)
        return decoded(_refusing(self._dequantize, packed, scales, size=size, block=self.block), rest)

    def accumulate(self, update: Update, draws: Draws, *, weight: float, acc: np.ndarray) -> None:
        scales, packed = take_sections(update, _SECTIONS)
        self._check(scales, packed, acc.size)
        _refusing(self._accumulate, acc, packed, scales, weight, block=self.block)

    def _check(self, scales: np.ndarray, packed: np.ndarray, size: int) -> None:
        check_scales(scales, size=size, block=self.block)
        expected = -(-size * self.bits // 8)
        if len(packed) != expected:
            raise WireError(f"{size} values of {self.bits} bits need {expected} bytes, got {len(packed)}")


def _refusing(kernel: Callable[..., Any], *args: object, **more: object) -> Any:
    """What `kernel` gives; its refusal of bits that nobody writes, as a WireError."""
    try:
        return kernel(*args, **more)
    except ValueError as error:
        raise WireError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Int4(_Packed):
    """Levels in [-7, 7], max |x| / 7 apart, with stochastic rounding: E[decode(encode(x))] = x."""

    name: ClassVar[str] = "int4"
    bits: ClassVar[int] = 4
    _dequantize = staticmethod(quantize.dequantize_4bit)
    _accumulate = staticmethod(accumulate.accumulate_4bit)

    @property
    def norm_stretch(self) -> float:
        return 1 + sqrt(self.block) / 7

    def encode(self, update: Update, draws: Draws) -> Update:
        packed, scales = quantize.quantize_4bit(update.vector, block=self.block, seed=draws.report)
        return update.coded({"scales": scales, "packed": packed})


@dataclass(frozen=True, slots=True)
class Int2(_Packed):
    """Levels -1, 0 and 1 times max |x|, with stochastic rounding: E[decode(encode(x))] = x.

    TernGrad (Wen et al. 2017, arXiv 1705.07878). Most levels of a heavy-tailed vector are 0, and pack well.
    """

    name: ClassVar[str] = "int2"
    bits: ClassVar[int] = 2
    _dequantize = staticmethod(quantize.dequantize_2bit)
    _accumulate = staticmethod(accumulate.accumulate_2bit)

    @property
    def norm_stretch(self) -> float:
        return 1 + sqrt(self.block)

    def encode(self, update: Update, draws: Draws) -> Update:
        packed, scales = quantize.quantize_2bit(update.vector, block=self.block, seed=draws.report)
        return update.coded({"scales": scales, "packed": packed})


@dataclass(frozen=True, slots=True)
class Sign(_Packed):
    """Signs, times ||x||^2 / ||x||_1 of their block, so that <decode(encode(x)), x> = ||x||^2.

    After a random rotation that is DRIVE (Vargaftik et al. 2021, arXiv 2105.08339), and unbiased over the rotation;
    without one it is biased.
    """

    block: int = 4_096
    name: ClassVar[str] = "sign"
    bits: ClassVar[int] = 1
    _dequantize = staticmethod(quantize.dequantize_1bit)
    _accumulate = staticmethod(accumulate.accumulate_1bit)

    @property
    def norm_stretch(self) -> float:
        # The scale is at most the block's norm, sqrt(block) values have it: one large value among zeros.
        return sqrt(self.block)

    def encode(self, update: Update, draws: Draws) -> Update:
        packed, scales = quantize.quantize_sign(update.vector, block=self.block)
        return update.coded({"scales": scales, "packed": packed})
