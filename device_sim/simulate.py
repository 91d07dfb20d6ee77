"""Federated rounds in one process: the coordinator of the server, on a virtual clock, with worker threads.

A simulated phone takes as long as its download, training and upload would at the constants below, so slow
phones report late and the coordinator's over-selection and deadline do their work. A report that would come
after its round has closed is not computed at all: nobody would see the difference.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from math import ceil, inf, nextafter

from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim.control import ControlStore
from kbdfl.device_sim.population import Population
from kbdfl.device_sim.runtime import Declined, LocalRun, check_model, has_known_word, prepare, train
from kbdfl.engines import ThreadEngine
from kbdfl.errors import ConfigError, DataError
from kbdfl.kernels.train import Workspace
from kbdfl.metrics import recall
from kbdfl.rng import stream
from kbdfl.rounds import MemoryStore, RoundResult, metrics_row
from kbdfl.run import Built, RunConfig
from kbdfl.text import PackedBatches
from kbdfl.wire import decode_model, encode_model

TOKENS_PER_S = 2_000.0  # one mid-range phone's training speed
BYTES_PER_S = 1e6  # and its unmetered link


@dataclass(frozen=True, slots=True)
class Job:
    """A selected phone's work: what to train on and when its report would arrive."""

    device: str
    assignment: Assignment
    run: LocalRun
    arrival_s: float


class Simulation:
    """Rounds over a population; `rounds` hands on a metrics row for every closed one.

    `controls` are the phones' control variates (SCAFFOLD).
    """

    def __init__(
        self,
        config: RunConfig,
        built: Built,
        population: Population,
        *,
        workers: int,
        held_out: PackedBatches,
    ) -> None:
        settings = config.settings
        if config.rule.enough > len(population):
            raise ConfigError(
                f"cohort must be at most the {len(population)} phones that take part, got {config.rule.enough}"
            )
        self._config, self._built, self._population, self._held_out = config, built, population, held_out
        self._workers = workers
        self._random = stream(settings.seed, "fleet")
        self.controls = {device: ControlStore() for device in population.users}
        self._local = threading.local()
        self._now = 0.0
        self.coordinator = Coordinator(
            built.task, built.params, store=MemoryStore(), random=stream(settings.seed, "pace")
        )

    def rounds(self, on_round: Callable[[dict], None]) -> None:
        """Run all rounds; `on_round` gets each one's row of metrics.jsonl as it closes."""
        started = time.perf_counter()
        with ThreadEngine(self._workers) as engine:
            while self.coordinator.phase == "open":
                result = self._round(engine)
                on_round(self._row(result, wall_s=time.perf_counter() - started))

    def _round(self, engine: ThreadEngine) -> RoundResult:
        c, rule = self.coordinator, self._built.task.rule
        model = encode_model(c.params, version=c.version, spec_hash=self._built.task.config.spec.hash)
        opened = self._now
        jobs = self._select(len(model), opened)
        params, _, _ = decode_model(model, max_bytes=len(model))
        shared_control = c.control
        if jobs:
            check_model(jobs[0].assignment, params, self._built.vocabulary)
        in_time = iter([job for job in jobs if job.arrival_s - opened < rule.deadline_s])

        def work(job: Job) -> bytes | None:
            try:
                return train(
                    job.assignment,
                    params,
                    job.run,
                    device=job.device,
                    workspace=self._workspace(),
                    shared_control=shared_control,
                    controls=self.controls[job.device],
                )
            except Declined:
                return None

        # As many at a time as the round still wants: one more for every phone that declined.
        while batch := list(islice(in_time, rule.cohort - c.reports)):
            for job, frame in zip(batch, engine.map(work, batch), strict=True):
                if frame is None:
                    continue
                self._now = job.arrival_s
                closed = c.report(job.device, frame, self._now).closed
                self.controls[job.device].settle()
                if closed is not None:
                    return closed
        # One step of float64 later: (opened + deadline) - opened is often a little less than the deadline.
        self._now = nextafter(opened + rule.deadline_s, inf)
        closed = c.tick(self._now)
        if closed is None:
            raise DataError("no phone could be selected: none has a log with words that the model knows")
        return closed

    def _select(self, model_bytes: int, now: float) -> list[Job]:
        """Phones check in, in random order, until the round has all it wants; their jobs by arrival of the report."""
        c, wanted = self.coordinator, self._built.task.rule.selected
        jobs: list[Job] = []
        selected = 0
        for index in self._random.permutation(len(self._population)):
            if selected == wanted:
                break
            device = self._population.users[index]
            sentences = self._population.log(device).sentences(self._built.vocabulary)
            if not has_known_word(sentences):
                continue  # a phone with nothing to learn from does not check in
            assignment = c.check_in(device, now)
            if not isinstance(assignment, Assignment):
                break
            selected += 1
            # A phone that corrects its steps fetches c too, which is as long as the model.
            downlink = model_bytes * (2 if self.controls[device].corrects(assignment) else 1)
            c.downloaded(downlink)
            if self._random.random() < self._config.settings.dropout:
                continue
            rule = assignment.client
            # The report takes about a byte a parameter, and as much for the change of a control variate.
            uplink = assignment.coordinates.model.spec.size * (2 if rule.scaffold else 1)
            transfer_s = (downlink + uplink) / BYTES_PER_S
            passes = 1 + (rule.scaffold == 1) / rule.epochs
            try:
                run = prepare(assignment, sentences)
                if rule.partial_work:
                    in_time = (assignment.deadline_s - transfer_s) * TOKENS_PER_S / passes
                    run = run.within(ceil(in_time) - 1)
            except (Declined, DataError):
                continue
            seconds = transfer_s + passes * run.part.batches.tokens / TOKENS_PER_S
            jobs.append(Job(device, assignment, run, now + seconds))
        return sorted(jobs, key=lambda job: (job.arrival_s, job.device))

    def _workspace(self) -> Workspace:
        if not hasattr(self._local, "workspace"):
            self._local.workspace = Workspace()
        return self._local.workspace

    def _row(self, result: RoundResult, *, wall_s: float) -> dict:
        every = self._config.settings.evaluate_every
        finished = self.coordinator.phase == "finished"
        due = finished or (result.status == "committed" and result.version % every == 0)
        measured = recall(self.coordinator.params, self._built.task.config, self._held_out) if due else {}
        return metrics_row(result, measured, wall_s=wall_s, virtual_s=result.ended_s)
