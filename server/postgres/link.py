"""One connection to PostgreSQL: opened when it is needed, and again after it was lost.

What is committed must survive a power cut, so a server that does not flush is refused. A connection whose process
stands still in the middle of a transaction is ended after IDLE_S, for others may wait for it.
"""

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbdfl.errors import ConfigError, ModelError, ServerUnavailable

if TYPE_CHECKING:
    import psycopg

SCHEMAS = Path(__file__).parent
OLDEST = 120_000  # of PostgreSQL's versions: 12
FORMAT = "1"  # of the tables
CONNECT_S, IDLE_S, PATIENCE_S = 5, 15, 30
_here = threading.local()  # the link whose turn this thread has


class Link:
    """See above; for one thread at a time, and its user holds a lock. Names are looked up in `schemas`, in that order.

    Everything that goes wrong is ServerUnavailable, in one line; a statement that fails in a transaction ends it.
    """

    def __init__(self, url: str, schemas: Sequence[str]) -> None:
        self._url, self._schemas = url, schemas
        self._connection: psycopg.Connection | None = None
        # While a transaction goes on: another connection would not be in it.
        self.held = False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """What a statement finds; [] of one that finds nothing by its nature."""
        return self._run(lambda connection: _all(connection.execute(query, arguments or None, binary=True)))

    def one(self, query: str, *arguments: Any) -> Any:
        """The first value of the first row; None without one."""
        found = self.rows(query, *arguments)
        return found[0][0] if found else None

    def many(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for each of the rows."""
        self._run(lambda connection: connection.cursor().executemany(query, rows))

    def execute(self, query: str, arguments: Sequence[Any] = ()) -> "psycopg.Cursor":
        """A statement; its cursor says what it found, or how many rows it changed."""
        return self._run(lambda connection: connection.execute(query, arguments or None, binary=True))

    def script(self, text: str) -> list[tuple[Any, ...]]:
        """Several statements without arguments, sent at once; the rows of the last."""

        def last(connection: "psycopg.Connection") -> list[tuple[Any, ...]]:
            cursor = connection.execute(text.encode(connection.info.encoding))
            while cursor.nextset():
                pass
            return _all(cursor)

        return self._run(last)

    @contextmanager
    def transaction(self) -> Iterator["Link"]:
        """All of the block or nothing; within another one it is a savepoint."""
        connection, before = self._open(), self.held
        psycopg = _library()
        self.held = True
        try:
            with connection.transaction():
                yield self
            if connection.closed:  # in the block, where somebody did not mind
                raise ServerUnavailable("PostgreSQL: the connection was lost in a transaction")
        except psycopg.Error as error:
            raise _told(error) from None
        finally:
            self.held = before

    @property
    def whole(self) -> bool:
        """Whether a transaction is open in which nothing has failed."""
        status = self._connection and self._connection.info.transaction_status
        return status == _library().pq.TransactionStatus.INTRANS

    def abandon(self) -> None:
        """Leave the transaction, if there is one, and what has changed in it."""
        self.held = False
        try:
            if self._connection is not None:
                self._connection.rollback()
        except _library().Error:
            self.close()

    def _run(self, ask: Any) -> Any:
        psycopg = _library()
        connection = self._open()
        try:
            return ask(connection)
        except psycopg.Error as error:
            raise _told(error) from None

    def _open(self) -> "psycopg.Connection":
        if self._connection is None or self._connection.closed:
            if self.held:
                raise ServerUnavailable("PostgreSQL: the connection was lost in a transaction")
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> "psycopg.Connection":
        psycopg = _library()
        try:
            connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_S,
                keepalives_idle=30,
                tcp_user_timeout=1_000 * CONNECT_S,
                application_name="kbdfl",
            )
        except psycopg.Error as error:
            raise _told(error) from None
        try:
            connection.execute(
                f"SET search_path TO {', '.join(map(quoted, self._schemas))};"
                f"SET lock_timeout TO '{PATIENCE_S}s'; SET statement_timeout TO '{PATIENCE_S}s';"
                f"SET idle_in_transaction_session_timeout TO '{IDLE_S}s';"
                "SET synchronous_commit TO on"
            )
            _check_durable(connection)
        except psycopg.Error as error:
            connection.close()
            raise _told(error) from None
        except BaseException:
            connection.close()
            raise
        return connection


def prepare(link: Link, schema: str, tables: str) -> None:
    """Make `schema`, the first of the link's, with the tables of the file `tables`, unless it is there.

    Raises ConfigError for one of another format.
    """
    with link.transaction():
        # Processes that start at once would all find nothing.
        link.rows("SELECT pg_advisory_xact_lock(hashtextextended('kbdfl tables', 0))")
        if link.one("SELECT to_regclass(%s)::text", f"{quoted(schema)}.format") is None:
            link.script(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
            link.script((SCHEMAS / tables).read_text("utf-8"))
            link.rows("INSERT INTO format VALUES (0, %s)", FORMAT)
        kept = link.one("SELECT number FROM format")
    if kept != FORMAT:
        raise ConfigError(f"schema {schema} was made by another version of this program (format {kept})")


@contextmanager
def turn_of(link: Link) -> Iterator[None]:
    """In the block, what this thread reads and writes is part of the transaction on `link`."""
    _here.link = link
    try:
        yield
    finally:
        _here.link = None


def this_turn() -> Link | None:
    """The link whose turn this thread has, if it has one."""
    return getattr(_here, "link", None)


def _check_durable(connection: "psycopg.Connection") -> None:
    if connection.info.server_version < OLDEST:
        raise ConfigError(
            f"PostgreSQL must be {OLDEST // 10_000} or newer, got {connection.info.server_version}"
        )
    modes = connection.execute(
        "SELECT current_setting('fsync'), current_setting('synchronous_commit')"
    ).fetchone()
    if modes != ("on", "on"):
        raise ModelError(
            f"PostgreSQL must flush what it commits: fsync and synchronous_commit on, it says {modes}"
        )


def _all(cursor: Any) -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.description else []


def quoted(name: str) -> str:
    """A name as it stands in a statement."""
    return '"' + name.replace('"', '""') + '"'


def _told(error: Exception) -> ServerUnavailable:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ServerUnavailable(f"PostgreSQL: {lines[0] if lines else type(error).__name__}"[:300])


@lru_cache(maxsize=1)
def _library() -> Any:
    try:
        import psycopg
    except ImportError:
        raise ConfigError(
            "a database in PostgreSQL needs psycopg, which is not installed: pip install 'kbdfl[postgres]'"
        ) from None
    return psycopg


@lru_cache(maxsize=256)
def translated(query: str) -> str:
    """A query of the records, which are written in SQLite's words, in PostgreSQL's."""
    query = re.sub(r"json_extract\(entry, '\$\.round'\)", "(entry::json ->> 'round')::bigint", query)
    query = re.sub(r"json_extract\(entry, '\$\.(\w+)'\)", r"(entry::json ->> '\1')", query)
    query = re.sub(r"\bonly\b", '"only"', query)
    return query.replace(" IS ?", " IS NOT DISTINCT FROM ?").replace("%", "%%").replace("?", "%s")
