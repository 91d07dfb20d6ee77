"""Phones that train at one moment of virtual time: their reports come out by arrival, computed some ahead.

What a phone trains is decided when it is assigned, so it does not matter when it is computed: the frames of the
next arrivals are, on all workers, and those that never arrive are not. Where it is certain which of them will be
counted, they are computed in groups that give one sum instead of many frames: large groups first and small ones last,
so that all workers end together (guided self-scheduling: Polychronopoulos and Kuck 1987).
"""

import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

import numpy as np

from kbdfl.algorithms import Algorithm
from kbdfl.assignment import Assignment
from kbdfl.device_sim.devices import Device
from kbdfl.device_sim.work import Done, Group, Job, Received
from kbdfl.engines import Engine

FEW = 16  # jobs in a group, unless they are dear: a sum costs as much as some clients that do nothing
MOST = 64
GROUPS = 2  # at work or in store for each worker


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


@dataclass(eq=False, slots=True)
class _Together:
    """A group at work: how many of it have come out, and what will come of them."""

    size: int
    result: Future[tuple[list[Done | None], Any]]
    out: int = 0


class Flight:
    """Jobs in order of arrival, one a device; `work` carries one out, `together` a `Group`.

    Either says None of a phone that declined.
    """

    def __init__(
        self,
        engine: Engine,
        work: Callable[[Job], Done | None],
        together: Callable[[Group], tuple[list[Done | None], Any]],
    ) -> None:
        self._engine, self._work, self._together = engine, work, together
        self._arrivals: list[tuple[float, str]] = []
        self._jobs: dict[str, Job] = {}
        self._frames: dict[str, Future[Done | None]] = {}
        self._groups: dict[str, tuple[_Together, int]] = {}  # of a device: its group, and its place there
        self._open: set[_Together] = set()  # groups that none has come out of
        self._sums: list[Any] = []  # of the others, as `Engine.combine` takes them

    def add(self, job: Job) -> None:
        """A phone begins."""
        heapq.heappush(self._arrivals, (job.arrival_s, job.device))
        self._jobs[job.device] = job

    @property
    def next_s(self) -> float:
        """When the next report arrives; infinite if none does."""
        return self._arrivals[0][0] if self._arrivals else inf

    def begin(self, count: int) -> None:
        """The next `count` arrivals are put to work, one by one."""
        for job in self._waiting(count):
            self._frames[job.device] = self._engine.submit(self._work, job, cost=job.plan.tokens)

    def begin_together(self, count: int, *, before_s: float, algorithm: Algorithm) -> None:
        """As `begin`, in groups, those that arrive before `before_s`: all of them will be counted."""
        most = GROUPS * self._engine.workers
        if len(self._open) >= most or len(self._groups) + len(self._frames) >= count:
            return
        waiting = [job for job in self._waiting(count) if job.arrival_s < before_s]
        while waiting and len(self._open) < most:
            jobs = waiting[: _cut([_cost(job) for job in waiting], parts=most)]
            waiting = waiting[len(jobs) :]
            result = self._engine.submit(
                self._together, Group(jobs, algorithm), cost=sum(map(_cost, jobs)), apart=True
            )
            group = _Together(len(jobs), result)
            self._open.add(group)
            self._groups |= {job.device: (group, place) for place, job in enumerate(jobs)}

    def pop(self) -> tuple[Job, Done | None]:
        """The job that arrives next, with what came of it."""
        device = self._arrivals[0][1]
        if device not in self._groups and device not in self._frames:
            self.begin(1)
        heapq.heappop(self._arrivals)
        job = self._jobs.pop(device)
        if device in self._frames:
            return job, self._frames.pop(device).result()
        group, place = self._groups.pop(device)
        all_done, total = group.result.result()
        if group in self._open:
            self._open.remove(group)
            self._sums.append(total)
        return job, all_done[place]

    def sums(self) -> Sequence[Any]:
        """Sums of groups that have begun to come out, each once: when there are many of them, or no more will come."""
        if self._open and len(self._sums) < GROUPS * self._engine.workers:
            return []
        sums, self._sums = self._sums, []
        return sums

    def drop(self, device: str) -> None:
        """The phone stops, if it is under way; it must not be at work in a group."""
        if self._jobs.pop(device, None) is not None:
            self._arrivals = [arrival for arrival in self._arrivals if arrival[1] != device]
            heapq.heapify(self._arrivals)
            frame = self._frames.pop(device, None)
            if frame is not None:
                frame.cancel()

    def clear(self) -> None:
        """All phones stop; returns when none is at work any more."""
        frames = [frame for frame in self._frames.values() if not frame.cancel()]
        groups = [group.result for group in self._open if not group.result.cancel()]
        wait(frames)
        wait(groups)
        self._arrivals, self._jobs, self._frames = [], {}, {}
        self._groups, self._open, self._sums = {}, set(), []

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

    def _waiting(self, count: int) -> list[Job]:
        """Of the next `count` arrivals, those that nobody works on."""
        return [
            self._jobs[device]
            for _, device in heapq.nsmallest(count, self._arrivals)
            if device not in self._frames and device not in self._groups
        ]


def _cost(job: Job) -> float:
    """In tokens; a phone that only says that it has learned takes hardly any time."""
    return job.plan.tokens if job.plan.run is not None else 0


def _cut(costs: Sequence[float], *, parts: int) -> int:
    """How many of the first jobs are about one of `parts` equal groups; at least one."""
    share, few = sum(costs) / parts, max(FEW, ceil(len(costs) / parts))
    size, cost = 1, costs[0]
    while size < min(len(costs), MOST) and (cost + costs[size] <= share if share else size < few):
        cost += costs[size]
        size += 1
    return size
