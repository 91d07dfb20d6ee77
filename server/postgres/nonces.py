"""Which signed requests came before, to whichever process: see `kbdfl.server.nonces`.

The table is not logged: it costs no flush, and PostgreSQL empties it after a crash, with the moment since when it knows
what came. So a request that it may have forgotten is not `fresh`, as after a restart of a server with one process.
"""

import hashlib
import threading

from kbdfl.errors import Conflict, ServerUnavailable
from kbdfl.identity import FRESH_S
from kbdfl.server.nonces import MINUTE_S, MOST, Use
from kbdfl.server.records import Records


class SharedNonces:
    """See `kbdfl.server.nonces.Nonces`; in `records`. `began_s` is in seconds since 1970, as are all times here."""

    def __init__(self, records: Records, *, began_s: float, most: int = MOST) -> None:
        self._records, self._most = records, most
        self._lock = threading.Lock()
        self._cleaned_s = -1.0
        self._full = False
        self._begin(began_s)

    def _begin(self, began_s: float) -> None:
        with self._records.writing() as connection:
            connection.execute(
                "INSERT INTO nonces_began (only, began_s) VALUES (0, ?) ON CONFLICT DO NOTHING",
                (int(began_s),),
            )

    def __len__(self) -> int:
        return self._records.one("SELECT count(*) FROM nonces")

    def meet(self, device: str, nonce: str, *, signed_s: int, request: bytes, now: float) -> Use:
        self._let_go(now)
        if self._full:
            raise ServerUnavailable(f"{self._most} requests are remembered, which is the most; try again")
        key = hashlib.blake2b(f"{device}\0{nonce}".encode(), digest_size=16).digest()
        began = self._records.rows(
            "INSERT INTO nonces (key, request, signed_s, marked) VALUES (?, ?, ?, false) ON CONFLICT DO NOTHING"
            " RETURNING (SELECT began_s FROM nonces_began)",
            key,
            request,
            signed_s,
        )
        use = int.from_bytes(key)
        if began:
            if began[0][0] is None:  # emptied since we began
                self._begin(now)
            return Use(True, began[0][0] is not None and signed_s >= began[0][0], False, use, 0)
        found = self._records.rows("SELECT request, marked FROM nonces WHERE key = ?", key)
        if not found:  # forgotten at this moment, so no timestamp like it is fresh any more
            return Use(False, False, False, use, 0)
        if found[0][0] != request:
            raise Conflict("the nonce came before, with another request; draw a new one for each request")
        return Use(False, False, found[0][1], use, 0)

    def mark(self, use: Use) -> None:
        self._records.rows("UPDATE nonces SET marked = true WHERE key = ?", use.key.to_bytes(16))

    def _let_go(self, now: float) -> None:
        """Once a minute forget the minutes of which no timestamp is fresh any more."""
        with self._lock:
            if abs(now - self._cleaned_s) < MINUTE_S:
                return
            self._cleaned_s = now
        before = (int(now - FRESH_S) // MINUTE_S) * MINUTE_S
        with self._records.writing() as connection:
            # Should the clock be set back, what was signed in them would be accepted again, and is not known.
            connection.execute("UPDATE nonces_began SET began_s = greatest(began_s, ?)", (before,))
            connection.execute("DELETE FROM nonces WHERE signed_s < ?", (before,))
        self._full = len(self) >= self._most
