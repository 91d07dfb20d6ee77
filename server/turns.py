"""The turn of one process, which is always its own: a lock around the coordinator, and a journal of its open round.

A turn is what a service holds while it asks the coordinator. Where several processes serve one task there is another
kind (`kbdfl.server.postgres.turn`), which looks the same from outside.
"""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from kbdfl.coordinator import STATE_CLASSES, Coordinator
from kbdfl.errors import DataError, ModelError
from kbdfl.server.journal import Journal
from kbdfl.snapshot import pack, unpack

log = logging.getLogger(__name__)

IN_FLIGHT_FORMAT = 2  # of what a crash leaves of the open round


class Turn(Protocol):
    """What a service holds while it asks the coordinator, and what makes durable what came of it; reentrant.

    `local` is the process' own lock, enough to read what is known here. `healthy` says whether reports can be made
    durable now. To begin a turn may raise ServerUnavailable.
    """

    local: threading.RLock

    @property
    def healthy(self) -> bool: ...

    def now(self) -> float:
        """The coordinator's clock, in seconds."""
        ...

    def start(self, followed: Callable[[int], None]) -> None:
        """Go on with the open round that is kept. `followed` is told, in a turn, of a round that others closed."""

    def close(self) -> None:
        """Keep what has changed, if that is possible, and stop."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def changed(self, *, awaited: bool = True, closed: bool = False) -> Any:
        """In a turn: the open round has changed, or was `closed` or something else that must be durable at once.

        What to `wait` for, if anybody does.
        """
        ...

    @property
    def newest(self) -> Any:
        """In a turn: the last change, to `wait` for."""
        ...

    def wait(self, change: Any) -> None:
        """Return once `change` is durable. Raises ServerUnavailable if it cannot be made so now."""

    def after(self, job: Callable[[], None]) -> None:
        """In a turn: do `job` once what the turn has changed is durable."""

    def downloaded(self, nbytes: int) -> None:
        """So many bytes of model were sent to a phone."""


class Store(Protocol):
    """What a turn of one process needs of a store."""

    def keep_in_flight(self, number: int, content: bytes, saved_s: float) -> None: ...

    def in_flight(self) -> tuple[bytes, float] | None: ...

    @property
    def damage(self) -> str | None: ...


class LocalTurn:
    """See `Turn`. `clock` is a monotonic one, `wall_clock` gives seconds since 1970, which go on between processes."""

    def __init__(
        self,
        store: Store,
        coordinator: Coordinator,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self.local = threading.RLock()
        self._store, self._coordinator = store, coordinator
        self.now, self._wall_clock = clock, wall_clock
        self.journal = Journal(self._take, self._keep)

    @property
    def healthy(self) -> bool:
        return self.journal.healthy

    def start(self, followed: Callable[[int], None]) -> None:
        self._resume()
        self.journal.start()

    def close(self) -> None:
        self.journal.close()

    def __enter__(self) -> Self:
        self.local.acquire()
        return self

    def __exit__(self, *_: Any) -> None:
        self.local.release()

    def changed(self, *, awaited: bool = True, closed: bool = False) -> int:
        change = self.journal.changed(awaited=awaited)
        return 0 if closed else change  # a closed round is durable already

    @property
    def newest(self) -> int:
        return self.journal.newest

    def wait(self, change: int) -> None:
        if change:
            self.journal.wait(change)

    def after(self, job: Callable[[], None]) -> None:
        job()

    def downloaded(self, nbytes: int) -> None:
        with self.local:
            self._coordinator.downloaded(nbytes)

    def _take(self) -> dict[str, Any] | None:
        with self.local:
            state = self._coordinator.in_flight()
            of = {
                "format": IN_FLIGHT_FORMAT,
                "clock_s": self.now(),
                "version": self._coordinator.version,
            }
            return state and state | of

    def _keep(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            content = pack(state, classes=STATE_CLASSES)
            self._store.keep_in_flight(state["round"], content, self._wall_clock())

    def _resume(self) -> None:
        """Go on with the round that a former server had open; the time in between has passed for its phones too."""
        coordinator = self._coordinator
        try:
            kept = self._store.in_flight()
            if kept is None:
                return
            content, saved_s = kept
            state = unpack(content, classes=STATE_CLASSES)
        except (DataError, ModelError) as error:
            log.warning("the round in flight begins anew: %s", error)
            return
        if state.get("format") != IN_FLIGHT_FORMAT:
            log.warning("the round in flight begins anew: another version of this program kept it")
        elif state["round"] == coordinator.round:
            # Earlier programs did not say of which version.
            unsaid = None if self._store.damage else coordinator.version
            if state.get("version", unsaid) != coordinator.version:
                log.warning("the round in flight begins anew: it began from a version that is damaged")
                return
            away_s = max(0.0, self._wall_clock() - saved_s)
            coordinator.resume(state, shift_s=self.now() - state["clock_s"] - away_s)
