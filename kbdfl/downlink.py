"""The way down: the model's versions as phones receive them, and what a phone makes of a frame.

A phone that still holds an earlier version gets the difference from it, one that holds none the whole model, which is
the difference from zero. Both sides end with the same bits: what the server calls version v is what is on the grid,
not the float32 model behind it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kbdfl.algorithms.coordinates import Coordinates
from kbdfl.algorithms.download import Download
from kbdfl.codec.grid import Grid, checked_exponents, pack_levels, unpack_levels
from kbdfl.errors import NotFound, WireError
from kbdfl.params import ParamSpec
from kbdfl.wire import GridModel, decode_grid, encode_grid, encode_model

_FRAMES = 32  # encoded ones that are kept, for phones that hold the same version


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A version on a phone: what the next one may be sent as a difference from."""

    version: int
    grid: Grid


class Downlink:
    """The server's side: the last versions of a model, and the frames that phones fetch. Not thread-safe."""

    def __init__(self, download: Download, spec: ParamSpec) -> None:
        self._download, self._spec = download, spec
        self._grids: OrderedDict[int, Grid] = OrderedDict()
        self._frames: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self._params: tuple[int, np.ndarray] | None = None

    def publish(self, version: int, params: np.ndarray) -> np.ndarray:
        """Version `version` as phones will hold it, float32 (P,), read-only: `params` themselves, or on the grid."""
        self._frames.clear()
        if self._download.codec == "grid":
            grid = Grid.of(params, self._spec, steps=self._download.steps)
            self._grids[version] = grid
            while len(self._grids) > self._download.kept_versions:
                self._grids.popitem(last=False)
            params = grid.values
        params.setflags(write=False)
        self._params = (version, params)
        return params

    def frame(self, version: int, *, held: int | None = None) -> bytes:
        """What brings a phone that holds version `held` to `version`, or the whole model where that is not kept.

        Raises NotFound for a version that is not kept itself: without a grid, for all but the newest.
        """
        if held not in self._grids or held == version:
            held = None
        return self._cached(("whole", version, held), lambda: self._whole(version, held))

    def earlier(self, version: int, params: np.ndarray) -> bytes:
        """What `frame` gave of a version that is not kept here any more, from its parameters float32 (P,)."""
        if self._download.codec != "grid":
            return encode_model(params, version=version, spec_hash=self._spec.hash)
        grid = Grid.of(params, self._spec, steps=self._download.steps)
        return _encode(grid.levels, grid.exponents, version=version, spec_hash=self._spec.hash, base=None)

    def holds(self, version: int | None) -> bool:
        """Whether a difference from `version` can be made."""
        return version in self._grids

    def state(self) -> OrderedDict[int, Grid]:
        """The versions that differences are made from."""
        return self._grids

    def restore(self, state: OrderedDict[int, Grid]) -> None:
        """Go on with these; the newest was published already."""
        self._grids = state

    def part(self, coordinates: Coordinates) -> bytes:
        """Of the newest version what a round's phones need: the values at `coordinates`."""
        return self._cached(("part", coordinates.hash), lambda: self._part(coordinates))

    def control(self, mean: np.ndarray | None) -> bytes:
        """SCAFFOLD's c, float32 (P,), beside the newest version. Raises NotFound where a task keeps none."""
        if mean is None:
            raise NotFound("this task keeps no control variates")
        return encode_model(mean, version=self._newest[0], spec_hash=self._spec.hash)

    @property
    def _newest(self) -> tuple[int, np.ndarray]:
        if self._params is None:
            raise NotFound("no version is published yet")
        return self._params

    def _whole(self, version: int, held: int | None) -> bytes:
        if self._download.codec != "grid":
            newest, params = self._newest
            if version != newest:
                raise NotFound(f"version {newest} is served, not {version}")
            return encode_model(params, version=version, spec_hash=self._spec.hash)
        if version not in self._grids:
            raise NotFound(f"version {max(self._grids)} is served, not {version}")
        grid = self._grids[version]
        base = Grid.zero(len(grid.levels)) if held is None else self._grids[held]
        sent = grid.minus(base)
        return _encode(sent.levels, sent.exponents, version=version, spec_hash=self._spec.hash, base=held)

    def _part(self, coordinates: Coordinates) -> bytes:
        version, params = self._newest
        values = coordinates.take(params)
        if self._download.codec != "grid":
            return encode_model(values, version=version, spec_hash=coordinates.hash)
        grid = self._grids[version]
        levels = coordinates.take(grid.levels)  # a row may lie in two blocks, so all exponents come along
        return _encode(levels, grid.exponents, version=version, spec_hash=coordinates.hash, base=None)

    def _cached(self, key: tuple[Any, ...], make: Callable[[], bytes]) -> bytes:
        if key not in self._frames:
            self._frames[key] = make()
            while len(self._frames) > _FRAMES:
                self._frames.popitem(last=False)
        return self._frames[key]


def _encode(
    levels: np.ndarray, exponents: np.ndarray, *, version: int, spec_hash: str, base: int | None
) -> bytes:
    packed, escapes, bits = pack_levels(levels)
    model = GridModel(version, spec_hash, base, bits, exponents, packed, escapes)
    return encode_grid(model)


def read_whole(frame: bytes, *, size: int, held: Held | None, max_bytes: int) -> Held:
    """The version in `frame`, of `size` parameters, on a phone that holds `held`. Raises WireError or TooLarge."""
    model = decode_grid(frame, max_bytes=max_bytes)
    before = Grid.zero(size)
    if model.base is not None:
        if held is None or held.version != model.base:
            raise WireError(
                f"a difference from version {model.base} came to a phone that holds "
                f"{'none' if held is None else held.version}"
            )
        before = held.grid
    levels, exponents = _read(model, size=size, blocks=len(before.exponents))
    return Held(model.version, before.plus(Grid(levels, exponents)))


def read_part(frame: bytes, coordinates: Coordinates, *, max_bytes: int) -> tuple[np.ndarray, int]:
    """(the values at `coordinates` float32 (K,), their version). Raises WireError or TooLarge."""
    model = decode_grid(frame, max_bytes=max_bytes)
    if model.base is not None:
        raise WireError("a part of a model must not be a difference")
    whole = Grid.zero(coordinates.config.spec.size)
    size = coordinates.model.spec.size
    levels, exponents = _read(model, size=size, blocks=len(whole.exponents))
    if len(levels) and levels.min() < -127:
        raise WireError("levels must be in [-127, 127], got -128")
    steps = coordinates.take(Grid(whole.levels, checked_exponents(exponents)).steps)
    return levels.astype(np.float32) * steps, model.version


def _read(model: GridModel, *, size: int, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    if len(model.exponents) != blocks:
        raise WireError(f"a model of {blocks} blocks needs as many exponents, got {len(model.exponents)}")
    levels = unpack_levels(model.packed, model.escapes, bits=model.bits, size=size)
    return levels, model.exponents
