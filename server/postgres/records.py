"""The records around tasks in PostgreSQL, the same for all processes: see `kbdfl.server.records`.

Their queries are written once, in SQLite's words. In a turn they are part of it, so that a closed round and its entry
in the audit log are kept together.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kbdfl.server.postgres.address import RECORDS, Address
from kbdfl.server.postgres.link import Link, prepare, this_turn, translated
from kbdfl.server.postgres.nonces import SharedNonces
from kbdfl.server.records import Cursor


class PostgresRecords:
    """See `kbdfl.server.records.Records`; at `address`, nonces too.

    Raises ServerUnavailable if PostgreSQL cannot be reached.
    """

    shared = True  # what is read once may have changed by now

    def __init__(self, address: Address) -> None:
        self.path = Path(RECORDS)
        self._mutex = threading.RLock()
        self._link = Link(address.url, [RECORDS])
        try:
            prepare(self._link, RECORDS, "records.sql")
        except BaseException:
            self._link.close()
            raise

    def close(self) -> None:
        with self._mutex:
            self._link.close()

    @contextmanager
    def _asking(self) -> Iterator[Link]:
        if (link := this_turn()) is not None:
            yield link
            return
        with self._mutex:
            yield self._link

    @contextmanager
    def writing(self) -> Iterator["_Writer"]:
        """A transaction, durable once the outermost block or the turn is over, and all of it or nothing."""
        with self._asking() as link, link.transaction():
            yield _Writer(link)

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        with self._asking() as link:
            return link.rows(translated(query), *arguments)

    def one(self, query: str, *arguments: Any) -> Any:
        found = self.rows(query, *arguments)
        return found[0][0] if found else None

    def nonces(self, *, began_s: float) -> SharedNonces:
        """The memory of signed requests, which is empty if nobody began one before `began_s`."""
        return SharedNonces(self, began_s=began_s)


class _Writer:
    """See `kbdfl.server.records.Writer`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def execute(self, query: str, arguments: Sequence[Any] = ()) -> Cursor:
        return self._link.execute(translated(query), arguments)

    def executemany(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        self._link.many(translated(query), rows)
