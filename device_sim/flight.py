"""Phones that train at one moment of virtual time: their reports come out by arrival, computed some ahead.

What a phone trains is decided when it is assigned, so it does not matter when it is computed: the frames of the
next arrivals are, on all workers, and those that never arrive are not.
"""

import heapq
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from kbdfl.assignment import Assignment
from kbdfl.device_sim.devices import Device
from kbdfl.device_sim.work import Done, Job, Received
from kbdfl.engines import Engine


@dataclass(frozen=True, slots=True)
class Airborne:
    """A job in a snapshot: what it can be planned from once more."""

    device: str
    hardware: Device
    assignment: Assignment
    arrival_s: float
    training_s: float
    in_time: float

    @property
    def key(self) -> tuple[int, int]:
        """What was received: a version, or a round's part of it."""
        partial = self.assignment.client.partial_model
        return self.assignment.version, self.assignment.round if partial else -1


class Flight:
    """Jobs in order of arrival, one a device; `work` carries one out."""

    def __init__(self, engine: Engine, work: Callable[[Job], Done]) -> None:
        self._engine, self._work = engine, work
        self._arrivals: list[tuple[float, str]] = []
        self._jobs: dict[str, Job] = {}
        self._frames: dict[str, Future[Done]] = {}

    def add(self, job: Job) -> None:
        """A phone begins."""
        heapq.heappush(self._arrivals, (job.arrival_s, job.device))
        self._jobs[job.device] = job

    @property
    def next_s(self) -> float:
        """When the next report arrives; infinite if none does."""
        return self._arrivals[0][0] if self._arrivals else inf

    def pop(self, *, ahead: int) -> tuple[Job, Done]:
        """The job that arrives next, with what came of it; those of `ahead` arrivals, this one too, are put to work."""
        for _, device in heapq.nsmallest(max(1, ahead), self._arrivals):
            if device not in self._frames:
                self._frames[device] = self._engine.submit(
                    self._work, self._jobs[device], cost=self._jobs[device].plan.tokens
                )
        _, device = heapq.heappop(self._arrivals)
        return self._jobs.pop(device), self._frames.pop(device).result()

    def drop(self, device: str) -> None:
        """The phone stops, if it is under way."""
        if self._jobs.pop(device, None) is not None:
            self._arrivals = [arrival for arrival in self._arrivals if arrival[1] != device]
            heapq.heapify(self._arrivals)
            frame = self._frames.pop(device, None)
            if frame is not None:
                frame.cancel()

    def clear(self) -> None:
        """All phones stop; returns when none is at work any more."""
        wait([frame for frame in self._frames.values() if not frame.cancel()])
        self._arrivals, self._jobs, self._frames = [], {}, {}

    def state(self) -> dict[str, Any]:
        """The jobs, and the models that they train on, float32 (P,), with c beside them or None."""
        jobs, received = [], {}
        for job in self._jobs.values():
            of_job = job.arrival_s, job.training_s, job.in_time
            one = Airborne(job.device, job.hardware, job.assignment, *of_job)
            jobs.append(one)
            control = job.received.control
            received[one.key] = (job.received.params.get(), None if control is None else control.get())
        return {"jobs": jobs, "received": received}

    def restore(
        self,
        state: dict[str, Any],
        again: Callable[[Airborne, Received], Job],
        *,
        share: Callable[[np.ndarray, np.ndarray | None], Received],
    ) -> None:
        """Take up the jobs of `state`."""
        received = {key: share(*arrays) for key, arrays in state["received"].items()}
        for one in state["jobs"]:
            self.add(again(one, received[one.key]))
