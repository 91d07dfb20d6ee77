"""Turns: several processes serve one task, one at a time, and each goes on from what the one before has left.

To have the turn is to hold a lock of the task in PostgreSQL, in a transaction. Who takes it compares the revision of
the open round with the last one that it knows, and reads what is new: small things, who has a part and who was counted.
The sums stay with each process, which keeps its own in a row of its own; they are exact, so whoever closes the round
adds them all up and gets the same bits as one process that had counted everything. One that was killed leaves its row.

A turn in which something has changed goes on for all threads of its process until a report waits and nobody else comes,
or LAZY_S, and ends with one commit: many reports share it. Where nothing has changed it ends at once, and where a round
was closed too. If anything fails, the whole turn is undone, its reports are not acknowledged, and the process begins
anew, under another name, from what is in the database.

Times are by the database's clock, which is the same for all.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, Self

from kbdfl.coordinator import STATE_CLASSES, Coordinator
from kbdfl.errors import ConfigError, KbdflError, ServerUnavailable
from kbdfl.rounds import Saved
from kbdfl.server.postgres.link import Link, turn_of
from kbdfl.snapshot import pack, unpack

log = logging.getLogger(__name__)

LAZY_S = 0.02  # until what nobody waits for is kept
GATHER_S = 0.05  # that those who come meanwhile may take
LONGEST_S = 0.1  # then the next thread ends the turn
PATIENCE_S = 30.0  # that a report waits for

_BEGIN = """
BEGIN;
SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 1));
SELECT turn.revision, turn.round, turn.version, newest.round, newest.version,
    extract(epoch FROM clock_timestamp())::float8
FROM turn LEFT JOIN LATERAL (SELECT round, version FROM rounds ORDER BY round DESC LIMIT 1) AS newest ON true
"""


class Store(Protocol):
    """What a turn needs of a store; `turn_link` is asked in the turn."""

    turn_link: Link

    def load(self, *, known: int) -> Saved | None: ...

    def shared_state(self) -> bytes | None: ...

    def keep_shared(self, revision: int, number: int, version: int, state: bytes) -> bool: ...

    def sums(self, number: int, version: int, *, but: str) -> Iterable[bytes]: ...

    def keep_sums(self, number: int, version: int, process: str, content: bytes) -> None: ...


class _Outcome:
    """What became of a turn in which something has changed."""

    __slots__ = ("kept", "over")

    def __init__(self) -> None:
        self.over, self.kept = threading.Event(), False


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last revision that a process knows, and the closed round and version that its coordinator went on from."""

    revision: int
    base: tuple[int, int]


def _check_shareable(coordinator: Coordinator) -> None:
    """Raise ConfigError for a task that one process alone can serve."""
    algorithm = coordinator.task.algorithm
    if coordinator.privacy is not None:
        raise ConfigError("privacy must be none in PostgreSQL: one process alone keeps its ledger")
    if algorithm.secure.on:
        raise ConfigError(
            "secure aggregation must be off in PostgreSQL: one process alone sees its rounds through"
        )
    if coordinator.in_flight() is None:
        raise ConfigError(
            f"aggregate must be a mean in PostgreSQL, got {algorithm.aggregate}, which needs the updates one by one"
        )


