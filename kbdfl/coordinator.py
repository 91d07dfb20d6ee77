"""The life of a round as one pure state machine: check_in, report, tick.

Bonawitz et al. 2019, "Towards federated learning at scale", arXiv 1902.01046: phones check in, the first `cohort *
over_selection` are selected, the round commits once `cohort` of them have reported, or at its deadline if at least
`min_reports` have, and is abandoned otherwise, which leaves the model untouched. A round whose model would not be
finite is abandoned too.

The deadline takes effect at the first `tick` after it: until then a late report still counts, but no phone is selected
any more. A report that has been counted is known again for as long as one as stale would count.

Asynchronous rounds (FedBuff: Nguyen et al. 2021, arXiv 2106.06639) go through the same three calls. A round is then the
buffer that the next `cohort` reports fill, whichever version they began from; it has no deadline, each phone has one of
its own. `kbdfl.parts` knows in both modes whose report would count.

There is no I/O here. The clock comes in as `now`, randomness as a generator, durability as a `Store`; the server drives
a coordinator with a real clock and SQLite, the simulator drives the very same class with a virtual clock and memory. It
is not thread-safe: its driver holds a lock.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from kbdfl.algorithms import ClientRule
from kbdfl.algorithms.aggregate import RunningSum
from kbdfl.algorithms.mode import FedBuff
from kbdfl.algorithms.noised import Noised
from kbdfl.algorithms.oort import statistical_utility
from kbdfl.algorithms.roster import Roster, Tier
from kbdfl.algorithms.scaffold import CONTROL_STATE, ServerControl
from kbdfl.algorithms.selector import Selector
from kbdfl.algorithms.server import State
from kbdfl.assignment import Assignment
from kbdfl.codec.grid import Grid
from kbdfl.downlink import Downlink
from kbdfl.errors import Conflict, ModelError, NotFound, TooLarge, WireError
from kbdfl.model import CifgConfig
from kbdfl.params import digest
from kbdfl.parts import Slot, TooStale, parts
from kbdfl.rng import seed_of
from kbdfl.rounds import (
    Finished,
    MaybeCentral,
    Receipt,
    RoundResult,
    Saved,
    Store,
    Summed,
    Wait,
    check_books,
    check_report,
    check_state,
    control_change,
    open_round,
    read_report,
    together,
)
from kbdfl.task import Task
from kbdfl.wire import Report

Model = tuple[np.ndarray, State]  # parameters float32 (P,), and the rule's state
# Of the objects in `Coordinator.state`.
STATE_CLASSES = (Saved, Roster, Tier, Slot, Assignment, ClientRule, CifgConfig, Grid)


class Coordinator:
    """One task's rounds. `params` is the current model, float32 (P,), read-only; `round` the one in flight.

    `published` is what phones have of it, float32 (P,), `downlink` how it gets there, `privacy` what makes its noise.
    """

    def __init__(
        self, task: Task, params: np.ndarray, *, store: Store, random: Generator, privacy: MaybeCentral = None
    ) -> None:
        self.task, self._store, self._random, self.privacy = task, store, random, check_books(task, privacy)
        pace_s, deadline_s = task.rule.pace_s, task.rule.deadline_s
        self._selector = Selector(
            task.algorithm.selection, pace_s=pace_s, deadline_s=deadline_s, random=random
        )
        self.downlink = Downlink(task.algorithm.download, task.config.spec)
        # What others who serve the task with us have summed of the open round; asked for as it is closed.
        self.elsewhere: Callable[[], Iterable[dict[str, Any]]] = tuple
        self.dropped_last = 0
        self.follow(store.load() or Saved(-1, 0, np.asarray(params, np.float32), self._fresh_state()))

    def _fresh_state(self) -> State:
        size, algorithm = self.task.config.spec.size, self.task.algorithm
        return algorithm.server.init(size) | (ServerControl.begin(size) if algorithm.client.scaffold else {})

    def follow(self, saved: Saved) -> None:
        """Begin the round after `saved`, which an earlier process has closed, or another one that serves the task."""
        task, mode = self.task, self.task.algorithm.mode
        size, params = task.config.spec.size, np.asarray(saved.params, np.float32)
        if params.shape != (size,):
            raise ModelError(f"the task's model has {size} parameters, got {params.size}")
        check_state(saved.server_state, self._fresh_state())
        self.round, self.version = saved.round + 1, saved.version
        self._server_state = dict(saved.server_state)
        self._parts = parts(mode, task.rule)
        # What earlier rounds counted, the last one first.
        self._before: deque[set[tuple[str, bytes]]] = deque(maxlen=mode.max_staleness + 1)
        self._before.extend(saved.counted[: self._before.maxlen])
        self._set_params(params.copy())
        self._set_control()
        self._open_round(None)

    @property
    def phase(self) -> str:
        """`open` while rounds are left, and the privacy budget is not spent, then `finished`."""
        left = self.round < self.task.rule.rounds and (self.privacy is None or self.privacy.open)
        return "open" if left else "finished"

    @property
    def reports(self) -> int:
        """Reports counted in the round in flight."""
        return len(self._now.counted)

    @property
    def control(self) -> np.ndarray | None:
        """SCAFFOLD's c beside `params`, float32 (P,), read-only; None without SCAFFOLD."""
        return None if self._control is None else self._control.mean

    def check_in(
        self, device: str, now: float, *, tier: str = "", again: bool = False
    ) -> Assignment | Wait | Finished:
        """A phone offers itself. One that is already selected gets the same assignment again, with the time left.

        In an asynchronous task it gets one of the current version instead, once that is newer. `tier` is what the phone
        calls its kind of hardware; the task's selection may look at it. What was only sent `again` selects nobody.
        """
        if self.phase == "finished":
            return Finished()
        self._expire(now)
        selector, number = self._selector, self.round
        selector.seen(device, now, tier=tier)
        barred = again or (self.privacy is not None and not self.privacy.may(device))
        assignment = self._parts.give(
            device,
            now,
            admit=lambda free: not barred and selector.admit(device, now, round=number, free=free),
        )
        if assignment is None:
            if not self._parts.has(device):
                self._now.waiting.add(device)
            return Wait(self.task.rule.pace_s * (0.5 + self._random.random()))  # not all at the same moment
        self._now.waiting.discard(device)
        return self._own(assignment, device)

    def part(self, number: int) -> bytes:
        """The frame with what the phones of round `number`, the one in flight, need of the model.

        Raises NotFound for another round, or where phones need all of it.
        """
        if number != self.round or not self.task.algorithm.client.partial_model:
            raise NotFound(f"round {self.round} is open, and no part of a model is served for round {number}")
        return self.downlink.part(self._coordinates)

    def downloaded(self, nbytes: int) -> None:
        """The driver sent `nbytes` of model to a phone."""
        self._now.downlink_bytes += nbytes

    def report(self, device: str, frame: bytes | Summed, now: float, *, number: int | None = None) -> Receipt:
        """Count a phone's report exactly once; `number` is the round that its address names, if it has one.

        The same bytes again are acknowledged and not counted again. Raises TooLarge, WireError or ModelError for
        a frame that cannot be read, is not finite or was trained on something else, Conflict for another round, a
        phone that was not selected or a second, different report; none of these changes anything, but that the
        round's result says of how many selected phones a report was refused. With TooStale, a Conflict, the phone
        loses its assignment. The update of one that is `Summed` comes with `merge`.
        """
        selected = self._parts.has(device)
        try:
            return self._count(device, frame, now, number)
        except (TooLarge, WireError, ModelError, TooStale):
            if selected:
                self._now.refused.add(device)
            raise

    def merge(self, total: RunningSum, *, whole: bool = False) -> None:
        """Add the updates of reports that are `Summed`, before the last of them is counted, which closes the round if
        they are the `whole` of it."""
        self._now.sum.merge(total)
        self._now.awaited -= total.count
        self._now.whole = total.count if whole else 0

    def _count(self, device: str, frame: bytes | Summed, now: float, number: int | None) -> Receipt:
        if len(frame) > self.task.max_report_bytes:
            raise TooLarge(f"a report must be at most {self.task.max_report_bytes} bytes, got {len(frame)}")
        fingerprint = device, frame.sha256 if isinstance(frame, Summed) else hashlib.sha256(frame).digest()
        for age, counted in enumerate((self._now.counted, *self._before)):
            if fingerprint in counted:
                return Receipt(self.round - age, True, None)
        report = frame.report if isinstance(frame, Summed) else read_report(frame, self.task)
        if number is not None and number != report.round:
            raise Conflict(f"the address names round {number}, the report round {report.round}")
        assignment = self._check(device, report)
        staleness = self.version - assignment.version
        weight = self.task.algorithm.weight(report.examples)
        change = control_change(report, assignment, self.task)
        scale = self.task.algorithm.mode.scale(staleness)
        if isinstance(frame, Summed):
            self._now.await_sum(staleness)
        else:
            self._now.gathered.add(device, report.update, assignment.draws, weight=weight, scale=scale)
        if change is not None and self._control is not None:
            self._control.add(change, weight=weight, first=report.first_control)
        self._parts.done(device)
        examples = min(report.examples, self.task.algorithm.max_weight)
        utility = statistical_utility(examples, report.train_loss)
        self._selector.counted(device, now, round=self.round, utility=utility)
        self._now.count(fingerprint, report, staleness=staleness, nbytes=len(frame))
        counted_in = self.round
        return Receipt(counted_in, False, self.close(now) if self._full else None)

    def tick(self, now: float) -> RoundResult | None:
        """Time passes: deadlines take effect, and the round in flight is closed if it has one that is over.

        A full round that the store could not keep is tried again.
        """
        if self.phase == "finished":
            return None
        over = self._expire(now)
        return self.close(now) if over or self._full else None

    def device_states(self) -> dict[str, int]:
        """How many phones are training, have reported, were told to wait, and dropped out of the last round."""
        return {
            "training": self._parts.training if self.phase == "open" else 0,
            "reported": self.reports,
            "waiting": len(self._now.waiting),
            "dropped": self.dropped_last,
        }

    def state(self) -> dict[str, Any]:
        """All that the rounds to come depend on, between two rounds: for `kbdfl.snapshot`, with STATE_CLASSES."""
        return {
            "saved": Saved(self.round - 1, self.version, self.params, self._server_state),
            "before": self._before,
            "dropped_last": self.dropped_last,
            "slots": self._parts.state(),
            "selector": self._selector.state(),
            "downlink": self.downlink.state(),
            # Of abandoned rounds too: the phones have renewed theirs.
            "control": (self._control.change, self._control.joined) if self._control else None,
            "random": self._random.bit_generator.state,
        }

    def restore(self, state: dict[str, Any], now: float | None) -> None:
        """Go on from `state` on a coordinator that began with its `saved`; `now` is when it was taken."""
        self._before = state["before"]
        self.dropped_last = state["dropped_last"]
        self._selector.restore(state["selector"])
        self.downlink.restore(state["downlink"])
        self._open_round(now)
        self._parts.restore(state["slots"])
        if self._control is not None:
            self._control.change, self._control.joined = state["control"]
        self._random.bit_generator.state = state["random"]

    def in_flight(self) -> dict[str, Any] | None:
        """What a crash must not lose of the open round, for `kbdfl.snapshot` with STATE_CLASSES; of a robust aggregate
        None, for it needs the updates one by one, and those are nobody's to keep."""
        if not isinstance(self._now.gathered, RunningSum | Noised):
            return None
        control = self._control and (self._control.change.copy(), self._control.joined)
        parts, open_ = self._parts.in_flight(), self._now.state()
        return {"round": self.round, "parts": parts, "open": open_, "control": control}

    def resume(self, state: dict[str, Any], *, shift_s: float) -> None:
        """Go on with an open round where `in_flight` was taken; the clock has moved by `shift_s`."""
        self._parts.resume(state["parts"], shift_s=shift_s)
        self._now.restore(state["open"])
        if self._control is not None:
            self._control.change, self._control.joined = state["control"]

    def shared(self) -> dict[str, Any]:
        """Of `in_flight` what all must know who serve the task together, and what the selection remembers."""
        parts, open_ = self._parts.in_flight(), self._now.known()
        return {"parts": parts, "open": open_, "selector": self._selector.state()}

    def share(self, state: dict[str, Any]) -> None:
        """Take over what another one's `shared` gave of the same round, by the same clock."""
        self._parts.resume(state["parts"], shift_s=0.0)
        self._now.know(state["open"])
        self._selector.restore(state["selector"])

    def sums(self) -> dict[str, Any]:
        """The rest of `in_flight`, which each of them keeps for itself."""
        control = self._control and (self._control.change, self._control.joined)
        return {"open": self._now.sums(), "control": control}

    @property
    def selection_remembers(self) -> bool:
        """Whether every check-in changes what is `shared`."""
        return self._selector.remembers

    @property
    def _full(self) -> bool:
        return self.reports >= (self._now.whole or self.task.rule.cohort)

    def _check(self, device: str, report: Report) -> Assignment:
        """What the device was asked for, if the report is an answer to it; raises what `report` raises."""
        if report.task != self.task.name:
            raise Conflict(f"this server's task is {self.task.name}, the report is for {report.task}"[:200])
        if report.device != device:
            raise Conflict("the report names another device than the one that sent it")
        if self.phase == "finished":
            rounds = self.task.rule.rounds
            raise Conflict(
                f"all {rounds} rounds are over" if self.round == rounds else "the privacy budget is spent"
            )
        assignment = self._own(self._parts.of(device, report.round), device)
        scaffold = self._control is not None
        check_report(report, assignment, self.task, spec_hash=self._coordinates.hash, scaffold=scaffold)
        return assignment

    def close(self, now: float, instead: Model | None = None) -> RoundResult:
        """End the round in flight. With `instead`, parameters and the rule's state, these are the next version."""
        with together(self._now, self._control, self.elsewhere):
            closed, params, state = self._closed(now, instead)
            # Durable first: what follows cannot fail.
            self._store.save(closed, params, state, counted=self._now.counted)
        self._now.settle()
        self._before.appendleft(self._now.counted)
        self.dropped_last = closed.dropped
        self.round, self._server_state, changed = self.round + 1, state, closed.version != self.version
        self.version = closed.version
        if changed:
            self._set_params(params)
            self._set_control()
        if instead:
            self._parts = parts(self.task.algorithm.mode, self.task.rule)
        self._open_round(now)
        self._note_lost(now)
        self._selector.closed(now)
        return closed

    def _closed(self, now: float, instead: Model | None) -> tuple[RoundResult, np.ndarray, State]:
        """How the round in flight ends, and the parameters and the rule's state after it."""
        after, committed = instead, False
        if after is None and self.reports >= self.task.rule.enough:
            # Absurd updates that are legal one by one may still leave float32; the phones would refuse the model.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                after = self._after(self._now.gathered.mean())
            committed = all(np.isfinite(array).all() for array in (after[0], *after[1].values()))
        result = self._now.result(
            round=self.round,
            status="committed" if committed else "abandoned",
            version=self.version + bool(committed or instead),
            dropped=self._parts.dropped(last=self.round + 1 == self.task.rule.rounds),
            started_s=now if self._parts.started_s is None else self._parts.started_s,
            ended_s=now,
            asynchronous=isinstance(self.task.algorithm.mode, FedBuff),
        )
        return result, *(after if after and (committed or instead) else (self.params, self._server_state))

    def _after(self, mean_delta: np.ndarray) -> tuple[np.ndarray, State]:
        """The model and the server's state after the round."""
        rule, state = self.task.algorithm.server, self._server_state
        of_rule = {name: values for name, values in state.items() if name not in CONTROL_STATE}
        after, of_rule = self._coordinates.applied(rule, self.params, mean_delta, of_rule, round=self.version)
        return after, of_rule | ({} if self._control is None else self._control.renew())

    def _expire(self, now: float) -> bool:
        """Let go of what has expired; whether the open round has."""
        over = self._parts.over(now)
        self._note_lost(now)
        return over

    def _note_lost(self, now: float) -> None:
        for device in self._parts.lost():
            self._selector.missed(device, now)

    def _set_params(self, params: np.ndarray) -> None:
        params.setflags(write=False)
        self.params = params
        self.published = self.downlink.publish(self.version, params)
        self._sha256 = digest(self.published)

    def _own(self, assignment: Assignment, device: str) -> Assignment:
        """A round's assignment with the device's own seed."""
        return replace(assignment, seed=seed_of(self.task.seed, "round", assignment.round, "device", device))

    def _set_control(self) -> None:
        scaffold = self.task.algorithm.client.scaffold
        self._control = ServerControl.of_state(self._server_state) if scaffold else None

    def _open_round(self, now: float | None) -> None:
        assignment = Assignment.of_round(
            self.task, self.round, version=self.version, published=self.published, sha256=self._sha256
        )
        self._coordinates = assignment.coordinates
        assignment, self._now = open_round(self.task, assignment, self.privacy)
        self._parts.begin(assignment, now)
