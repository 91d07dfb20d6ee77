"""A typing log as other programs read it: JSON lines, or LEAF's JSON.

LEAF wants all of a user's samples together. They are sorted in a database in a temporary file, so that the log may be
larger than memory; `x` is the text as it was typed, `y` an object with its time. A user's data are one line.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from os import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from kbdfl.device_sim.typing.records import Message, read_messages, write_messages
from kbdfl.errors import ConfigError

FORMATS = ("jsonl", "leaf")


def export_typing(log: Path, out: Path, *, format: str) -> dict[str, int]:
    """Write `out` and return the numbers of users and messages. Raises DataError for what is no log."""
    if out.exists() and log.exists() and out.samefile(log):
        raise ConfigError(f"out must be another file than the one that is read, got {out}")
    if format == "leaf":
        return _leaf(log, out)
    if format != "jsonl":
        raise ConfigError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    users: set[str] = set()

    def seen() -> Iterator[Message]:
        for message in read_messages(log):
            users.add(message.user)
            yield message

    messages = write_messages(out, seen())
    return {"users": len(users), "messages": messages}


def _leaf(log: Path, out: Path) -> dict[str, int]:
    part = out.with_name(out.name + ".part")
    try:
        with (
            TemporaryDirectory(dir=out.parent, prefix=".kbdfl-") as folder,
            closing(sqlite3.connect(Path(folder) / "sorted.db")) as database,
            open(part, "w", encoding="utf-8", newline="\n") as file,
        ):
            users = _sort(log, database)
            messages = _write(database, users, file)
        replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return {"users": len(users), "messages": messages}


def _sort(log: Path, database: sqlite3.Connection) -> dict[str, int]:
    """Put the log into the database by user; gives the users in order, each with their number."""
    database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32000;")
    database.execute("CREATE TABLE typed (user INTEGER, text TEXT, time REAL)")
    users: dict[str, int] = {}
    rows = (
        (users.setdefault(message.user, len(users)), message.text, message.time)
        for message in read_messages(log, keys=False)
    )
    database.executemany("INSERT INTO typed VALUES (?, ?, ?)", rows)
    database.execute("CREATE INDEX by_user ON typed (user)")
    return users


def _write(database: sqlite3.Connection, users: dict[str, int], file: IO[str]) -> int:
    counts = dict(database.execute("SELECT user, COUNT(*) FROM typed GROUP BY user"))
    file.write('{"users":' + _json(list(users)))
    file.write(',\n"num_samples":' + _json([counts[number] for number in users.values()]))
    file.write(',\n"user_data":{')
    for name, number in users.items():
        file.write(("\n" if number == 0 else ",\n") + _json(name) + ':{"x":[')
        for place, (text,) in enumerate(_rows(database, "text", number)):
            file.write(("," if place else "") + _json(text))
        file.write('],"y":[')
        for place, (time,) in enumerate(_rows(database, "time", number)):
            file.write(("," if place else "") + _json({"time": time}))
        file.write("]}")
    file.write("\n}}\n")
    return sum(counts.values())


def _rows(database: sqlite3.Connection, column: str, user: int) -> sqlite3.Cursor:
    """One user's texts or times, in the order of the log."""
    return database.execute(f"SELECT {column} FROM typed WHERE user = ? ORDER BY rowid", (user,))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
