"""Phones on their way: what becomes of a phone from its assignment to its report, or why it makes none."""

from collections import defaultdict
from math import ceil, inf
from typing import Any

import numpy as np

from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim.control import ControlStore
from kbdfl.device_sim.devices import Device
from kbdfl.device_sim.downloads import Downloads, OnPhones
from kbdfl.device_sim.feedback import ErrorMemory
from kbdfl.device_sim.flight import Airborne
from kbdfl.device_sim.hours import HOUR_S
from kbdfl.device_sim.runtime import Budget, Declined
from kbdfl.device_sim.taken import Taken
from kbdfl.device_sim.work import Job, Plan, Received, Worker
from kbdfl.engines import Engine
from kbdfl.errors import DataError
from kbdfl.run import Built, RunConfig
from kbdfl.secure import session_bytes
from kbdfl.transform import nominal_bytes

_NO_CONTROLS, _NO_ERRORS = ControlStore(), ErrorMemory()  # of tasks without such: never written to


class Dispatch:
    """Sends phones that were selected on their way, and keeps what they keep: control variates, and what was lost."""

    def __init__(
        self, config: RunConfig, built: Built, worker: Worker, engine: Engine, random: np.random.Generator
    ) -> None:
        self._settings, self._built, self._worker, self._engine = config.settings, built, worker, engine
        self._random = random
        self.controls: defaultdict[str, ControlStore] = defaultdict(ControlStore)
        self._errors: defaultdict[str, ErrorMemory] = defaultdict(ErrorMemory)
        self._taken: defaultdict[str, Taken] = defaultdict(Taken)
        self._on_phones = OnPhones()
        task = built.task
        self._session = (
            session_bytes(task, devices=task.rule.selected) if task.algorithm.secure.on else (0, 0)
        )

    def attend(self, coordinator: Coordinator) -> None:
        """Phones ask this coordinator from now on, and hold what they held."""
        self._coordinator = coordinator
        self._downloads = Downloads(coordinator, self._built.vocabulary, self._engine, self._on_phones)

    def job(
        self, name: str, device: Device, assignment: Assignment, *, now: float, leaves_s: float
    ) -> Job | str:
        """A selected phone's work, or one of `tally.REASONS` why there is none; it is free for `leaves_s` from now."""
        settings, rule = self._settings, assignment.client
        received, downlink = self._downloads.fetch(name, assignment)
        controls = self.controls[name] if rule.scaffold else _NO_CONTROLS
        if controls.corrects(assignment):
            downlink += self._downloads.control_bytes(assignment.version)
        hazard_s = inf  # when the phone is taken off its charger or loses its network
        if settings.hazard_per_h:
            hazard_s = HOUR_S * self._random.exponential(1 / settings.hazard_per_h)
        download_s = downlink / device.bytes_per_s
        arrived = downlink if hazard_s >= download_s else int(downlink * hazard_s / download_s)
        self._coordinator.downloaded(arrived)
        if hazard_s >= download_s:
            self._downloads.keep(name, assignment)
        if self._random.random() < settings.dropout:
            return "training"
        # The change of a control variate takes as much again.
        transforms, reported = self._built.task.algorithm.transforms, assignment.coordinates.model.spec
        uplink = nominal_bytes(transforms, reported.size) * (2 if rule.scaffold else 1)
        uplink = self._session[0] or uplink
        transfer_s = (downlink + uplink) / device.bytes_per_s
        passes = 1 + (rule.scaffold == 1) / rule.epochs
        in_time = (assignment.deadline_s - transfer_s) * device.tokens_per_s / passes
        try:
            if name in self._taken:
                self._taken[name].check(assignment)
            plan = self._plan(name, device, assignment, in_time)
        except (Declined, DataError):
            return "declined"
        training_s = passes * plan.tokens / device.tokens_per_s
        takes_s = transfer_s + training_s
        if hazard_s < min(takes_s, leaves_s, assignment.deadline_s):
            if hazard_s < download_s:
                return "download"
            return "training" if hazard_s < download_s + training_s else "upload"
        arrival_s = now + takes_s
        if arrival_s - now >= min(assignment.deadline_s, leaves_s):
            return "left" if leaves_s < assignment.deadline_s else "late"
        times = {"arrival_s": arrival_s, "training_s": training_s, "in_time": in_time}
        return self._job(name, device, assignment, plan, received, **times)

    def counted(self, job: Job) -> None:
        """The job's report was counted: the phone keeps what belongs to it."""
        job.controls.settle()
        job.errors.settle()
        if self._built.task.algorithm.privacy.on:
            self._taken[job.device].note(job.assignment)

    def again(self, one: Airborne, received: Received) -> Job:
        """A job as it was when its phone was assigned."""
        plan = self._plan(one.device, one.hardware, one.assignment, one.in_time)
        times = {"arrival_s": one.arrival_s, "training_s": one.training_s, "in_time": one.in_time}
        return self._job(one.device, one.hardware, one.assignment, plan, received, **times)

    def share(self, params: np.ndarray, control: np.ndarray | None) -> Received:
        """A version of the model, float32 (P,), and c beside it, for workers."""
        return self._downloads.share(params, control)

    def state(self) -> dict[str, Any]:
        """What phones keep and hold, for a snapshot."""
        return {
            "controls": {name: store.kept for name, store in self.controls.items() if store.kept},
            "errors": {name: memory.kept for name, memory in self._errors.items() if memory.kept},
            "taken": {name: taken.kept for name, taken in self._taken.items()},
            "downloads": self._on_phones.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        for name, kept in state["controls"].items():
            self.controls[name] = ControlStore(kept=kept)
        for name, kept in state["errors"].items():
            self._errors[name] = ErrorMemory(kept)
        for name, kept in state["taken"].items():
            self._taken[name] = Taken(kept=kept)
        self._on_phones.restore(state["downloads"])

    def _plan(self, name: str, device: Device, assignment: Assignment, in_time: float) -> Plan:
        budget = Budget(memory_bytes=device.memory_bytes)
        return self._worker.plan(name, assignment, budget, most_tokens=ceil(in_time) - 1)

    def _job(
        self,
        name: str,
        device: Device,
        assignment: Assignment,
        plan: Plan,
        received: Received,
        **times: float,
    ) -> Job:
        controls = self.controls[name] if assignment.client.scaffold else _NO_CONTROLS
        errors = self._errors[name] if assignment.client.feedback_rounds else _NO_ERRORS
        return Job(name, device, assignment, plan, received, controls, errors, **times)
