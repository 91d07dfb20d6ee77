"""Group commit: a report is acknowledged once a state of the open round that holds it is durable.

Reports are counted one after another and acknowledged many at a time. One thread takes a copy of the open round, keeps
it, and lets go of all whose reports it holds; those that come meanwhile share the next copy. When the disk takes no
more, nobody is acknowledged, the copy is tried again, and the phones, who were told to come back, are known by their
bytes when they do.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

from kbdfl.errors import ServerUnavailable

log = logging.getLogger(__name__)

# Between two copies: who comes meanwhile shares the next one, and a lone report waits for nothing.
GATHER_S = 0.01
AGAIN_S = 0.2  # after a failure
LAZY_S = 0.5  # until what nobody waits for is kept
PATIENCE_S = 30.0  # that a report waits for


class Journal:
    """Keeps what `take` gives with `keep`, whenever it has changed. Thread-safe; `start` it, and `close` it."""

    def __init__(self, take: Callable[[], Any], keep: Callable[[Any], None]) -> None:
        self._take, self._keep = take, keep
        lock = threading.Lock()
        # Two, so that a report wakes the thread that keeps, and not everybody who waits.
        self._condition, self._tries = threading.Condition(lock), threading.Condition(lock)
        self._changed = self._awaited = self._tried = self._durable = 0  # numbers of changes
        self._closing = False
        self._next_s = 0.0  # when the next copy may be taken
        self._thread = threading.Thread(target=self._run, name="kbdfl-journal", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether the last attempt to keep something succeeded."""
        with self._condition:
            return self._durable == self._tried

    def changed(self, *, awaited: bool = True) -> int:
        """The open round has changed: what to `wait` for, if anyone does."""
        with self._condition:
            self._changed += 1
            if awaited:
                self._awaited = self._changed
            self._condition.notify()
            return self._changed

    @property
    def newest(self) -> int:
        """The last change."""
        with self._condition:
            return self._changed

    def wait(self, change: int) -> None:
        """Return once `change` is durable. Raises ServerUnavailable if it cannot be made so now."""
        with self._condition:
            self._tries.wait_for(lambda: self._tried >= change or self._closing, PATIENCE_S)
            if self._durable < change:
                raise ServerUnavailable("the report could not be made durable; send it again")

    def wait_healthy(self, timeout_s: float) -> bool:
        """Wait until what was tried is kept; False when the time is over first."""
        with self._condition:
            return self._tries.wait_for(lambda: self._durable == self._tried, timeout_s)

    def close(self) -> None:
        """Keep the last change, if that is possible, and stop."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
            self._tries.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._wait_for_work()
                self._condition.wait_for(lambda: self._closing, max(0.0, self._next_s - time.monotonic()))
                change = self._changed
                if change == self._durable:
                    return
            kept = self._attempt()
            with self._condition:
                self._next_s = time.monotonic() + GATHER_S
                self._tried = change
                if kept:
                    self._durable = change
                self._tries.notify_all()
                if not kept:
                    if self._closing:
                        return
                    self._condition.wait_for(lambda: self._closing, AGAIN_S)

    def _wait_for_work(self) -> None:
        """Until something awaited has changed, or something else did a while ago."""
        while not (self._awaited > self._durable or self._closing):
            if self._changed == self._durable:
                self._condition.wait()
            elif not self._condition.wait_for(lambda: self._awaited > self._durable or self._closing, LAZY_S):
                return

    def _attempt(self) -> bool:
        try:
            self._keep(self._take())
        except (OSError, sqlite3.Error) as error:
            log.error("the open round could not be kept: %s", error)
            return False
        return True
