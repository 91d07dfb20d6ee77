"""One background thread for work that no report should wait for, measuring recall and exporting the model; a ticker.

Each kind of work has one slot. A newer order replaces an older one that has not begun, so a server whose
rounds are faster than its evaluation measures the newest model and skips those between.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from kbdfl.errors import ServerUnavailable

log = logging.getLogger(__name__)


Evaluate = Callable[[np.ndarray], dict[str, float]]


class Export(Protocol):
    """See `Background`."""

    def __call__(self, params: np.ndarray, folder: Path, /, *, round: int, version: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Background:
    """Slow work after committed rounds.

    `evaluate(params)` gives {"recall_top1", "recall_top3"}; `export(params, folder, *, round, version)`
    writes a bundle into a new folder, and those of other precisions into folders inside it. Each runs after
    every k-th committed round and once at the end.
    """

    evaluate: Evaluate | None = None
    evaluate_every: int = 10
    export: Export | None = None
    export_every: int = 20


def ticker(tick: Callable[[], None], stop: threading.Event, *, every_s: float) -> threading.Thread:
    """A thread, to be started, that calls `tick` again and again until `stop` is set, whatever comes of it."""

    def run() -> None:
        while not stop.wait(every_s):
            try:
                tick()
            except ServerUnavailable as error:
                log.error("a deadline could not be kept: %s", error)
                stop.wait(1.0)
            except Exception:  # a full disk, say: the next tick tries again
                log.exception("a deadline could not be kept")

    return threading.Thread(target=run, name="kbdfl-ticker", daemon=True)


class Worker:
    """Runs ordered jobs one after another; `close` finishes what is ordered, or drops it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._slots: dict[str, Callable[[], None]] = {}
        self._busy: str | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="kbdfl-worker", daemon=True)
        self.failures: dict[str, str] = {}

    def start(self) -> None:
        self._thread.start()

    def order(self, kind: str, job: Callable[[], None]) -> None:
        """Run `job` soon; an order of the same kind that still waits is replaced."""
        with self._changed:
            self._slots[kind] = job
            self._changed.notify_all()

    @property
    def settled(self) -> bool:
        """Whether nothing is ordered and nothing runs."""
        with self._changed:
            return not self._slots and self._busy is None

    def wait(self, timeout_s: float) -> bool:
        """Wait until everything ordered is done; False when the time is over first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._slots and self._busy is None, timeout_s)

    def close(self, *, finish: bool = False) -> None:
        """Stop after the job that runs now, or with `finish` after all that are ordered."""
        with self._changed:
            if not finish:
                self._slots.clear()
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._slots or self._closing)
                if not self._slots:
                    return
                kind = next(iter(self._slots))
                job, self._busy = self._slots.pop(kind), kind
            try:
                job()
                self.failures.pop(kind, None)
            except Exception as error:  # the service goes on without it, and its status says so
                log.exception("the background job %s failed", kind)
                self.failures[kind] = f"{type(error).__name__}: {error}"
