"""Phones that train at one moment of virtual time: their reports come out by arrival, computed some ahead.

What a phone trains is decided when it is assigned, so it does not matter when it is computed: the frames of the
next arrivals are, on all workers, and those that never arrive are not.
"""

import heapq
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from math import inf

import numpy as np

from kbdfl.assignment import Assignment
from kbdfl.device_sim.runtime import LocalRun
from kbdfl.engines import ThreadEngine


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """A version of the model as phones receive it, shared by all that train on it and kept until the last has.

    params   float32 (P,), read-only; of a partial model what is sent of it
    control  SCAFFOLD's c beside it, float32 (P,), or None
    """

    params: np.ndarray
    control: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A phone's work: what to train, on which version of the model, and when its report arrives."""

    device: str
    assignment: Assignment
    run: LocalRun
    received: Received
    arrival_s: float


class Flight:
    """Jobs in order of arrival, one a device; `work` makes a job's frame, or None if the phone declines."""

    def __init__(self, engine: ThreadEngine, work: Callable[[Job], bytes | None]) -> None:
        self._engine, self._work = engine, work
        self._arrivals: list[tuple[float, str]] = []
        self._jobs: dict[str, Job] = {}
        self._frames: dict[str, Future[bytes | None]] = {}

    def add(self, job: Job) -> None:
        """A phone begins."""
        heapq.heappush(self._arrivals, (job.arrival_s, job.device))
        self._jobs[job.device] = job

    @property
    def next_s(self) -> float:
        """When the next report arrives; infinite if none does."""
        return self._arrivals[0][0] if self._arrivals else inf

    def pop(self, *, ahead: int) -> tuple[Job, bytes | None]:
        """The job that arrives next, with its frame; those of `ahead` arrivals, this one too, are put to work."""
        for _, device in heapq.nsmallest(max(1, ahead), self._arrivals):
            if device not in self._frames:
                self._frames[device] = self._engine.submit(self._work, self._jobs[device])
        _, device = heapq.heappop(self._arrivals)
        return self._jobs.pop(device), self._frames.pop(device).result()

    def clear(self) -> None:
        """All phones stop; returns when none is at work any more."""
        wait([frame for frame in self._frames.values() if not frame.cancel()])
        self._arrivals, self._jobs, self._frames = [], {}, {}
