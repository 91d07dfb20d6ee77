"""The part of a server's database that is not about rounds: a connection of its own to the same file.

Commands may open it while a server runs on the folder: SQLite lets one writer in at a time. Where several processes
serve, it is in PostgreSQL (`kbdfl.server.postgres.records`), asked in the same words.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from kbdfl.errors import DataError, ServerUnavailable
from kbdfl.server.database import DATABASE, open_database
from kbdfl.server.nonces import LocalNonces, Nonces

SCHEMA = Path(__file__).with_name("records.sql")
PATIENCE_S = 10.0  # for another process that writes


class Cursor(Protocol):
    """What a statement found, or how many rows it changed; sqlite3's and psycopg's."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...


class Writer(Protocol):
    """What is needed of a connection in a transaction; statements are in SQLite's words."""

    def execute(self, query: str, arguments: Sequence[Any] = ..., /) -> Cursor: ...

    def executemany(self, query: str, rows: Iterable[Sequence[Any]], /) -> object: ...


class Records(Protocol):
    """Devices, tokens, the states of tasks and the audit log, wherever they are kept. Thread-safe."""

    @property
    def shared(self) -> bool:
        """Whether several processes serve by them, so that what is read once may have changed by now."""
        ...

    @property
    def path(self) -> Path: ...

    def close(self) -> None: ...

    def writing(self) -> AbstractContextManager[Writer]:
        """A transaction, durable once the outermost block is left, and all of it or nothing."""
        ...

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        ...

    def one(self, query: str, *arguments: Any) -> Any:
        """The first value of the first row; None without one."""
        ...

    def nonces(self, *, began_s: float) -> Nonces:
        """The memory of signed requests, which may have begun before `began_s`."""
        ...


class SqliteRecords:
    """See `Records`; in the database of `folder`.

    Raises ModelError if the file is no database of a server.
    """

    shared = False  # one process at a time serves by them

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / DATABASE
        self._mutex = threading.RLock()
        self._connection = open_database(self.path, SCHEMA, timeout=PATIENCE_S, isolation_level=None)

    @classmethod
    def existing(cls, folder: Path) -> "SqliteRecords":
        """Those of a folder that was served before; raises DataError if it was not."""
        if not (Path(folder) / DATABASE).is_file():
            raise DataError(f"{folder} must be a folder that `kbdfl serve` has kept; it has no {DATABASE}")
        return cls(folder)

    def close(self) -> None:
        with self._mutex:
            self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """See `Records`.

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
        with self._mutex:
            return self._connection.execute(query, arguments).fetchall()

    def one(self, query: str, *arguments: Any) -> Any:
        found = self.rows(query, *arguments)
        return found[0][0] if found else None

    def nonces(self, *, began_s: float) -> LocalNonces:
        """A memory of signed requests, which begins now."""
        return LocalNonces(began_s=began_s)
