"""The sums of a secure task in a simulation: whole numbers added up as they are, which is what masks leave of them.

A session is exact, so its sum is that of the survivors' words (`tests/device_sim/test_summing.py` holds one beside the
other), and a simulation need not mask anything. It ends the first phase as a server does, with those who have trained
by then. The steps after it take no virtual time, and nobody falls silent in them: what drops out drops out before.
"""

from math import inf

import numpy as np

from kbdfl.algorithms.secure import STEPS
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim.encoding import payload_of
from kbdfl.device_sim.work import Done, Job
from kbdfl.rounds import RoundResult
from kbdfl.secure import SESSION, count_sum, session_bytes
from kbdfl.task import Task
from kbdfl.wire import decode_report


class Summing:
    """The open round's sum, and whose words are in it."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.total: np.ndarray | None = None  # int64 (m,)
        self._jobs: dict[str, tuple[Job, Done]] = {}
        self._enough_s = inf

    @property
    def on(self) -> bool:
        """Whether the task's updates are summed unseen."""
        return self._task.algorithm.secure.on

    def add(self, job: Job, done: Done, now: float) -> None:
        """A phone has trained: its words."""
        report = decode_report(done.whole, max_bytes=job.assignment.max_report_bytes)
        words = payload_of(job.assignment).of(report)
        self.total = words if self.total is None else self.total + words
        self._jobs[job.device] = job, done
        if len(self._jobs) == self._task.rule.cohort:
            self._enough_s = now
        if len(self._jobs) == self._task.rule.selected:
            self._enough_s = -inf

    def due_s(self, ends_s: float) -> float:
        """When the session begins with those who are there, in a round that ends at `ends_s`."""
        if not self.on:
            return inf
        wait_s = self._task.algorithm.secure.phase_deadline_s
        return min(self._enough_s + wait_s, ends_s - (STEPS - 1) * wait_s)

    def close(self, coordinator: Coordinator, now: float) -> tuple[RoundResult, list[tuple[Job, Done]]]:
        """End the round: its result, and the jobs that were counted."""
        (total, jobs), task = (self.total, self._jobs), self._task
        self.total, self._jobs, self._enough_s = None, {}, inf
        if total is None or len(jobs) < max(task.algorithm.secure.devices, task.rule.enough):
            return coordinator.close(now), []
        up, down = session_bytes(task, devices=len(jobs))
        coordinator.downloaded(down * len(jobs))
        assignment = next(iter(jobs.values()))[0].assignment
        survivors = dict.fromkeys(jobs, up)
        session = bytes(SESSION)  # nobody was in one
        closed = count_sum(coordinator, total, survivors, assignment=assignment, session=session, now=now)
        return closed, list(jobs.values())
