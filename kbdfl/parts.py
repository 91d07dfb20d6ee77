"""Which phones have a part in the rounds: whose report would count, from which version it began, and until when.

A book is kept for each mode, both with the same pages. `current` is the assignment of the open round, with the
rule's whole deadline; the coordinator gives each phone a seed of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from kbdfl.algorithms.mode import FedBuff, Mode
from kbdfl.assignment import Assignment
from kbdfl.errors import Conflict
from kbdfl.task import RoundRule


class TooStale(Conflict):
    """A report began from a version that is too old by now."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A phone's part: what it was asked for, and since when."""

    assignment: Assignment
    since_s: float


class Parts(Protocol):
    """Who has a part now. `started_s` is when the open round began, by the driver's clock; None = not yet."""

    started_s: float | None

    @property
    def training(self) -> int:
        """Phones whose report is still awaited."""
        ...

    def begin(self, current: Assignment, now: float | None) -> None:
        """A round opens, at `now` if another one has just closed."""

    def give(self, device: str, now: float, *, admit: Callable[[int], bool]) -> Assignment | None:
        """The device's part, new or the one it has, with the time left; None if there is none for it now.

        `admit` says whether a device that has none may have one of so many free places, and is asked only then.
        """
        ...

    def has(self, device: str) -> bool:
        """Whether the device has a part in what is open, or has done it."""
        ...

    def of(self, device: str, number: int) -> Assignment:
        """What the device was asked for in round `number`, if its report would count.

        Raises Conflict; TooStale if the device had a part, and has none any more.
        """
        ...

    def done(self, device: str) -> None:
        """Its report was counted."""

    def over(self, now: float) -> bool:
        """Let go of what has expired; whether the open round has."""
        ...

    def lost(self) -> Sequence[str]:
        """Devices that had a part and have not done it in time, since this was last asked."""
        ...

    def dropped(self, *, last: bool) -> int:
        """Parts that the open round, the `last` one or not, would leave uncounted if it closed now."""
        ...

    def state(self) -> dict[str, Slot]:
        """The parts that outlive a round that has just closed."""
        ...

    def restore(self, state: dict[str, Slot]) -> None:
        """Go on with these, in a round that has just begun."""

    def in_flight(self) -> dict[str, Any]:
        """A copy of all that the open round's reports depend on."""
        ...

    def resume(self, state: dict[str, Any], *, shift_s: float) -> None:
        """Go on with it, in a round that has just begun, by a clock that has moved by `shift_s`."""


def parts(mode: Mode, rule: RoundRule) -> Parts:
    """An empty book."""
    return _Slots(mode, rule) if isinstance(mode, FedBuff) else _Cohort(rule)


class _Cohort:
    """Synchronous: one cohort a round, selected once, with one deadline."""

    def __init__(self, rule: RoundRule) -> None:
        self._deadline_s, self._places = rule.deadline_s, rule.selected
        self._selected: set[str] = set()
        self._reported: set[str] = set()
        self._lost: list[str] = []

    def begin(self, current: Assignment, now: float | None) -> None:
        self._lost += sorted(self._selected - self._reported)
        self._current = current
        self.started_s: float | None = None  # with its first phone
        self._selected, self._reported = set(), set()

    @property
    def training(self) -> int:
        return len(self._selected) - len(self._reported)

    def give(self, device: str, now: float, *, admit: Callable[[int], bool]) -> Assignment | None:
        started_s = now if self.started_s is None else self.started_s
        left_s = self._deadline_s - (now - started_s)
        if device in self._reported or left_s <= 0:
            return None
        free = self._places - len(self._selected)
        if device not in self._selected and not (free > 0 and admit(free)):
            return None
        self.started_s = started_s
        self._selected.add(device)
        return replace(self._current, deadline_s=left_s)

    def has(self, device: str) -> bool:
        return device in self._selected

    def of(self, device: str, number: int) -> Assignment:
        open_ = self._current.round
        if number != open_:
            raise Conflict(f"round {open_} is open, the report is for round {number}")
        if device not in self._selected:
            raise Conflict(f"device {device} was not selected in round {open_}")
        if device in self._reported:
            raise Conflict(f"device {device} has already reported in round {open_}")
        return self._current

    def done(self, device: str) -> None:
        self._reported.add(device)

    def over(self, now: float) -> bool:
        return self.started_s is not None and now - self.started_s >= self._deadline_s

    def lost(self) -> Sequence[str]:
        if not self._lost:
            return ()
        lost, self._lost = self._lost, []
        return lost

    def dropped(self, *, last: bool) -> int:
        return self.training

    def state(self) -> dict[str, Slot]:
        return {}

    def restore(self, state: dict[str, Slot]) -> None:
        pass

    def in_flight(self) -> dict[str, Any]:
        # Names are printable, so each has a line; one text is packed in no time, and thousands are not.
        selected, reported = "\n".join(self._selected), "\n".join(self._reported)
        return {"started_s": self.started_s, "selected": selected, "reported": reported}

    def resume(self, state: dict[str, Any], *, shift_s: float) -> None:
        self.started_s = None if state["started_s"] is None else state["started_s"] + shift_s
        self._selected, self._reported = (
            set(state[name].split("\n")) - {""} for name in ("selected", "reported")
        )