class SharedTurn:
    """See `kbdfl.server.turns.Turn`. Raises ConfigError for a task that cannot be shared."""

    def __init__(self, store: Store, coordinator: Coordinator) -> None:
        _check_shareable(coordinator)
        self.local = threading.RLock()
        self._store, self._link, self._coordinator = store, store.turn_link, coordinator
        self._initial: Saved = coordinator.state()["saved"]  # to go back to while no round is closed
        coordinator.elsewhere = self._elsewhere
        self._known = coordinator.task.algorithm.mode.max_staleness + 1  # rounds
        self._counting, self._coming = threading.Lock(), 0  # threads that want to be in the turn
        self._depth, self._here = 0, ExitStack()
        self._open = False  # the transaction, which may outlast a thread's turn
        self._outcome: _Outcome | None = None  # once something has changed in it
        self._jobs: list[Callable[[], None]] = []
        self._closed = self._summed = False  # in this turn
        self._downloaded = 0  # bytes, not counted yet
        self._failed = False
        self._changed, self._awaited = threading.Event(), threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="kbdfl-turn", daemon=True)
        self._clock = (0.0, 0.0)  # the database's, and when it said so
        self._followed: Callable[[int], None] = lambda before: None
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Nothing that this process had summed is its own any more: what is in the database counts, and no more."""
        self._process = secrets.token_hex(8)
        self._seen: _Seen | None = None  # until a turn has begun

    # what a service does

    @property
    def healthy(self) -> bool:
        return not self._failed

    def now(self) -> float:
        theirs, ours = self._clock
        return theirs + time.monotonic() - ours

    def start(self, followed: Callable[[int], None]) -> None:
        with self:
            self._followed = followed
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._changed.set()
        self._awaited.set()
        if self._thread.is_alive():
            self._thread.join()
        with self.local:
            if self._open:
                self._finish()

    def __enter__(self) -> Self:
        with self._counting:
            self._coming += 1
        self.local.acquire()
        with self._counting:
            self._coming -= 1
        try:
            if self._depth == 0:
                if self._open and self.now() - self._began_s > LONGEST_S:
                    self._finish()
                if not self._open:
                    self._begin()
                self._here.enter_context(turn_of(self._link))
            self._depth += 1
        except BaseException:
            self.local.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            self._depth -= 1
            if self._depth:
                return
            self._here.close()
            if not self._link.whole or not (error is None or isinstance(error, KbdflError)):
                self._fail()
                if error is None:
                    raise ServerUnavailable("the turn was lost; send it again")
            elif (self._closed or self._outcome is None) and not self._finish():
                raise ServerUnavailable("the round could not be closed; send it again")
        finally:
            self.local.release()

    def changed(self, *, awaited: bool = True, closed: bool = False) -> _Outcome:
        if self._outcome is None:
            self._outcome = _Outcome()
        self._summed |= awaited  # a report was counted, or a round closed
        self._closed |= closed
        self._changed.set()
        if awaited:
            self._awaited.set()
        return self._outcome

    @property
    def newest(self) -> _Outcome | None:
        if self._outcome is not None:
            self._awaited.set()
        return self._outcome

    def wait(self, change: _Outcome | None) -> None:
        if change is None:
            return  # what was seen in the turn was durable
        change.over.wait(PATIENCE_S)
        if not change.kept:
            raise ServerUnavailable("the report could not be made durable; send it again")

    def after(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)

    def downloaded(self, nbytes: int) -> None:
        with self.local:
            self._downloaded += nbytes

    # how it is done; whoever calls these has the local lock

    def _begin(self) -> None:
        try:
            with turn_of(self._link):
                rows = self._link.script(_BEGIN)
                revision, number, version, newest, newest_version, clock_s = rows[0]
                self._clock, self._began_s = (clock_s, time.monotonic()), clock_s
                self._open = self._link.held = True
                base = (-1, 0) if newest is None else (newest, newest_version)
                self._refresh(_Seen(revision, base), (number, version))
        except BaseException:
            self._fail()
            raise
        if self._downloaded:
            self._coordinator.downloaded(self._downloaded)
            self._downloaded = 0
            self.changed(awaited=False)

    def _refresh(self, found: _Seen, of: tuple[int, int]) -> None:
        """Let the coordinator know what others have done; `of` are the round and the version that they are at."""
        coordinator, seen = self._coordinator, self._seen
        if seen is not None and seen.revision == found.revision:
            return
        before = coordinator.round
        moved = seen is None or seen.base != found.base
        if moved:
            coordinator.follow(self._store.load(known=self._known) or self._initial)
        if of == (coordinator.round, coordinator.version):
            state = self._store.shared_state()
            if state is not None:
                coordinator.share(unpack(state, classes=STATE_CLASSES))
        self._seen = found
        if moved and seen is not None:
            self._followed(before)

    def _finish(self) -> bool:
        """End the turn, with a commit if something has changed in it; whether that is durable."""
        if self._outcome is None:
            self._open = self._failed = False
            self._link.abandon()
            return True
        coordinator, seen = self._coordinator, self._seen
        try:
            with turn_of(self._link):
                state = pack(coordinator.shared(), classes=STATE_CLASSES)
                at = (coordinator.round, coordinator.version)
                if seen is None or not self._store.keep_shared(seen.revision, *at, state):
                    raise ServerUnavailable("another process had the turn at the same time")
                if self._summed and (not self._closed or coordinator.control is not None):
                    sums = pack(coordinator.sums(), classes=STATE_CLASSES)
                    self._store.keep_sums(*at, self._process, sums)
                self._link.rows("COMMIT")
                self._link.held = False
        except Exception as error:
            log.error("the turn could not be kept: %s", error)
            self._fail()
            return False
        outcome, jobs = self._outcome, self._jobs
        base = seen.base
        if coordinator.round != base[0] + 1:  # this process has closed one
            base = (coordinator.round - 1, coordinator.version)
        self._seen = _Seen(seen.revision + 1, base)
        self._over()
        self._failed = False
        outcome.kept = True
        outcome.over.set()
        for job in jobs:
            job()
        return True

    def _fail(self) -> None:
        """Undo the turn; the next one begins with what is in the database."""
        outcome = self._outcome
        self._link.abandon()
        self._over()
        self._begin_anew()
        self._failed = True
        if outcome is not None:
            outcome.over.set()

    def _over(self) -> None:
        self._open, self._outcome, self._jobs = False, None, []
        self._closed = self._summed = False
        if not self._closing:
            self._changed.clear()
            self._awaited.clear()

    def _elsewhere(self) -> Iterable[dict[str, Any]]:
        at = self._coordinator.round, self._coordinator.version
        for content in self._store.sums(*at, but=self._process):
            yield unpack(content, classes=STATE_CLASSES)

    def _run(self) -> None:
        while not self._closing:
            self._changed.wait()
            self._awaited.wait(LAZY_S)
            until = time.monotonic() + GATHER_S
            while self._coming and time.monotonic() < until:
                time.sleep(0.001)  # what they change shares the commit
            with self.local:
                if self._open and self._depth == 0:
                    self._finish()
