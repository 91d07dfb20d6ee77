"""Codecs that say which values travel: the largest, or those that are not zero.

Ascending places are written as the gaps between them, a byte each: a gap of 255 or more as a byte 255 for every 255
in it, then the rest. Whatever the bytes are, the places that are read ascend.
"""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np

from kbdfl.codec.packed import Int4
from kbdfl.errors import ConfigError, WireError
from kbdfl.kernels.accumulate import accumulate_runs, accumulate_sparse
from kbdfl.kernels.sparse import gather_runs, scatter_runs, topk
from kbdfl.transform import (
    DELTA,
    VALUES,
    Draws,
    Transform,
    Update,
    check_size,
    decoded,
    split_sections,
    take_sections,
)

_MORE = 255  # this byte alone says that the gap goes on


def pack_places(places: np.ndarray) -> np.ndarray:
    """Ascending `places` (K,) >= 0 as uint8."""
    gaps = np.diff(places, prepend=-1) - 1
    ends = np.cumsum(gaps // _MORE + 1)
    packed = np.full(ends[-1] if len(ends) else 0, _MORE, np.uint8)
    packed[ends - 1] = gaps % _MORE
    return packed


def unpack_places(packed: np.ndarray, size: int, *, most: int | None = None) -> np.ndarray:
    """The places (K,) int32 that `packed` says, ascending, all below `size`. Raises WireError.

    More bytes than `most` places (by default `size`) can take are refused before memory is taken for them.
    """
    longest = (size if most is None else most) + size // _MORE
    if len(packed) > longest:
        raise WireError(f"places below {size} take at most {longest} bytes here, got {len(packed)}")
    if len(packed) and packed[-1] == _MORE:
        raise WireError("the last place is not whole")
    last = int(packed.sum(dtype=np.int64)) + np.count_nonzero(packed != _MORE) - 1
    if last >= size:
        raise WireError(f"places must be below {size}, got {last}")
    places = np.cumsum(packed, dtype=np.int32)[packed != _MORE]
    places += np.arange(len(places), dtype=np.int32)
    return places


@dataclass(frozen=True, slots=True)
class TopK(Transform):
    """The `fraction` of the values with the largest magnitudes; the others count as zero, so it is biased.

    Section "places" uint8, packed. Aji and Heafield 2017, arXiv 1704.05021.
    """

    fraction: float
    name: ClassVar[str] = "topk"
    takes: ClassVar[tuple[str, ...]] = (DELTA, VALUES)
    gives: ClassVar[str] = VALUES
    summable: ClassVar[bool] = False  # every device has its own places

    def __post_init__(self) -> None:
        check_fraction("topk", self.fraction)

    @property
    def kept(self) -> float:
        return self.fraction

    @property
    def bits_each(self) -> float:
        return 8 * self.fraction  # a place

    def size_after(self, size: int, update: Update) -> int:
        return ceil(self.fraction * size)

    def encode(self, update: Update, draws: Draws) -> Update:
        vector = update.vector
        places, values = topk(vector, self.size_after(len(vector), update))
        return update.coded({"places": pack_places(places), "delta": values})

    def decode(self, update: Update, size: int, draws: Draws) -> Update:
        (packed, values), rest = split_sections(update, {"places": np.uint8, "delta": np.float32})
        check_size(values.size, self.size_after(size, update))
        vector = np.zeros(size, np.float32)
        vector[self._places(packed, values, size)] = values
        return decoded(vector, rest)

    def accumulate(self, update: Update, draws: Draws, *, weight: float, acc: np.ndarray) -> None:
        packed, values = take_sections(update, {"places": np.uint8, "delta": np.float32})
        check_size(values.size, self.size_after(acc.size, update))
        accumulate_sparse(acc, self._places(packed, values, acc.size), values, weight)

    def _places(self, packed: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
        places = unpack_places(packed, size, most=len(values))
        if len(places) != len(values):
            raise WireError(f"{len(values)} values need as many places, got {len(places)}")
        return places


@dataclass(frozen=True, slots=True)
class Outliers(Transform):
    """The `fraction` of the values with the largest magnitudes apart, so that few bits serve the rest.

    Sections "outlier_scales" float32 and "outliers" uint8, four bits each with stochastic rounding, and
    "outlier_places" uint8, packed. The vector goes on with zeros there. Unbiased if what follows is.
    """

    fraction: float
    name: ClassVar[str] = "outliers"
    takes: ClassVar[tuple[str, ...]] = (DELTA, VALUES)
    gives: ClassVar[str] = VALUES
    summable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fraction(self.name, self.fraction)

    @property
    def bits_each(self) -> float:
        return 12 * self.fraction  # a place and a value

    @property
    def norm_stretch(self) -> float:
        return Int4().norm_stretch

    def encode(self, update: Update, draws: Draws) -> Update:
        vector = update.vector.copy()
        places, values = topk(vector, ceil(self.fraction * len(vector)))
        vector[places] = 0
        inner = Int4().encode(Update.of_delta(values), draws).sections
        return update.coded(
            {
                "outlier_scales": inner["scales"],
                "outliers": inner["packed"],
                "outlier_places": pack_places(places),
                "delta": vector,
            }
        )

    def decode(self, update: Update, size: int, draws: Draws) -> Update:
        wanted: dict[str, type] = {
            "outlier_scales": np.float32,
            "outliers": np.uint8,
            "outlier_places": np.uint8,
            "delta": np.float32,
        }
        (scales, packed, places, vector), rest = split_sections(update, wanted)
        count = ceil(self.fraction * size)
        found = unpack_places(places, size, most=count)
        check_size(vector.size, size)
        if len(found) != count:
            raise WireError(f"{count} outliers need as many places, got {len(found)}")
        values = Int4().decode(Update({"scales": scales, "packed": packed}), count, draws).delta
        vector = vector.copy()
        vector[found] += values
        return decoded(vector, rest)


@dataclass(frozen=True, slots=True)
class Nonzero(Transform):
    """All values but the zeros: a phone that trained some words' rows sends those, and loses nothing.

    Section "changes" uint8: the places, packed, where zeros begin or end; before the first there are zeros.
    """

    name: ClassVar[str] = "nonzero"
    takes: ClassVar[tuple[str, ...]] = (DELTA, VALUES)
    gives: ClassVar[str] = VALUES
    summable: ClassVar[bool] = False

    def size_after(self, size: int, update: Update) -> int:
        (packed,), _ = split_sections(update, {"changes": np.uint8})
        return _length(unpack_places(packed, size), size)

    def encode(self, update: Update, draws: Draws) -> Update:
        changes, values = gather_runs(update.vector)
        return update.coded({"changes": pack_places(changes), "delta": values})

    def decode(self, update: Update, size: int, draws: Draws) -> Update:
        (packed, values), rest = split_sections(update, {"changes": np.uint8, "delta": np.float32})
        changes = unpack_places(packed, size)
        check_size(values.size, _length(changes, size))
        return decoded(scatter_runs(changes, values, size=size), rest)

    def accumulate(self, update: Update, draws: Draws, *, weight: float, acc: np.ndarray) -> None:
        packed, values = take_sections(update, {"changes": np.uint8, "delta": np.float32})
        changes = unpack_places(packed, acc.size)
        check_size(values.size, _length(changes, acc.size))
        accumulate_runs(acc, changes, values, weight)


def _length(changes: np.ndarray, size: int) -> int:
    """How many of `size` places lie between the first and the second of `changes`, the third and the fourth, ..."""
    ends = size if len(changes) % 2 else 0
    return int(changes[1::2].sum(dtype=np.int64) - changes[::2].sum(dtype=np.int64)) + ends


def check_fraction(name: str, fraction: float) -> None:
    """Raise ConfigError unless 0 < fraction <= 1."""
    if not 0 < fraction <= 1:
        raise ConfigError(f"{name} must keep a fraction in (0, 1], got {fraction}")
