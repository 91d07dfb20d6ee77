"""Faults on demand: a simulation in which messages and the server go wrong, as a seed says.

Reports are lost, sent twice, late, out of order or broken on the way; the server's clock jumps; the server crashes and
begins again with what its store holds. Everything is drawn from one stream of the run's seed, so a run that breaks an
invariant (`device_sim.audit`) does so again.
"""

import heapq
from collections import Counter
from dataclasses import dataclass
from math import inf
from typing import Any

from kbdfl.device_sim.audit import Audited, InvariantBroken
from kbdfl.device_sim.simulate import Simulation
from kbdfl.device_sim.work import Done, Job
from kbdfl.errors import ConfigError, KbdflError
from kbdfl.rng import stream
from kbdfl.rounds import RoundResult


@dataclass(frozen=True, slots=True)
class Chances:
    """How likely each fault is: of a report, or, the last two, of a step of the clock.

    lost        it never arrives
    twice       it arrives a second time
    late        it arrives after its round's deadline
    reordered   it arrives up to a deadline's tenth later, so after ones that were sent after it
    broken      a copy with a flipped bit or a missing end arrives before it
    jumps       the server's clock jumps forward by up to half a deadline
    crashes     the server crashes: the round in flight is gone, and it goes on from its store
    """

    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    reordered: float = 0.0
    broken: float = 0.0
    jumps: float = 0.0
    crashes: float = 0.0


STORM = Chances(lost=0.05, twice=0.15, late=0.05, reordered=0.3, broken=0.1, jumps=0.02, crashes=0.02)


class Storm(Simulation):
    """A simulation with the faults of `chances`; `happened` counts them, and what the watch saw."""

    def __init__(self, *arguments: Any, chances: Chances = STORM, **options: Any) -> None:
        self._chances = chances
        self.happened: Counter[str] = Counter()
        self._mail: list[tuple[float, int, Job, Done]] = []  # on their way to the server, by arrival
        self._sent = 0
        if arguments[0].algorithm.privacy.on:
            raise ConfigError("faults must be none with privacy: the watch adds up what noise hides")
        if arguments[0].algorithm.secure.on:
            raise ConfigError("faults must be none with secure aggregation: the watch adds up single reports")
        super().__init__(*arguments, **options)
        self._adds_up = self._together = (
            False  # each frame has a fate of its own, and the watch reads them all
        )
        self._chance = stream(self.settings.seed, "faults")

    def _coordinate(self) -> None:
        built = self._built
        self.coordinator = Audited(
            built.task, built.params, store=self._store, random=self._pace, seen=self.happened
        )
        self._dispatch.attend(self.coordinator)

    def _step(self) -> RoundResult | None:
        if self._happens("crashes"):
            return self._crash()
        if self._happens("jumps"):
            self._now += 0.5 * self._built.task.rule.deadline_s * self._chance.random()
        mail_s = self._mail[0][0] if self._mail else inf
        if mail_s <= min(self._flight.next_s, self._ask_s, *self._out.values()):
            _, _, job, done = heapq.heappop(self._mail)
            self._now = max(self._now, mail_s)
            return self._open(job, done)
        return super()._step()

    def _arrive(self, job: Job, done: Done) -> RoundResult | None:
        """The phone sends its report: what comes of it arrives as mail."""
        deadline_s, at_s = job.assignment.deadline_s, job.arrival_s
        self._now = max(self._now, at_s)
        if self._happens("broken"):
            self._post(at_s, job, Done(self._broken(done.whole)))
        if self._happens("lost"):
            return None
        if self._happens("late"):
            at_s += deadline_s
        elif self._happens("reordered"):
            at_s += 0.1 * deadline_s * self._chance.random()
        self._post(at_s, job, done)
        if self._happens("twice"):
            self._post(at_s + 0.5 * deadline_s * self._chance.random(), job, done)
        return None

    def _open(self, job: Job, done: Done) -> RoundResult | None:
        """A piece of mail reaches the server."""
        counted = self.counted[job.device]
        try:
            closed = self._deliver(job, done)
        except KbdflError:
            closed = None  # the phone is told so, and what it kept it keeps
        if self._asynchronous and self.counted[job.device] > counted and job.device in self._out:
            self._let_go(job.device)
            self._ask_s = self._now
        return self._closed(closed)

    def _crash(self) -> RoundResult | None:
        """The server begins again. Phones do not know: what they send still comes."""
        version = self.coordinator.version
        self._coordinate()
        if self.coordinator.version != version:
            raise InvariantBroken(
                f"version {version} was lost in a crash: now it is {self.coordinator.version}"
            )
        self._flight.clear()
        for name in list(self._out):
            self._let_go(name)
        self._ask_s = self._now
        return None

    def _let_go(self, name: str) -> None:
        """After a jump of the clock a phone may be at work still: it finds out that its time is over."""
        self._flight.drop(name)
        super()._let_go(name)

    def _post(self, at_s: float, job: Job, done: Done) -> None:
        self._sent += 1
        heapq.heappush(self._mail, (at_s, self._sent, job, done))

    def _broken(self, frame: bytes) -> bytes:
        at = int(self._chance.integers(len(frame)))
        if self._chance.random() < 0.3:
            return frame[:at]
        return frame[:at] + bytes([frame[at] ^ 1 << int(self._chance.integers(8))]) + frame[at + 1 :]

    def _happens(self, fault: str) -> bool:
        if self._chance.random() >= getattr(self._chances, fault):
            return False
        self.happened[fault] += 1
        return True
