"""Federated rounds in one process: the coordinator of the server, on a virtual clock, with workers that train.

A simulated phone takes as long as its download, training and upload would on its device (`device_sim.devices`), so
slow phones report late and the coordinator's over-selection and deadline do their work. The clock jumps from event to
event: a phone checks in, a report arrives, a deadline passes. A report that nobody would count is not computed.

Phones come in one of two ways. With hours of their own (`device_sim.hours`) each check-in is an event of a queue.
Without, nobody plays the polls that would be told to wait: as soon as a place is free, the phones that are free come
in random order.

Synchronous phones stop when their round closes. Asynchronous ones (FedBuff) go on, on the version they were given.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import inf, nextafter
from typing import Any

from kbdfl.algorithms.aggregate import Mean, RunningSum
from kbdfl.algorithms.mode import FedBuff
from kbdfl.algorithms.selection import Ranking
from kbdfl.assignment import Assignment
from kbdfl.coordinator import STATE_CLASSES as COORDINATOR_CLASSES
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim.checkins import CheckIns
from kbdfl.device_sim.control import Control
from kbdfl.device_sim.devices import DAY_S, MID, TIERS, Device, make_device
from kbdfl.device_sim.dispatch import Dispatch
from kbdfl.device_sim.feedback import Lost
from kbdfl.device_sim.flight import Airborne, Flight
from kbdfl.device_sim.hours import hardware
from kbdfl.device_sim.population import Crowd
from kbdfl.device_sim.summing import Summing
from kbdfl.device_sim.tally import Tally
from kbdfl.device_sim.traces import open_hours
from kbdfl.device_sim.work import Done, Job, Training, Worker, perform, perform_together
from kbdfl.downlink import Held
from kbdfl.engines import Engine, ThreadEngine
from kbdfl.errors import ConfigError, DataError
from kbdfl.metrics import recall
from kbdfl.parts import TooStale
from kbdfl.privacy import Books, MemoryBooks, Parts, Source
from kbdfl.privacy.plan import check_population
from kbdfl.rng import stream
from kbdfl.rounds import MemoryStore, RoundResult, Wait, metrics_row
from kbdfl.run import Built, RunConfig
from kbdfl.text import PackedBatches
from kbdfl.transform import Draws, Update

LONGEST_LULL_S = 7 * DAY_S  # nobody was given an assignment for so long: nobody ever will be
# Of the objects in `Simulation.state`, and its plain attributes there.
STATE_CLASSES = (*COORDINATOR_CLASSES, Tally, Control, Lost, Update, Draws, Held, Airborne, Device, Parts)
_KEPT = ("_wall_s", "_now", "_ask_s", "_lull_s", "_in_vain", "_out", "_waiting", "_away", "counted", "tally")
_AHEAD = 4  # jobs a worker that are begun before they are needed
FUTILE = 20  # assignments a phone, in a row, that no report came of: none ever will


class Simulation:
    """Rounds over a population; `rounds` hands on a metrics row for every closed one.

    `controls` are the phones' control variates (SCAFFOLD), `counted` says how many reports of each phone were counted,
    `tally` what became of those that were assigned. `worker` is what they do; a held-out set that is None measures
    nothing. `noise` is for tests of tasks with privacy: without it nobody can repeat their runs.
    """

    def __init__(
        self,
        config: RunConfig,
        built: Built,
        population: Crowd,
        *,
        held_out: PackedBatches | None,
        workers: int = 1,
        engine: Engine | None = None,
        worker: Worker | None = None,
        noise: Callable[[], Source] = Source,
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
        private = config.algorithm.privacy
        if private.on:
            everybody = replace(private, population=len(population))
            check_population(everybody, rounds=rule.rounds, cohort=rule.cohort)
        self.settings, self._built, self._population, self._held_out = settings, built, population, held_out
        self._books: Books = MemoryBooks()
        self._noise = noise
        self._engine = engine or ThreadEngine(workers)
        self._worker = worker or Training(population, built.vocabulary)
        hours = open_hours(settings.availability, seed=settings.seed)
        self._checkins = CheckIns(hours, len(population), seed=settings.seed) if hours else None
        self._random = stream(settings.seed, "fleet")
        self._dispatch = Dispatch(config, built, self._worker, self._engine, self._random)
        self.controls = self._dispatch.controls
        self.counted: Counter[str] = Counter()
        self.tally = Tally()
        self._devices: dict[str, Device] = {}
        self._asynchronous = isinstance(mode, FedBuff)
        plain = isinstance(config.algorithm.aggregate, Mean) and not config.algorithm.client.scaffold
        plain = plain and not private.on  # what noise is on is clipped one by one, by the coordinator
        plain = plain and not config.algorithm.secure.on
        self._summing = Summing(built.task)
        self._adds_up = plain and not self._asynchronous  # updates may be added up by the workers
        self._together = self._adds_up and self._engine.far
        self._most = mode.concurrency if isinstance(mode, FedBuff) else rule.selected
        self._until_s = settings.virtual_days * DAY_S or inf
        self._wall_s = 0.0
        self._now = 0.0
        self._ask_s = 0.0  # when phones check in next
        self._lull_s = 0.0  # since when nobody was given an assignment
        self._in_vain = 0  # assignments since a report was last counted
        self._futile = FUTILE * len(population) / (1 - settings.dropout)
        self._out: dict[str, float] = {}  # phones that the coordinator counts on, and until when it does
        self._waiting: dict[str, float] = {}  # phones that were told to wait, or rest, until when
        self._away: dict[str, tuple[int, float, int]] = {}  # of `_out`: number, end of the window, tier
        self._store = MemoryStore()
        self._pace = stream(settings.seed, "pace")
        self._coordinate()
        self._flight = Flight(self._engine, perform, perform_together)

    def rounds(self, on_round: Callable[[dict[str, Any]], None]) -> None:
        """Run all rounds, or as many as there is time for; `on_round` gets each one's metrics row as it closes."""
        started = time.perf_counter() - self._wall_s
        with self._engine:
            while self.coordinator.phase == "open" and self._now < self._until_s:
                if self._ask_s <= self._now:
                    self._ask_s = self._admit() if self._checkins is None else self._come(self._checkins)
                closed = self._step()
                if closed is not None:
                    self._wall_s = time.perf_counter() - started
                    on_round(self._row(closed, wall_s=self._wall_s))

    def state(self) -> dict[str, Any]:
        """All that the rounds to come depend on, as `rounds` hands on a row, for `kbdfl.snapshot`."""
        return {name: getattr(self, name) for name in _KEPT} | {
            "random": self._random.bit_generator.state,
            "coordinator": self.coordinator.state(),
            "phones": self._dispatch.state(),
            "checkins": self._checkins.state() if self._checkins else None,
            "flight": self._flight.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`, of a simulation with the same configuration and population that has not begun."""
        for name in _KEPT:
            setattr(self, name, state[name])
        self._random.bit_generator.state = state["random"]
        self._store.saved = state["coordinator"]["saved"]
        self._coordinate()
        self.coordinator.restore(state["coordinator"], self._now)
        self._dispatch.restore(state["phones"])
        if self._checkins is not None:
            self._checkins.restore(state["checkins"])
        self._flight.restore(state["flight"], self._dispatch.again, share=self._dispatch.share)

    def keep_books(self, books: Books) -> None:
        """Before the first round: the ledger of a task with privacy, and who took part, are there and not in memory."""
        self._books = books
        self._coordinate()

    def _coordinate(self) -> None:
        """A coordinator that begins with what the store holds."""
        built, privacy = self._built, self._built.task.central(self._books, source=self._noise)
        self.coordinator = Coordinator(
            built.task, built.params, store=self._store, random=self._pace, privacy=privacy
        )
        self._dispatch.attend(self.coordinator)

    def measure(self) -> dict[str, float]:
        """Recall of the model that phones have now; empty without a held-out set."""
        if self._held_out is None:
            return {}
        return recall(self.coordinator.published, self._built.task.config, self._held_out)

    def facts(self) -> dict[str, Any]:
        """What became of the phones: the content of fleet.json."""
        return self.tally.document(population=len(self._population), counted=self.counted)

    def device(self, name: str) -> Device:
        """The phone's hardware and hours."""
        if name not in self._devices:
            settings = self.settings
            self._devices[name] = make_device(
                settings.seed, name, speeds=settings.speeds, availability=settings.availability
            )
        return self._devices[name]

    def _step(self) -> RoundResult | None:
        """The clock jumps to what happens next; the round's result if that closes one."""
        c, ends_s = self.coordinator, min(self._out.values(), default=inf)
        next_s = min(self._flight.next_s, ends_s, self._ask_s)
        if (due_s := self._summing.due_s(ends_s)) <= next_s and due_s < inf:
            return self._sum_up(due_s)
        if next_s == inf:
            why = (
                "none has a log with words that the model knows" if self._checkins is None else "none is free"
            )
            raise DataError(f"no phone could be selected: {why}")
        if not self._out and next_s - self._lull_s > LONGEST_LULL_S:
            raise DataError(
                f"no phone could be selected in {LONGEST_LULL_S / DAY_S:.0f} days: none is free and wanted"
            )
        self.tally.events += next_s != self._ask_s
        if next_s < self._flight.next_s:
            self._now = max(self._now, next_s)
            return self._closed(c.tick(self._now)) if next_s == ends_s else None
        wanted = ahead = _AHEAD * self._engine.workers
        if not (self._asynchronous or self._summing.on):
            wanted = self._built.task.rule.cohort - c.reports
        if self._together and len(self._out) == self._most:
            # Nobody can join any more: those that arrive next, before the first deadline, are all counted.
            self._flight.begin_together(wanted, before_s=ends_s, algorithm=self._built.task.algorithm)
        else:
            # Frames wait here until it is their turn, so there are few of them, however large the cohort is.
            self._flight.begin(min(ahead, wanted))
        job, done = self._flight.pop()
        if sums := self._flight.sums():
            c.merge(self._engine.combine(RunningSum.merged, sums))
        if done is None:
            self.tally.drop(job.hardware.tier, "declined")
            return None  # the coordinator goes on waiting for it
        return self._arrive(job, done)

    def _arrive(self, job: Job, done: Done) -> RoundResult | None:
        """A report comes in; the round's result if it is the last."""
        self._now = job.arrival_s
        if self._summing.on:
            self._summing.add(job, done, self._now)
            return None
        closed = self._deliver(job, done)
        if self._asynchronous:
            self._let_go(job.device)
            self._ask_s = self._now
        return self._closed(closed)

    def _sum_up(self, due_s: float) -> RoundResult | None:
        """Those who have trained by now sum up their updates, which ends the round."""
        self._now = max(self._now, due_s)
        self.tally.events += 1
        closed, counted = self._summing.close(self.coordinator, self._now)
        for job, done in counted:
            self._settle(job, done)
        return self._closed(closed)

    def _deliver(self, job: Job, done: Done) -> RoundResult | None:
        try:
            receipt = self.coordinator.report(job.device, done.frame, self._now)
        except TooStale:
            self.tally.drop(job.hardware.tier, "late")
            return None
        if not receipt.duplicate:
            self._settle(job, done)
        return receipt.closed

    def _settle(self, job: Job, done: Done) -> None:
        """The report was counted: the phone keeps what belongs to it."""
        job.controls.offer(done.control)
        job.errors.offer(done.lost)
        self._dispatch.counted(job)
        self.counted[job.device] += 1
        self._in_vain = 0
        self.tally.report(job.hardware.tier, energy_j=job.training_s * job.hardware.watts)

    def _closed(self, closed: RoundResult | None) -> RoundResult | None:
        """Whom the coordinator no longer counts on is free; so are all when a synchronous round closes."""
        if self._asynchronous:
            gone = [device for device, ends_s in self._out.items() if ends_s <= self._now]
        else:
            gone = list(self._out) if closed else []
            if closed:
                self._flight.clear()
        for device in gone:
            self._let_go(device)
        if gone or closed:
            self._ask_s = self._now
        return closed

    def _let_go(self, name: str) -> None:
        """The phone is free, and rests for as long as phones do; with hours of its own it comes again by itself."""
        del self._out[name]
        rest_s, pace_s = self.settings.rest_s, self._built.task.rule.pace_s
        if rest_s:
            self._waiting[name] = self._now + rest_s
        if self._checkins is not None:
            again_s = self._now + max(rest_s, pace_s * self._random.uniform(0.5, 1.5))
            phone, closes_s, tier = self._away.pop(name)
            self._checkins.again(phone, again_s, closes_s, tier)

    def _admit(self) -> float:
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
            if not self._worker.ready(name):
                continue
            self.tally.check_in(self._now)
            answer = c.check_in(name, self._now, tier=device.tier)
            if isinstance(answer, Wait):
                self._waiting[name] = self._now + answer.retry_after_s
                again_s = min(again_s, self._waiting[name])
            elif isinstance(answer, Assignment):
                self._assign(name, device, answer, leaves_s=device.leaves_s(self._now))
        if len(self._out) == self._most:
            return inf
        # Phones that were told to wait come back together, and the more rarely the longer nobody has been wanted.
        return max(
            again_s, self._now + max(self._built.task.rule.pace_s / 2, (self._now - self._lull_s) / 16)
        )

    def _come(self, queue: CheckIns) -> float:
        """Phones check in as their hours say, until one is wanted or something else happens; when the next one does."""
        c, users, out = self.coordinator, self._population.users, self._out
        speeds, waiting = self.settings.speeds, self._waiting
        most, ready = self._most, self._worker.ready
        check_in, again, noted = c.check_in, queue.again, self.tally.check_in  # millions of times
        kinds = [MID.name if speeds == "equal" else tier.name for tier in TIERS]
        ends_s = min(out.values(), default=self._lull_s + LONGEST_LULL_S)
        until_s = min(self._flight.next_s, ends_s, self._until_s)
        for at_s, phone, closes_s, tier in queue.due(until_s):
            name = users[phone]
            if waiting and waiting.get(name, 0.0) > at_s:
                again(phone, waiting[name], closes_s, tier)
                continue
            if name in out or (len(out) < most and not ready(name)):
                continue  # at work still, or with nothing to learn from: it comes when its next window opens
            noted(at_s)
            answer = check_in(name, at_s, tier=kinds[tier])
            if type(answer) is Wait:
                again(phone, at_s + answer.retry_after_s, closes_s, tier)
                continue
            if isinstance(answer, Assignment):
                self._now = max(self._now, at_s)
                self._away[name] = (phone, closes_s, tier)
                device = hardware(self.settings.seed, phone, tier, speeds=speeds)
                self._assign(name, device, answer, leaves_s=closes_s - at_s)
            break
        return queue.next_s

    def _assign(self, name: str, device: Device, assignment: Assignment, *, leaves_s: float) -> None:
        """The phone begins, and is counted on until its deadline, whatever becomes of it."""
        self._lull_s = self._now
        self._in_vain += 1
        if self._asynchronous and self._in_vain > self._futile:  # a round that never fills never ends
            raise DataError(
                f"no phone reported within its {assignment.deadline_s:g} s: {self._in_vain - 1} tried in a row"
            )
        # One step of float64 later: (now + deadline) - now is often a little less than the deadline.
        self._out[name] = nextafter(self._now + assignment.deadline_s, inf)
        self.tally.assign(name, device.tier)
        job = self._dispatch.job(name, device, assignment, now=self._now, leaves_s=leaves_s)
        if isinstance(job, Job):
            self._flight.add(job)
        else:
            self.tally.drop(device.tier, job)

    def _row(self, result: RoundResult, *, wall_s: float) -> dict[str, Any]:
        every = self.settings.evaluate_every
        finished = self.coordinator.phase == "finished"
        due = finished or (result.status == "committed" and result.version % every == 0)
        measured = self.measure() if due else {}
        return metrics_row(result, measured, wall_s=wall_s, virtual_s=result.ended_s)
