"""The database of a served folder: SQLite in WAL mode, and every commit flushed."""

import sqlite3
from pathlib import Path
from typing import Any

from kbdfl.errors import ModelError

DATABASE = "server.sqlite3"  # its name in the folder
_MODES = {"journal_mode": "wal", "synchronous": 2}  # 2 is FULL


def open_database(path: Path, schema: Path, **options: Any) -> sqlite3.Connection:
    """A connection that any thread may use, one at a time, with the tables of `schema`; `options` are sqlite3's.

    Raises ModelError for a file that is no database, and if SQLite would not flush what it commits: what was
    acknowledged must survive a power cut.
    """
    try:
        database = sqlite3.connect(path, check_same_thread=False, **options)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            modes = {name: database.execute(f"PRAGMA {name}").fetchone()[0] for name in _MODES}
            if modes != _MODES:
                raise ModelError(f"{path} must be in WAL mode with synchronous FULL, SQLite says {modes}")
            database.executescript(schema.read_text("utf-8"))
        except BaseException:
            database.close()
            raise
    except sqlite3.DatabaseError as error:
        raise ModelError(f"{path} is not a database of this server: {error}") from None
    return database
