"""What was done to a task, by whom, and how each of its rounds began and ended: rows that hold each other.

An entry is canonical JSON, and its sha256 covers the entry before it, so that one that is altered, left out or moved
breaks the chain there. A head beside the rows says how many there are. Whoever may write the file may write all of it
anew: a head that was noted elsewhere finds that too.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from kbdfl.errors import DataError
from kbdfl.server.records import Records, Writer

BEGINNING = "0" * 64  # before the first entry
CLOSED = ("round committed", "round abandoned")
OPENED = "round opened"
SPENT = "privacy budget spent"
SEARCHED = 20_000  # entries, for what is no round: others wait meanwhile
_ALL = 2**62


@dataclass(frozen=True, slots=True)
class Head:
    """How many entries there are, and the sha256 of the last one, in hex."""

    entries: int
    sha256: str


def append(records: Records, *, at_s: float, by: str, what: str, **more: Any) -> None:
    """One more entry, durable, or part of the transaction that the caller has begun.

    `at_s` is in seconds since 1970; `more` are JSON values.
    """
    with records.writing() as connection:
        # First, so that of several processes one appends at a time.
        connection.execute("UPDATE audit_head SET number = number")
        head = _head(connection) or Head(0, BEGINNING)
        number = head.entries + 1
        entry = canonical({"number": number, "at_s": round(at_s, 3), "by": by, "what": what} | more)
        sha256 = chained(head.sha256, entry)
        connection.execute(
            "INSERT INTO audit_log (number, entry, sha256) VALUES (?, ?, ?)", (number, entry, sha256)
        )
        connection.execute(
            "INSERT INTO audit_head (only, number, sha256) VALUES (0, ?, ?)"
            " ON CONFLICT (only) DO UPDATE SET number = excluded.number, sha256 = excluded.sha256",
            (number, sha256),
        )


def canonical(entry: dict[str, Any]) -> str:
    """The one way to write an entry."""
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def chained(before: str, entry: str) -> str:
    """The sha256 of an entry after one whose sha256 is `before`, both in hex."""
    return hashlib.sha256(f"{before}\n{entry}".encode()).hexdigest()


def verify(records: Records) -> Head:
    """The head of a log that is whole. Raises DataError that names the first entry which is not."""
    before, count = BEGINNING, 0
    for number, entry, sha256 in records.rows("SELECT number, entry, sha256 FROM audit_log ORDER BY number"):
        count += 1
        if number != count:
            raise DataError(f"entry {count} of the audit log is missing; after {count - 1} comes {number}")
        if not isinstance(entry, str) or chained(before, entry) != sha256:
            raise DataError(f"entry {number} of the audit log is not whole: its sha256 does not fit it")
        if _numbered(entry) != number:
            raise DataError(f"entry {number} of the audit log is not whole: it says another number")
        before = sha256
    rows = records.rows("SELECT number, sha256 FROM audit_head")
    head = Head(*rows[0]) if rows else Head(0, BEGINNING)
    if head.entries > count:
        raise DataError(f"entry {count + 1} of the audit log is missing; there were {head.entries}")
    if head != Head(count, before):
        raise DataError(f"entry {count} of the audit log is not whole: the head does not name it as the last")
    return head


def entries(records: Records, *, before: int | None = None, most: int = 100) -> list[dict[str, Any]]:
    """The last entries, or those before a number, the newest first."""
    rows = records.rows(
        "SELECT entry FROM audit_log WHERE number < ? ORDER BY number DESC LIMIT ?",
        _ALL if before is None else before,
        most,
    )
    return [json.loads(entry) for (entry,) in rows]


def acts(records: Records, *, most: int = 100) -> list[dict[str, Any]]:
    """The last entries, the newest first, without those of rounds that began and ended; of the last `SEARCHED`."""
    rows = records.rows(
        "SELECT entry FROM audit_log WHERE number > (SELECT COALESCE(MAX(number), 0) FROM audit_log) - ?"
        " AND json_extract(entry, '$.what') NOT IN (?, ?, ?) ORDER BY number DESC LIMIT ?",
        SEARCHED,
        OPENED,
        *CLOSED,
        most,
    )
    return [json.loads(entry) for (entry,) in rows]


def closed_rounds(
    records: Records, *, task: str | None = None, before: int | None = None, most: int = 100
) -> list[dict[str, Any]]:
    """The entries of the last closed rounds, or of those before a round, the newest first.

    They are those of the task named `task`; None is the task of a server that has but one, without a name.
    """
    rows = records.rows(
        "SELECT entry FROM audit_log WHERE json_extract(entry, '$.what') IN (?, ?)"
        " AND json_extract(entry, '$.round') < ? AND json_extract(entry, '$.task') IS ?"
        " ORDER BY number DESC LIMIT ?",
        *CLOSED,
        _ALL if before is None else before,
        task,
        most,
    )
    return [json.loads(entry) for (entry,) in rows]


def last_round(records: Records, *what: str, task: str | None = None) -> int:
    """The last round of a task that one of these was said of; -1 without one."""
    marks = ", ".join("?" * len(what))
    found = records.one(
        f"SELECT json_extract(entry, '$.round') FROM audit_log WHERE json_extract(entry, '$.what') IN ({marks})"
        " AND json_extract(entry, '$.task') IS ? ORDER BY number DESC LIMIT 1",
        *what,
        task,
    )
    return -1 if found is None else found


def _head(connection: Writer) -> Head | None:
    row = connection.execute("SELECT number, sha256 FROM audit_head").fetchone()
    return row and Head(*row)


def _numbered(entry: str) -> Any:
    try:
        return json.loads(entry)["number"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
