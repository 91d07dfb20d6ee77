"""The event queue of check-ins: every one of every phone, in order of time, made as the clock comes to it.

A phone asleep takes no memory: whose window opens today is worked out day by day (`device_sim.hours`), 24 bytes a
phone for a day's queue. One that was told to wait takes another 24 until it has come again or its window is over.

The queue is a calendar (Brown 1988, "Calendar queues", CACM 31(10)): check-ins fall into buckets, and a bucket is
sorted once, when the clock comes to it.
"""

import heapq
from array import array
from collections.abc import Iterable, Iterator
from math import inf
from typing import Any, NamedTuple

import numpy as np

from kbdfl.device_sim.devices import DAY_S
from kbdfl.device_sim.hours import EARLY_S, Hours, tiers, uniforms

BUCKET_S = 300.0
FIRST_S = 600.0  # within so many seconds from the opening of its window a phone comes for the first time
_BATCH = 1 << 17  # phones whose windows are worked out at once

_PLAIN = ("_soon", "_now", "_at", "_days")
# When, which phone, until when it is free, and the number of its tier.
CheckIn = tuple[float, int, float, int]


class _Columns(NamedTuple):
    """When phones check in, float64 (n,), which ones, int64 (n,), and until when they are free, float64 (n,)."""

    times: np.ndarray
    phones: np.ndarray
    closes: np.ndarray

    @classmethod
    def joined(cls, parts: Iterable["_Columns"]) -> "_Columns":
        """Those of all `parts`, one after another."""
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def at(self, rows: np.ndarray | slice) -> "_Columns":
        """Some of them."""
        return _Columns(self.times[rows], self.phones[rows], self.closes[rows])

    @property
    def order(self) -> np.ndarray:
        """Rows by time, at one time by phone, int64 (n,)."""
        return np.lexsort((self.phones, self.times))


class _Bucket:
    """Phones that come again, in columns that grow."""

    __slots__ = ("closes", "phones", "times")

    def __init__(
        self, times: Iterable[float] = (), phones: Iterable[int] = (), closes: Iterable[float] = ()
    ) -> None:
        self.times, self.phones, self.closes = array("d", times), array("q", phones), array("d", closes)

    def columns(self) -> _Columns:
        """The same memory; the bucket grows no more."""
        return _Columns(
            np.frombuffer(self.times, "f8"),
            np.frombuffer(self.phones, "i8"),
            np.frombuffer(self.closes, "f8"),
        )


class CheckIns:
    """The check-ins of phones 0 to `count` - 1."""

    def __init__(self, hours: Hours, count: int, *, seed: int) -> None:
        self._hours, self._count, self._seed = hours, count, seed
        self._again: dict[int, _Bucket] = {}
        self._soon: list[CheckIn] = []  # of the bucket that the clock is in, a heap
        self._now: list[CheckIn] = []  # its sorted part, the first one last
        self._at = -1  # the number of that bucket
        self._days = -1  # the next day whose windows are not in `_opening` yet
        self._opening = _Columns(*(np.zeros(0, kind) for kind in ("f8", "i8", "f8")))

    @property
    def next_s(self) -> float:
        """When the next phone checks in; infinite if none ever does."""
        return self._peek()

    def due(self, until_s: float) -> Iterator[CheckIn]:
        """Those until `until_s`, in order; a caller may leave off and ask again."""
        while self._peek() <= until_s:
            now, soon = self._now, self._soon
            if soon:
                yield heapq.heappop(soon) if not now or soon[0] < now[-1] else now.pop()
                continue
            while now and now[-1][0] <= until_s and not soon:
                yield now.pop()

    def again(self, phone: int, at_s: float, closes_s: float, tier: int) -> None:
        """The phone comes back at `at_s`, if it is still free then; if not, when its next window opens."""
        if at_s >= closes_s:
            return
        number = int(at_s // BUCKET_S)
        if number <= self._at:
            heapq.heappush(self._soon, (at_s, phone, closes_s, tier))
            return
        bucket = self._again.get(number)
        if bucket is None:
            bucket = self._again[number] = _Bucket()
        bucket.times.append(at_s)
        bucket.phones.append(phone)
        bucket.closes.append(closes_s)

    def state(self) -> dict[str, Any]:
        """What is in the queue, for a snapshot."""
        again = {
            number: [np.array(each) for each in (bucket.times, bucket.phones, bucket.closes)]
            for number, bucket in self._again.items()
        }
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {"again": again, "opening": list(self._opening)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        for name in _PLAIN:
            setattr(self, name, state[name])
        self._opening = _Columns(*state["opening"])
        self._again = {
            number: _Bucket(*(column.tolist() for column in columns))
            for number, columns in state["again"].items()
        }

    def _peek(self) -> float:
        while not self._now and not self._soon:
            if not self._turn():
                return inf
        first = self._soon[0][0] if self._soon else inf
        return min(first, self._now[-1][0]) if self._now else first

    def _turn(self) -> bool:
        """Go to the next bucket; False if no phone has had a window for a week and none waits."""
        quiet_until = self._days + 8
        while not self._again and not len(self._opening.times):
            if self._days >= quiet_until:
                return False
            self._open_day()
        self._at = max(self._at + 1, self._next_bucket())
        end_s = (self._at + 1) * BUCKET_S
        while self._days * DAY_S - EARLY_S < end_s:
            self._open_day()
        fresh = int(np.searchsorted(self._opening.times, end_s, side="left"))
        columns, self._opening = self._opening.at(slice(fresh)), self._opening.at(slice(fresh, None))
        again = self._again.pop(self._at, None)
        if again is not None:
            columns = _Columns.joined((columns, again.columns()))
        times, phones, closes = columns.at(columns.order[::-1])
        kinds = tiers(self._seed, phones)
        self._now = list(zip(times.tolist(), phones.tolist(), closes.tolist(), kinds.tolist(), strict=True))
        return True

    def _next_bucket(self) -> int:
        """The first bucket that holds a check-in; a day that is not worked out yet may hold earlier ones."""
        known = [min(self._again)] if self._again else []
        if len(self._opening.times):
            known.append(int(self._opening.times[0] // BUCKET_S))
        return min(*known, int((self._days * DAY_S - EARLY_S) // BUCKET_S)) if known else self._at + 1

    def _open_day(self) -> None:
        """Work out the windows of the next day, and who comes when for the first time in them."""
        day, parts = self._days, [self._opening]
        for start in range(0, self._count, _BATCH):
            several = np.arange(start, min(start + _BATCH, self._count))
            phones, opens, closes = self._hours.windows(day, several)
            first = np.maximum(opens, 0.0) + FIRST_S * uniforms(self._seed, "first", day, phones=phones)
            comes = first < closes
            parts.append(_Columns(first, phones, closes).at(comes))
        columns = _Columns.joined(parts)
        self._opening = columns.at(columns.order)
        self._days += 1