class _Slots:
    """FedBuff: a slot for each phone that trains, whichever version it began from, with a deadline of its own.

    A phone that comes back before it has reported keeps its slot and moves on to the current version, if there is
    a newer one than its own. It is counted for a round's assignment once at most, since a second time it would
    draw the same messages; a part that expired may be taken again.
    """

    def __init__(self, mode: FedBuff, rule: RoundRule) -> None:
        self._mode, self._rule = mode, rule
        self._slots: dict[str, Slot] = {}  # the one that expires first stands first
        self._lost: list[str] = []
        self.started_s: float | None = None

    def begin(self, current: Assignment, now: float | None) -> None:
        self._current, self.started_s = current, now
        self._reported: set[str] = set()  # to the open round's own assignment
        self._dropped = 0

    @property
    def training(self) -> int:
        return len(self._slots)

    def give(self, device: str, now: float, *, admit: Callable[[int], bool]) -> Assignment | None:
        self._expire(now)
        slot = self._slots.get(device)
        if slot is not None and slot.assignment.version == self._current.version:
            return replace(slot.assignment, deadline_s=self._rule.deadline_s - (now - slot.since_s))
        free = self._mode.concurrency - len(self._slots)
        if slot is None and (device in self._reported or free <= 0 or not admit(free)):
            return None
        if self.started_s is None:
            self.started_s = now
        self._slots.pop(device, None)
        self._slots[device] = Slot(self._current, now)
        return self._current

    def has(self, device: str) -> bool:
        return device in self._slots or device in self._reported

    def of(self, device: str, number: int) -> Assignment:
        slot = self._slots.get(device)
        if slot is None:
            raise Conflict(f"device {device} has no assignment, or its deadline is over")
        if slot.assignment.round != number:
            raise Conflict(
                f"device {device} has an assignment of round {slot.assignment.round}, the report is for round {number}"
            )
        staleness, most = self._current.version - slot.assignment.version, self._mode.max_staleness
        if staleness > most:
            self._drop(device)
            raise TooStale(f"staleness must be at most {most}, the report began {staleness} versions ago")
        return slot.assignment

    def done(self, device: str) -> None:
        if self._slots.pop(device).assignment.round == self._current.round:
            self._reported.add(device)

    def over(self, now: float) -> bool:
        self._expire(now)
        return False

    def _expire(self, now: float) -> None:
        while self._slots and now - next(iter(self._slots.values())).since_s >= self._rule.deadline_s:
            self._drop(next(iter(self._slots)))

    def _drop(self, device: str) -> None:
        del self._slots[device]
        self._lost.append(device)
        self._dropped += 1

    def lost(self) -> Sequence[str]:
        if not self._lost:
            return ()
        lost, self._lost = self._lost, []
        return lost

    def dropped(self, *, last: bool) -> int:
        return self._dropped + (len(self._slots) if last else 0)

    def state(self) -> dict[str, Slot]:
        return self._slots

    def restore(self, state: dict[str, Slot]) -> None:
        self._slots = state

    def in_flight(self) -> dict[str, Any]:
        slots, reported = dict(self._slots), set(self._reported)
        return {"started_s": self.started_s, "slots": slots, "reported": reported, "dropped": self._dropped}

    def resume(self, state: dict[str, Any], *, shift_s: float) -> None:
        self.started_s = None if state["started_s"] is None else state["started_s"] + shift_s
        self._slots = {
            device: replace(slot, since_s=slot.since_s + shift_s) for device, slot in state["slots"].items()
        }
        self._reported, self._dropped = state["reported"], state["dropped"]
