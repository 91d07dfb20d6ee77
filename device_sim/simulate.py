"""Federated rounds in one process: the coordinator of the server, on a virtual clock, with worker threads.

A simulated phone takes as long as its download, training and upload would on its device (`device_sim.devices`), so
slow phones report late and the coordinator's over-selection and deadline do their work. The clock jumps from event to
event: a report arrives, a deadline passes, a phone may check in. A report that nobody would count is not computed.

Synchronous phones stop when their round closes. Asynchronous ones (FedBuff) go on, on the version they were given.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from math import ceil, inf, nextafter

from kbdfl.algorithms.mode import FedBuff
from kbdfl.algorithms.selection import Ranking
from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim.control import ControlStore
from kbdfl.device_sim.devices import DAY_S, Device, make_device
from kbdfl.device_sim.downloads import Downloads
from kbdfl.device_sim.feedback import ErrorMemory
from kbdfl.device_sim.flight import Flight, Job
from kbdfl.device_sim.population import Population
from kbdfl.device_sim.runtime import Declined, has_known_word, prepare, train
from kbdfl.engines import ThreadEngine
from kbdfl.errors import ConfigError, DataError
from kbdfl.kernels.train import Workspace
from kbdfl.metrics import recall
from kbdfl.parts import TooStale
from kbdfl.rng import stream
from kbdfl.rounds import MemoryStore, RoundResult, metrics_row
from kbdfl.run import Built, RunConfig
from kbdfl.text import PackedBatches
from kbdfl.transform import nominal_bytes

LONGEST_LULL_S = 7 * DAY_S  # nobody was given an assignment for so long: nobody ever will be
FUTILE = 20  # assignments a phone, in a row, that no report came of: none ever will


class Simulation:
    """Rounds over a population; `rounds` hands on a metrics row for every closed one.

    `controls` are the phones' control variates (SCAFFOLD), `counted` says how many reports of each phone were counted.
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
        settings, rule, mode = config.settings, config.rule, config.algorithm.mode
        if rule.enough > len(population):
            raise ConfigError(
                f"cohort must be at most the {len(population)} phones that take part, got {rule.enough}"
            )
        separation = config.algorithm.selection.min_separation
        if separation * rule.cohort > len(population):
            raise ConfigError(
                f"min_separation must be at most {len(population) // rule.cohort} for {len(population)} phones in "
                f"rounds of {rule.cohort}, got {separation}"
            )
        self._config, self._built, self._population, self._held_out = config, built, population, held_out
        self._workers = workers
        self._random = stream(settings.seed, "fleet")
        self.controls = {device: ControlStore() for device in population.users}
        self._errors = {device: ErrorMemory() for device in population.users}
        self.counted: Counter[str] = Counter()
        self._devices: dict[str, Device] = {}
        self._local = threading.local()
        self._asynchronous = isinstance(mode, FedBuff)
        self._most = mode.concurrency if isinstance(mode, FedBuff) else rule.selected
        self._now = 0.0
        self._ask_s = 0.0  # when phones check in next
        self._lull_s = 0.0  # since when nobody was given an assignment
        self._in_vain = 0  # assignments since a report was last counted
        self._futile = FUTILE * len(population) / (1 - settings.dropout)
        self._out: dict[str, float] = {}  # phones that the coordinator counts on, and until when it does
        self._waiting: dict[str, float] = {}  # phones that were told to wait, until when
        self.coordinator = Coordinator(
            built.task, built.params, store=MemoryStore(), random=stream(settings.seed, "pace")
        )
        self._downloads = Downloads(self.coordinator, built.vocabulary)

    def rounds(self, on_round: Callable[[dict], None]) -> None:
        """Run all rounds; `on_round` gets each one's row of metrics.jsonl as it closes."""
        started = time.perf_counter()
        with ThreadEngine(self._workers) as engine:
            flight = Flight(engine, self._train)
            while self.coordinator.phase == "open":
                if self._ask_s <= self._now:
                    self._ask_s = self._admit(flight)
                closed = self._step(flight)
                if closed is not None:
                    on_round(self._row(closed, wall_s=time.perf_counter() - started))

    def device(self, name: str) -> Device:
        """The phone's hardware and hours."""
        if name not in self._devices:
            settings = self._config.settings
            self._devices[name] = make_device(
                settings.seed, name, speeds=settings.speeds, availability=settings.availability
            )
        return self._devices[name]

    def _step(self, flight: Flight) -> RoundResult | None:
        """The clock jumps to what happens next; the round's result if that closes one."""
        c, ends_s = self.coordinator, min(self._out.values(), default=inf)
        next_s = min(flight.next_s, ends_s, self._ask_s)
        if next_s == inf:
            raise DataError("no phone could be selected: none has a log with words that the model knows")
        if not self._out and next_s - self._lull_s > LONGEST_LULL_S:
            raise DataError(
                f"no phone could be selected in {LONGEST_LULL_S / DAY_S:.0f} days: none is free and wanted"
            )
        if next_s < flight.next_s:
            self._now = next_s
            return self._closed(c.tick(next_s), flight) if next_s == ends_s else None
        ahead = 2 * self._workers if self._asynchronous else self._built.task.rule.cohort - c.reports
        job, frame = flight.pop(ahead=ahead)
        if frame is None:
            return None  # the coordinator goes on waiting for it
        self._now = job.arrival_s
        try:
            closed = c.report(job.device, frame, self._now).closed
            self.controls[job.device].settle()
            self._errors[job.device].settle()
            self.counted[job.device] += 1
            self._in_vain = 0
        except TooStale:
            closed = None
        if self._asynchronous:
            del self._out[job.device]
            self._ask_s = self._now
        return self._closed(closed, flight)

    def _closed(self, closed: RoundResult | None, flight: Flight) -> RoundResult | None:
        """Whom the coordinator no longer counts on is free; so are all when a synchronous round closes."""
        if self._asynchronous:
            gone = [device for device, ends_s in self._out.items() if ends_s <= self._now]
        else:
            gone = list(self._out) if closed else []
            if closed:
                flight.clear()
        for device in gone:
            del self._out[device]
        if gone or closed:
            self._ask_s = self._now
        return closed

    def _admit(self, flight: Flight) -> float:
        """Phones that are free check in, in random order, until no more are wanted; when to ask the others again.

        A selection that ranks them has to see them, so then those that are not wanted check in too.
        """
        c, again_s = self.coordinator, inf
        ranked = isinstance(self._built.task.algorithm.selection, Ranking)
        for index in self._random.permutation(len(self._population)):
            if len(self._out) == self._most and not ranked:
                break
            name = self._population.users[index]
            if name in self._out:
                continue
            device = self.device(name)
            free_s = max(self._waiting.get(name, 0.0), self._now + device.returns_s(self._now))
            if free_s > self._now:
                again_s = min(again_s, free_s)
                continue
            sentences = self._population.log(name).sentences(self._built.vocabulary)
            if not has_known_word(sentences):
                continue  # a phone with nothing to learn from does not check in
            assignment = c.check_in(name, self._now, tier=device.tier)
            if not isinstance(assignment, Assignment):
                self._waiting[name] = self._now + assignment.retry_after_s
                again_s = min(again_s, self._waiting[name])
                continue
            self._lull_s = self._now
            self._in_vain += 1
            if self._asynchronous and self._in_vain > self._futile:  # a round that never fills never ends
                raise DataError(
                    f"no phone reported within its {assignment.deadline_s:g} s: {self._in_vain - 1} tried in a row"
                )
            # One step of float64 later: (now + deadline) - now is often a little less than the deadline.
            self._out[name] = nextafter(self._now + assignment.deadline_s, inf)
            job = self._job(name, assignment, sentences)
            if job is not None:
                flight.add(job)
        if len(self._out) == self._most:
            return inf
        # Phones that were told to wait come back together, and the more rarely the longer nobody has been wanted.
        return max(
            again_s, self._now + max(self._built.task.rule.pace_s / 2, (self._now - self._lull_s) / 16)
        )

    def _job(self, name: str, assignment: Assignment, sentences: list[list[int]]) -> Job | None:
        """A selected phone's work, unless it drops out, declines, leaves before it is done or would be late."""
        device = self.device(name)
        received, downlink = self._downloads.fetch(name, assignment)
        if self.controls[name].corrects(assignment):
            downlink += self._downloads.control_bytes(assignment.version)
        self.coordinator.downloaded(downlink)
        if self._random.random() < self._config.settings.dropout:
            return None
        rule = assignment.client
        # The change of a control variate takes as much again.
        uplink = nominal_bytes(
            self._built.task.algorithm.transforms, assignment.coordinates.model.spec.size
        ) * (2 if rule.scaffold else 1)
        transfer_s = (downlink + uplink) / device.bytes_per_s
        passes = 1 + (rule.scaffold == 1) / rule.epochs
        try:
            run = prepare(assignment, sentences)
            if rule.partial_work:
                in_time = (assignment.deadline_s - transfer_s) * device.tokens_per_s / passes
                run = run.within(ceil(in_time) - 1)
        except (Declined, DataError):
            return None
        arrival_s = self._now + (transfer_s + passes * run.part.batches.tokens / device.tokens_per_s)
        if arrival_s - self._now >= min(assignment.deadline_s, device.leaves_s(self._now)):
            return None
        return Job(name, assignment, run, received, arrival_s)

    def _train(self, job: Job) -> bytes | None:
        if not hasattr(self._local, "workspace"):
            self._local.workspace = Workspace()
        try:
            return train(
                job.assignment,
                job.received.params,
                job.run,
                device=job.device,
                workspace=self._local.workspace,
                shared_control=job.received.control,
                controls=self.controls[job.device],
                errors=self._errors[job.device],
            )
        except Declined:
            return None

    def _row(self, result: RoundResult, *, wall_s: float) -> dict:
        every = self._config.settings.evaluate_every
        finished = self.coordinator.phase == "finished"
        due = finished or (result.status == "committed" and result.version % every == 0)
        measured = recall(self.coordinator.published, self._built.task.config, self._held_out) if due else {}
        return metrics_row(result, measured, wall_s=wall_s, virtual_s=result.ended_s)
