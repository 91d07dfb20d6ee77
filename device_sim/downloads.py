"""The downloads of simulated phones: real frames, each read as often as it is another one.

Phones that fetch the same frame hold the same model, so it is decoded for the first of them and kept for all.
"""

from collections import OrderedDict
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


class Downloads:
    """What the phones of a simulation hold, and what they fetch to train on."""

    def __init__(self, coordinator: Coordinator, vocabulary: Vocabulary, engine: Engine) -> None:
        self._coordinator, self._vocabulary, self._engine = coordinator, vocabulary, engine
        self._download = coordinator.task.algorithm.download
        self._on_phone: dict[str, int] = {}  # the version that each holds
        self._held: OrderedDict[int, Held] = OrderedDict()  # what that is, of the newest
        self._control = (-1, 0)  # the bytes of the frame of which version
        self._newest: tuple[tuple[Any, ...], Received] | None = None
        self._read_from: dict[int | None, int] = {}  # version held -> bytes of the frame, once that was read

    def fetch(self, phone: str, assignment: Assignment) -> tuple[Received, int]:
        """What a phone receives for its assignment, checked as a phone does, and the bytes of the frame."""
        partial = assignment.client.partial_model
        key = (assignment.version, assignment.round if partial else -1)
        if self._newest is None or self._newest[0] != key:
            self._newest, self._read_from = None, {}
        if partial:
            return self._received(key, assignment, None)
        if self._download.codec != "grid":
            return self._received(key, assignment, None)
        before = self._on_phone.get(phone)
        if before == assignment.version:  # it holds what it is to train on
            return self._newest[1] if self._newest else self._received(key, assignment, None)[0], 0
        return self._received(key, assignment, before if before in self._held else None)

    def state(self) -> dict[str, Any]:
        """What the phones hold, for a snapshot."""
        return {"on_phone": self._on_phone, "held": self._held}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self._on_phone, self._held = state["on_phone"], state["held"]

    def keep(self, phone: str, assignment: Assignment) -> None:
        """The download is whole: from now on the phone holds this version."""
        if self._download.codec == "grid" and not assignment.client.partial_model:
            self._on_phone[phone] = assignment.version

    def control_bytes(self, version: int) -> int:
        """The bytes of the frame with SCAFFOLD's c, which a phone fetches beside version `version`."""
        if self._control[0] != version:
            self._control = version, len(self._coordinator.downlink.control(self._coordinator.control))
        return self._control[1]

    def _received(
        self, key: tuple[Any, ...], assignment: Assignment, held: int | None
    ) -> tuple[Received, int]:
        if held not in self._read_from:
            frame, params = self._read(assignment, held)
            self._read_from[held] = len(frame)
            if self._newest is None:
                check_model(assignment, params, self._vocabulary)
                params.setflags(write=False)
                self._newest = (key, self.share(params, self._coordinator.control))
            elif not np.array_equal(params, self._newest[1].params.get()):
                raise ModelError("two phones read two models in one version")
        return self._newest[1], self._read_from[held]

    def share(self, params: np.ndarray, control: np.ndarray | None) -> Received:
        """What workers are handed; the engine lets go of it when the last phone that trains on it has."""
        engine = self._engine
        shared = [None if each is None else engine.share(each) for each in (params, control)]
        received = Received(*shared)
        for each in shared:
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
        now = read_whole(
            frame, size=c.params.size, held=self._held.get(held), max_bytes=len(frame) + 4 * c.params.size
        )
        self._held[now.version] = now
        while len(self._held) > self._download.kept_versions:
            self._held.popitem(last=False)
        return frame, now.grid.values
