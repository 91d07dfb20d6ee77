"""Which signed requests came before: every (device, nonce) for as long as its timestamp is fresh.

A phone may send again exactly what it signed, and gets the answer again; the same nonce with anything else is refused.
What was signed before this memory began, or in a minute that it has let go of, cannot be looked up: it is not `fresh`,
and the caller decides what that means for what it is asked.

An entry is two keyed hashes of eight bytes in an open-addressing table, one table a minute of timestamps, which is
dropped whole. A table is at most half full, so an entry takes 32 to 64 bytes, and MOST of them 64 MiB at most.
"""

import hashlib
import secrets
import threading
from dataclasses import dataclass
from typing import Protocol

from kbdfl.errors import Conflict, ServerUnavailable
from kbdfl.identity import FRESH_S

MOST = 2**20  # entries: 1,700 requests a second, if their clocks are right
MINUTE_S = 60
_FIRST_SLOTS = 2**10


@dataclass(frozen=True, slots=True)
class Use:
    """One arrival of a signed request: the `first` that is remembered, and `fresh` if for certain none came before.

    `marked` says whether `mark` was called with it.
    """

    first: bool
    fresh: bool
    marked: bool
    key: int
    minute: int


class Nonces(Protocol):
    """The memory, of one process or of several (`kbdfl.server.postgres.nonces`); thread-safe."""

    def meet(self, device: str, nonce: str, *, signed_s: int, request: bytes, now: float) -> Use:
        """Remember a request whose signature is good; `request` is the sha256 of all that must be the same again.

        Raises Conflict if the nonce came with another request, ServerUnavailable if MOST are remembered.
        """
        ...

    def mark(self, use: Use) -> None:
        """Let every later arrival of this request say `marked`."""


class LocalNonces:
    """See `Nonces`. `began_s` is when it began, in seconds since 1970, as are all times here."""

    def __init__(self, *, began_s: float, most: int = MOST) -> None:
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(32)  # nobody can choose nonces that collide
        self._most = most
        self._minutes: dict[int, _Table] = {}
        self._from_s = int(began_s)  # what was signed before this second is not known

    def __len__(self) -> int:
        with self._lock:
            return self._count()

    def meet(self, device: str, nonce: str, *, signed_s: int, request: bytes, now: float) -> Use:
        key, value = self._hash(device.encode(), nonce.encode()), self._hash(request) & ~1
        minute = signed_s // MINUTE_S
        with self._lock:
            self._let_go(now)
            for place, table in self._minutes.items():
                found = table.get(key)
                if found and found & ~1 != value:
                    raise Conflict(
                        "the nonce came before, with another request; draw a new one for each request"
                    )
                if found:
                    return Use(False, False, bool(found & 1), key, place)
            if self._count() >= self._most:
                raise ServerUnavailable(f"{self._most} requests are remembered, which is the most; try again")
            if minute not in self._minutes:
                self._minutes[minute] = _Table()
            self._minutes[minute].put(key, value)
            return Use(True, signed_s >= self._from_s, False, key, minute)

    def mark(self, use: Use) -> None:
        with self._lock:
            table = self._minutes.get(use.minute)
            if table is not None:
                table.put(use.key, table.get(use.key) | 1)

    def _hash(self, *parts: bytes) -> int:
        """63 bits and a last one for `mark`; never 0."""
        digest = hashlib.blake2b(b"\0".join(parts), key=self._secret, digest_size=8).digest()
        return int.from_bytes(digest) | 2

    def _count(self) -> int:
        return sum(table.used for table in self._minutes.values())

    def _let_go(self, now: float) -> None:
        """Forget the minutes of which no timestamp is fresh any more."""
        for minute in [m for m in self._minutes if (m + 1) * MINUTE_S + FRESH_S <= now]:
            del self._minutes[minute]
            # Should the clock be set back, what was signed in it would be accepted again, and is not known.
            self._from_s = max(self._from_s, (minute + 1) * MINUTE_S)


class _Table:
    """From key to value, both 64 bits and not 0."""

    def __init__(self, slots: int = _FIRST_SLOTS) -> None:
        self.used, self._mask = 0, slots - 1
        self._cells = memoryview(bytearray(16 * slots)).cast("Q")

    def get(self, key: int) -> int:
        """The value; 0 if there is none."""
        return self._cells[self._place(key) + 1]

    def put(self, key: int, value: int) -> None:
        place = self._place(key)
        if not self._cells[place]:
            if 2 * self.used > self._mask:
                self._grow()
                place = self._place(key)
            self.used += 1
        self._cells[place], self._cells[place + 1] = key, value

    def _place(self, key: int) -> int:
        """Where it stands, or the free cell where it would."""
        cells, slot = self._cells, key >> 2 & self._mask
        while cells[2 * slot] not in (0, key):
            slot = slot + 1 & self._mask
        return 2 * slot

    def _grow(self) -> None:
        larger = _Table(2 * (self._mask + 1))
        for place in range(0, len(self._cells), 2):
            if self._cells[place]:
                larger.put(self._cells[place], self._cells[place + 1])
        self._cells, self._mask = larger._cells, larger._mask
