"""The database of a served folder: SQLite in WAL mode, and every commit flushed; and the lock of the folder."""

import fcntl
import sqlite3
from pathlib import Path
from typing import Any

from kbdfl.errors import ConfigError, ModelError

DATABASE = "server.sqlite3"  # its name in the folder
LOCK = "server.lock"
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


def lock_folder(folder: Path) -> Any:
    """An open file that holds the folder's lock; the system lets go of it when the process ends, however.

    Raises ConfigError if another process has it.
    """
    file = open(folder / LOCK, "a+b")  # noqa: SIM115 -- it is held while the folder is served
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(f"{folder} is already being served by another process") from None
    return file
