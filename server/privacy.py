"""The privacy of a served task: its ledger, in the database of its store, and what is said of it.

A row of the ledger is one transaction, the model another one, and the row comes first. A server that was killed between
the two finds a release that was booked and that nobody saw: its round is abandoned, so that no sum is noised twice.
"""

import logging
import sqlite3
import threading
from collections.abc import Collection
from math import isfinite
from typing import Any

from kbdfl.coordinator import Coordinator
from kbdfl.privacy import Central, Parts, Row, so_far
from kbdfl.rounds import RoundResult
from kbdfl.server.administration import SERVER, TaskAdministration

log = logging.getLogger(__name__)


class SqliteBooks:
    """See `kbdfl.privacy.Books`: two tables of a store's `database`, whose user holds `mutex`."""

    def __init__(self, database: sqlite3.Connection, mutex: threading.RLock) -> None:
        self._database, self._mutex = database, mutex

    def rows(self) -> list[Row]:
        """All rows, the first one first. Raises DataError for what is none."""
        return self._read("SELECT row FROM privacy_ledger ORDER BY number")

    def last(self) -> Row | None:
        """The newest row."""
        rows = self._read("SELECT row FROM privacy_ledger ORDER BY number DESC LIMIT 1")
        return rows[0] if rows else None

    def participations(self) -> dict[str, Parts]:
        """Of every device that was ever counted."""
        with self._mutex:
            found = self._database.execute("SELECT device, count, last FROM privacy_parts").fetchall()
        return {device: Parts(count, last) for device, count, last in found}

    def book(self, row: Row, devices: Collection[str]) -> None:
        """Keep a row, and that these devices were counted in its release, durable when it returns."""
        with self._mutex, self._database:
            self._database.execute(
                "INSERT INTO privacy_ledger (number, row) VALUES (?, ?)", (row.number, row.to_json())
            )
            self._database.executemany(
                "INSERT INTO privacy_parts (device, count, last) VALUES (?, 1, ?)"
                " ON CONFLICT (device) DO UPDATE SET count = count + 1, last = excluded.last",
                [(device, row.number) for device in sorted(devices)],
            )

    def _read(self, query: str) -> list[Row]:
        with self._mutex:
            return [Row.from_json(text) for (text,) in self._database.execute(query)]


def abandon_lost(
    coordinator: Coordinator, administration: TaskAdministration, now: float
) -> RoundResult | None:
    """End the open round, before what it had summed comes back, if a former process has booked its release.

    The budget is spent, the devices are barred as if the model had been published, and the next round begins.
    """
    privacy, number = coordinator.privacy, coordinator.round
    if privacy is None or not privacy.lost(number):
        return None
    log.warning("round %d is abandoned: its release was booked, and its model was lost", number)
    administration.note(SERVER, "release lost", round=number, **_entry(privacy))
    return coordinator.close(now)


def note_spent(coordinator: Coordinator, administration: TaskAdministration) -> None:
    """Have it written down if the budget allows no further release, and the task has stopped."""
    privacy = coordinator.privacy
    if privacy is not None and not privacy.open:
        administration.spent(round=coordinator.round - 1, **_entry(privacy))


def told(privacy: Central | None) -> dict[str, Any] | None:
    """What the pages say of a task's privacy; None if it promises none. An epsilon of None claims nothing."""
    if privacy is None:
        return None
    ledger, terms = privacy.ledger, privacy.privacy
    return {
        "epsilon": ledger.epsilon if isfinite(ledger.epsilon) else None,
        "budget_epsilon": terms.epsilon or None,
        "delta": terms.delta,
        "rho": ledger.last.rho if ledger.last else 0.0,
        "releases": len(ledger),
        "spent": not privacy.open,
        "sentence": so_far(ledger),
    }


def _entry(privacy: Central) -> dict[str, Any]:
    """The same for the audit log, in few words."""
    facts = told(privacy) or {}
    return {name: facts[name] for name in ("epsilon", "budget_epsilon", "releases")}
