"""What stands around a task: who may take part, what its keepers want of it, and the log of what was done.

The coordinator knows nothing of this. A task is open, paused (check-ins are told to wait) or stopped (they are told
that all is over); in all three, reports that phones are at work on still count, and rounds end at their deadlines.
"""

import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kbdfl.errors import Conflict, KbdflError, ServerUnavailable
from kbdfl.rounds import RoundResult
from kbdfl.server import audit_log
from kbdfl.server.nonces import Nonces
from kbdfl.server.rates import Rates
from kbdfl.server.records import Records
from kbdfl.server.registry import OPEN as ENROLMENT_OPEN
from kbdfl.server.registry import Registry, make_tokens

log = logging.getLogger(__name__)

OPEN, PAUSED, STOPPED = "open", "paused", "stopped"
SAID = {OPEN: "task resumed", PAUSED: "task paused", STOPPED: "task stopped"}  # in the audit log
PAUSE_S = 30.0  # until a phone asks a paused task again
SERVER = "server"  # who does what nobody asked for

# What a report is refused for, by the error's class.
REASONS = {
    "TooLarge": "too large",
    "WireError": "not readable",
    "ModelError": "of another model",
    "TooStale": "too stale",
    "Conflict": "late, not selected or a second one",
    "Unauthorised": "not signed",
    "Forbidden": "revoked",
}


class Administration:
    """The records beside the rounds of a served folder; thread-safe. `wall_clock` gives seconds since 1970."""

    def __init__(
        self,
        folder: Path,
        *,
        wall_clock: Callable[[], float],
        enrolment: str = ENROLMENT_OPEN,
        rates: Rates | None = None,
    ) -> None:
        self._wall_clock = wall_clock
        self.records = Records(folder)
        self.registry = Registry(self.records, enrolment=enrolment)
        self.nonces = Nonces(began_s=wall_clock())
        self.rates = rates or Rates()
        self._state = self.records.one("SELECT state FROM task_state") or OPEN
        self._lock = threading.Lock()
        self._refused: Counter[str] = Counter()  # reports, by reason, since a round was last closed
        self._unwritten: list[dict[str, Any]] = []  # of the audit log, while the disk takes nothing

    def close(self) -> None:
        """Let go of the database."""
        self.records.close()

    @property
    def state(self) -> str:
        """open, paused or stopped."""
        return self._state

    # what an administrator may do; each act and its entry are one transaction

    def become(self, state: str, *, by: str) -> None:
        """Open, pause or stop the task. Raises Conflict if it is so already."""
        with self._lock:
            if state == self._state:
                raise Conflict(f"the task is {state} already")
            with self.records.writing() as connection:
                connection.execute("INSERT OR REPLACE INTO task_state (only, state) VALUES (0, ?)", (state,))
                self.note(by, SAID[state])
            self._state = state

    def make_tokens(self, count: int, *, by: str) -> list[str]:
        """New enrolment tokens, in hex; raises ConfigError for an impossible number of them."""
        with self.records.writing():
            tokens = make_tokens(self.records, count, self._wall_clock())
            self.note(by, "tokens made", count=count)
        return tokens

    def revoke(self, device: str, *, by: str) -> None:
        """Refuse a device from now on; raises NotFound if it never enrolled."""
        with self.records.writing():
            self.registry.revoke(device, self._wall_clock())
            self.note(by, "device revoked", device=device)

    def note(self, by: str, what: str, **more: Any) -> None:
        """One more entry of the audit log."""
        audit_log.append(self.records, at_s=self._wall_clock(), by=by, what=what, **more)

    # what happens to rounds

    def refused(self, error: KbdflError) -> None:
        """A report was refused."""
        with self._lock:
            self._refused[REASONS.get(type(error).__name__, "not possible now")] += 1

    def began(self, rows: Iterable[dict[str, Any]], *, open_round: int | None) -> None:
        """Write down what a former server did not come to; `rows` are all closed rounds, as in metrics.jsonl."""
        last = audit_log.last_round(self.records, *audit_log.CLOSED)
        for row in rows:
            if row["round"] > last:
                self._unwritten.append(_ending(row, {}))
        if open_round is not None and audit_log.last_round(self.records, audit_log.OPENED) != open_round:
            self._unwritten.append({"what": audit_log.OPENED, "round": open_round})
        self.write_down()

    def ended(self, closed: RoundResult, *, open_round: int | None) -> None:
        """A round was closed, and perhaps another one opened."""
        with self._lock:
            reasons, self._refused = dict(sorted(self._refused.items())), Counter()
        self._unwritten.append(_ending(closed.to_json(), reasons))
        if open_round is not None:
            self._unwritten.append({"what": audit_log.OPENED, "round": open_round})
        self.write_down()

    def write_down(self) -> None:
        """Append what happened to rounds; where that fails now, it is tried again after the next round.

        A round stays closed though its entry could not be written, for its reports are acknowledged.
        """
        try:
            with self.records.writing():
                for entry in self._unwritten:
                    self.note(SERVER, **entry)
        except (sqlite3.Error, ServerUnavailable) as error:
            log.error("the audit log could not be written: %s", error)
        else:
            self._unwritten.clear()


def _ending(row: dict[str, Any], reasons: dict[str, int]) -> dict[str, Any]:
    facts = {name: row[name] for name in ("round", "version", "reports", "dropped", "refused")}
    return {"what": f"round {row['status']}"} | facts | {"reasons": reasons}
