"""The downloads of simulated phones: real frames, each read as often as it is another one.

Phones that fetch the same frame hold the same model, so it is decoded for the first of them and kept for all.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any
from weakref import finalize

import numpy as np

from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim.runtime import check_model
from kbdfl.device_sim.work import Received
from kbdfl.downlink import Held, read_part, read_whole
from kbdfl.engines import Engine
from kbdfl.errors import ModelError
from kbdfl.text import Vocabulary
from kbdfl.wire import decode_model


@dataclass(slots=True)
class OnPhones:
    """What the phones of a simulation hold, whichever coordinator they ask: the `version` that each one does.

    `grids` is what that is, of the newest versions.
    """

    version: dict[str, int] = field(default_factory=dict)
    grids: OrderedDict[int, Held] = field(default_factory=OrderedDict)

    def state(self) -> dict[str, Any]:
        """All of it, for a snapshot."""
        return {"on_phone": self.version, "held": self.grids}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self.version, self.grids = state["on_phone"], state["held"]


@dataclass(frozen=True, slots=True)
class _Newest:
    """What phones receive now, `key` says of which version or round, once one of them has read it.

    `nbytes` are those of the frames that were read, by the version that phones went on from, None = from nothing.
    """

    key: tuple[int, int]
    received: Received
    nbytes: dict[int | None, int] = field(default_factory=dict)


class Downloads:
    """What phones fetch from `coordinator` to train on, given what is `on_phones`."""

    def __init__(
        self, coordinator: Coordinator, vocabulary: Vocabulary, engine: Engine, on_phones: OnPhones
    ) -> None:
        self._coordinator, self._vocabulary, self._engine = coordinator, vocabulary, engine
        self._download = coordinator.task.algorithm.download
        self._on_phones = on_phones
        self._control = (-1, 0)  # the bytes of the frame of which version
        self._newest: _Newest | None = None

    def fetch(self, phone: str, assignment: Assignment) -> tuple[Received, int]:
        """What a phone receives for its assignment, checked as a phone does, and the bytes of the frame."""
        partial = assignment.client.partial_model
        key = (assignment.version, assignment.round if partial else -1)
        if self._newest is not None and self._newest.key != key:
            self._newest = None
        if partial:
            return self._received(key, assignment, None)
        if self._download.codec != "grid":
            return self._received(key, assignment, None)
        before = self._on_phones.version.get(phone)
        if before == assignment.version:  # it holds what it is to train on
            return self._newest.received if self._newest else self._received(key, assignment, None)[0], 0
        return self._received(key, assignment, before if before in self._on_phones.grids else None)

    def keep(self, phone: str, assignment: Assignment) -> None:
        """The download is whole: from now on the phone holds this version."""
        if self._download.codec == "grid" and not assignment.client.partial_model:
            self._on_phones.version[phone] = assignment.version

    def control_bytes(self, version: int) -> int:
        """The bytes of the frame with SCAFFOLD's c, which a phone fetches beside version `version`."""
        if self._control[0] != version:
            self._control = version, len(self._coordinator.downlink.control(self._coordinator.control))
        return self._control[1]

    def _received(
        self, key: tuple[int, int], assignment: Assignment, held: int | None
    ) -> tuple[Received, int]:
        newest = self._newest
        if newest is None or held not in newest.nbytes:
            frame, params = self._read(assignment, held)
            if newest is None:
                check_model(assignment, params, self._vocabulary)
                params.setflags(write=False)
                newest = self._newest = _Newest(key, self.share(params, self._coordinator.control))
            elif not np.array_equal(params, newest.received.params.get()):
                raise ModelError("two phones read two models in one version")
            newest.nbytes[held] = len(frame)
        return newest.received, newest.nbytes[held]

    def share(self, params: np.ndarray, control: np.ndarray | None) -> Received:
        """What workers are handed; the engine lets go of it when the last phone that trains on it has."""
        engine = self._engine
        received = Received(engine.share(params), None if control is None else engine.share(control))
        for each in (received.params, received.control):
            if each is not None:
                finalize(received, engine.release, each)
        return received

    def _read(self, assignment: Assignment, held: int | None) -> tuple[bytes, np.ndarray]:
        """A frame and what a phone reads from it."""
        c, grid = self._coordinator, self._download.codec == "grid"
        if assignment.client.partial_model:
            frame = c.part(assignment.round)
            if grid:
                return frame, read_part(
                    frame, assignment.coordinates, max_bytes=len(frame) + 4 * c.params.size
                )[0]
            return frame, decode_model(frame, max_bytes=len(frame))[0]
        frame = c.downlink.frame(assignment.version, held=held)
        if not grid:
            return frame, decode_model(frame, max_bytes=len(frame))[0]
        grids = self._on_phones.grids
        now = read_whole(
            frame,
            size=c.params.size,
            held=None if held is None else grids.get(held),
            max_bytes=len(frame) + 4 * c.params.size,
        )
        grids[now.version] = now
        while len(grids) > self._download.kept_versions:
            grids.popitem(last=False)
        return frame, now.grid.values
