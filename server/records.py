"""The part of a server's database that is not about rounds: a connection of its own to the same file.

Commands may open it while a server runs on the folder: SQLite lets one writer in at a time.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kbdfl.errors import DataError, ServerUnavailable
from kbdfl.server.database import DATABASE, open_database
from kbdfl.server.nonces import Nonces

SCHEMA = Path(__file__).with_name("records.sql")
PATIENCE_S = 10.0  # for another process that writes


class Records:
    """Devices, tokens, the task's state and the audit log in the database of `folder`. Thread-safe.

    Raises ModelError if the file is no database of a server.
    """

    shared = False  # one process at a time serves by them

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / DATABASE
        self._mutex = threading.RLock()
        self._connection = open_database(self.path, SCHEMA, timeout=PATIENCE_S, isolation_level=None)

    @classmethod
    def existing(cls, folder: Path) -> "Records":
        """Those of a folder that was served before; raises DataError if it was not."""
        if not (Path(folder) / DATABASE).is_file():
            raise DataError(f"{folder} must be a folder that `kbdfl serve` has kept; it has no {DATABASE}")
        return cls(folder)

    def close(self) -> None:
        with self._mutex:
            self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, durable once the outermost block is left, and all of it or nothing.

        Raises ServerUnavailable if the disk takes nothing now, or another process writes for too long.
        """
        with self._mutex:
            if self._connection.in_transaction:  # this thread's own
                yield self._connection
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise ServerUnavailable(
                    f"{self.path.name} cannot be written now ({error}); try again"
                ) from None

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        with self._mutex:
            return self._connection.execute(query, arguments).fetchall()

    def one(self, query: str, *arguments: Any) -> Any:
        """The first value of the first row; None without one."""
        found = self.rows(query, *arguments)
        return found[0][0] if found else None

    def nonces(self, *, began_s: float) -> Nonces:
        """A memory of signed requests, which begins now."""
        return Nonces(began_s=began_s)
