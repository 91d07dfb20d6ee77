"""What a simulated phone does with an assignment: what it would train and for how long, and the report it makes.

A `Worker` plans in the simulation, at the moment of the assignment, and what it planned is carried out by `perform`,
on a thread, in another process or on another machine. Nothing that `perform` needs is anywhere else.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from kbdfl.algorithms.aggregate import RunningSum
from kbdfl.algorithms.base import Algorithm
from kbdfl.assignment import Assignment
from kbdfl.device_sim.control import Control, ControlStore
from kbdfl.device_sim.devices import Device
from kbdfl.device_sim.encoding import encode_update
from kbdfl.device_sim.feedback import ErrorMemory, Lost
from kbdfl.device_sim.population import Crowd
from kbdfl.device_sim.runtime import Budget, Declined, LocalRun, has_known_word, prepare, train
from kbdfl.engines import Shared
from kbdfl.kernels.train import Workspace
from kbdfl.rounds import Summed
from kbdfl.text import Vocabulary
from kbdfl.wire import encode_report

_local = threading.local()


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Received:
    """A version of the model as phones receive it, shared by all that train on it and kept until the last has.

    params   float32 (P,), read-only; of a partial model what is sent of it
    control  SCAFFOLD's c beside it, float32 (P,), or None
    """

    params: Shared
    control: Shared | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a phone will do: learn from so many `tokens`, by `run`; without one it only says that it has."""

    tokens: int
    run: LocalRun | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A phone's work: what to do, on which version of the model, and when its report arrives."""

    device: str
    hardware: Device
    assignment: Assignment
    plan: Plan
    received: Received
    controls: ControlStore
    errors: ErrorMemory
    arrival_s: float
    training_s: float
    in_time: float  # tokens that it could learn from by the deadline


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """The report frame, or what stands for it once it is summed up; and what the phone keeps once it is counted."""

    frame: bytes | Summed
    control: Control | None = None
    lost: Lost | None = None

    @property
    def whole(self) -> bytes:
        """The frame with its update, where none is summed up before it is reported. Raises TypeError where it was."""
        if isinstance(self.frame, Summed):
            raise TypeError(f"the update of {self.frame.report.device} is in a sum already")
        return self.frame


class Worker(Protocol):
    """What phones do when they are asked."""

    def ready(self, phone: str) -> bool:
        """Whether the phone has typed enough to take part; one that has not does not check in."""
        ...

    def plan(self, phone: str, assignment: Assignment, budget: Budget, *, most_tokens: int) -> Plan:
        """What it would do, in partial work from at most so many tokens. Raises Declined or DataError."""
        ...


class Training:
    """Phones that train on their own logs."""

    def __init__(self, population: Crowd, vocabulary: Vocabulary) -> None:
        self._population, self._vocabulary = population, vocabulary

    def ready(self, phone: str) -> bool:
        return has_known_word(self._sentences(phone))

    def plan(self, phone: str, assignment: Assignment, budget: Budget, *, most_tokens: int) -> Plan:
        run = prepare(assignment, self._sentences(phone), budget=budget)
        if assignment.client.partial_work:
            run = run.within(most_tokens)
        return Plan(run.part.batches.tokens, run)

    def _sentences(self, phone: str) -> Sequence[Sequence[int]]:
        return self._population.log(phone).sentences(self._vocabulary)


@dataclass(frozen=True, slots=True)
class Stated:
    """Phones that do nothing for as long as learning from `tokens` would take, and report that nothing changed."""

    tokens: int

    def ready(self, phone: str) -> bool:
        return True

    def plan(self, phone: str, assignment: Assignment, budget: Budget, *, most_tokens: int) -> Plan:
        return Plan(self.tokens)


def perform(job: Job) -> Done | None:
    """Carry out a plan; None if the phone declines."""
    if job.plan.run is None:
        return Done(_nothing(job))
    if not hasattr(_local, "workspace"):
        _local.workspace = Workspace()
    try:
        frame = train(
            job.assignment,
            job.received.params.get(),
            job.plan.run,
            device=job.device,
            budget=Budget(memory_bytes=job.hardware.memory_bytes),
            workspace=_local.workspace,
            shared_control=None if job.received.control is None else job.received.control.get(),
            controls=job.controls,
            errors=job.errors,
        )
    except Declined:
        return None
    return Done(frame, job.controls.offered, job.errors.offered)


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs of one round, whose updates are added up where they are made."""

    jobs: Sequence[Job]
    algorithm: Algorithm


def perform_together(group: Group) -> tuple[list[Done | None], RunningSum]:
    """Carry out all plans: what came of each, without its update, and the sum of the updates.

    It is the sum that a server makes of the frames, for they are written and read as anywhere.
    """
    algorithm, spec = group.algorithm, group.jobs[0].assignment.coordinates.model.spec
    total = RunningSum(algorithm.transforms, spec.size, algorithm.update_clip_norm)
    all_done = []
    for job in group.jobs:
        done = perform(job)
        if done is not None:
            summed, update = Summed.of(done.whole, max_bytes=job.assignment.max_report_bytes)
            weight = algorithm.weight(summed.report.examples)
            total.add(job.device, update, job.assignment.draws, weight=weight)
            done = replace(done, frame=summed)
        all_done.append(done)
    return all_done, total


def _nothing(job: Job) -> bytes:
    """The report of a phone whose training changed nothing."""
    assignment = job.assignment
    size = assignment.coordinates.model.spec.size
    if getattr(_local, "zeros", None) is None or len(_local.zeros) != size:
        _local.zeros = np.zeros(size, np.float32)
    update = encode_update(assignment, _local.zeros, None)
    return encode_report(
        update,
        task=assignment.task,
        round=assignment.round,
        device=job.device,
        model_sha256=assignment.model_sha256,
        spec_hash=assignment.coordinates.hash,
        upload=assignment.upload,
        examples=1,
        tokens=job.plan.tokens,
        train_loss=1.0,
    )
