"""What stands around tasks: who may take part, what their keepers want of them, and the log of what was done.

The coordinator knows nothing of this. Several tasks of one server have devices, tokens, limits and the log in common,
and each a state: it is open, paused (check-ins are told to wait) or stopped (they are told that all is over). In all
three, reports that phones are at work on still count, and rounds end at their deadlines.
"""

import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kbdfl.errors import ConfigError, Conflict, KbdflError, ServerUnavailable
from kbdfl.rounds import RoundResult
from kbdfl.server import audit_log
from kbdfl.server.places import records_of
from kbdfl.server.rates import Rates
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
    "Shortfall": "too few phones for a sum",
}


class Administration:
    """What is the server's, whatever it serves: devices, tokens, limits and the audit log; thread-safe.

    `wall_clock` gives seconds since 1970. Each act and its entry in the log are one transaction.
    """

    def __init__(
        self,
        folder: Path,
        *,
        wall_clock: Callable[[], float],
        enrolment: str = ENROLMENT_OPEN,
        rates: Rates | None = None,
    ) -> None:
        self._wall_clock = wall_clock
        self.records = records_of(folder)
        self.registry = Registry(self.records, enrolment=enrolment)
        self.nonces = self.records.nonces(began_s=wall_clock())
        self.rates = rates or Rates()

    def close(self) -> None:
        """Let go of the database."""
        self.records.close()

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


class TaskAdministration:
    """What is one task's: its state, why its reports were refused, its entries in the log; thread-safe.

    Several tasks share the `server`'s part and have names, which their entries say. `begins` is the state of a task
    that nobody has opened, paused or stopped. With `own`, the server's part ends with the task.
    """

    def __init__(
        self, server: Administration, *, name: str | None = None, begins: str = OPEN, own: bool = False
    ) -> None:
        if begins not in (OPEN, PAUSED):
            raise ConfigError(f"a task must begin {OPEN} or {PAUSED}, got {begins!r}"[:200])
        self.server, self.name, self._own = server, name, own
        self._begins, self._kept = begins, self._kept_state()
        self._lock = threading.Lock()
        self._refused: Counter[str] = Counter()  # reports, by reason, since a round was last closed
        self._unwritten: list[dict[str, Any]] = []  # of the audit log, while the disk takes nothing

    def close(self) -> None:
        """Let go of what is the task's own."""
        if self._own:
            self.server.close()

    @property
    def state(self) -> str:
        """open, paused or stopped."""
        if self.server.records.shared:  # another process may have been asked
            self._kept = self._kept_state()
        return self._kept or self._begins

    @property
    def touched(self) -> bool:
        """Whether a keeper has ever opened, paused or stopped it."""
        return self._kept_state() is not None if self.server.records.shared else self._kept is not None

    def become(self, state: str, *, by: str) -> None:
        """Open, pause or stop the task, in one transaction with the entry. Raises Conflict if it is so already."""
        with self._lock:
            if state == self.state:
                raise Conflict(f"the task is {state} already")
            with self.server.records.writing() as connection:
                if self.name is None:
                    connection.execute(
                        "INSERT INTO task_state (only, state) VALUES (0, ?)"
                        " ON CONFLICT (only) DO UPDATE SET state = excluded.state",
                        (state,),
                    )
                else:
                    connection.execute(
                        "INSERT INTO task_states (task, state) VALUES (?, ?)"
                        " ON CONFLICT (task) DO UPDATE SET state = excluded.state",
                        (self.name, state),
                    )
                self.note(by, SAID[state] if self._kept or state != OPEN else "task started")
            self._kept = state

    def note(self, by: str, what: str, **more: Any) -> None:
        """One more entry of the audit log, which names the task if that has a name."""
        named = {} if self.name is None else {"task": self.name}
        self.server.note(by, what, **named, **more)

    def closed_rounds(self, *, before: int | None = None, most: int = 100) -> list[dict[str, Any]]:
        """The entries of the last closed rounds, or of those before a round, the newest first."""
        return audit_log.closed_rounds(self.server.records, task=self.name, before=before, most=most)

    def _kept_state(self) -> str | None:
        if self.name is None:
            return self.server.records.one("SELECT state FROM task_state")
        return self.server.records.one("SELECT state FROM task_states WHERE task = ?", self.name)

    # what happens to rounds

    def refused(self, error: KbdflError) -> None:
        """A report was refused."""
        with self._lock:
            self._refused[REASONS.get(type(error).__name__, "not possible now")] += 1

    def began(self, rows: Iterable[dict[str, Any]], *, open_round: int | None) -> None:
        """Write down what a former server did not come to; `rows` are all closed rounds, as in metrics.jsonl."""
        records = self.server.records
        last = audit_log.last_round(records, *audit_log.CLOSED, task=self.name)
        for row in rows:
            if row["round"] > last:
                self._unwritten.append(_ending(row, {}))
        opened = audit_log.last_round(records, audit_log.OPENED, task=self.name)
        if open_round not in (None, opened):
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

    def spent(self, *, round: int, **more: Any) -> None:
        """The privacy budget allows no release after `round`; it is written down once."""
        if audit_log.last_round(self.server.records, audit_log.SPENT, task=self.name) < 0:
            self._unwritten.append({"what": audit_log.SPENT, "round": round} | more)
            self.write_down()

    def write_down(self) -> None:
        """Append what happened to rounds; where that fails now, it is tried again after the next round.

        A round stays closed though its entry could not be written, for its reports are acknowledged.
        """
        try:
            with self.server.records.writing():
                for entry in self._unwritten:
                    self.note(SERVER, **entry)
        except (sqlite3.Error, ServerUnavailable) as error:
            log.error("the audit log could not be written: %s", error)
        else:
            self._unwritten.clear()


def _ending(row: dict[str, Any], reasons: dict[str, int]) -> dict[str, Any]:
    facts = {name: row[name] for name in ("round", "version", "reports", "dropped", "refused")}
    return {"what": f"round {row['status']}"} | facts | {"reasons": reasons}
