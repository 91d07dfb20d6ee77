"""Administrators who are logged in, in memory: a restart logs everybody out.

A session's id is 256 random bits, of which only the hash is kept. The token of a form follows from the id by a key of
the process, so that a form that another site made has none.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable

LIFETIME_S = 8 * 3_600.0
MOST = 64  # the oldest ends when there are more


class Sessions:
    """Thread-safe. `mark` stands for the credentials: once they have changed, sessions before are over."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        self._until: dict[bytes, tuple[float, str]] = {}

    def begin(self, mark: str) -> str:
        """The id of a new session."""
        name = new_id()
        with self._lock:
            while len(self._until) >= MOST:
                del self._until[next(iter(self._until))]
            self._until[_hash(name)] = self._clock() + LIFETIME_S, mark
        return name

    def has(self, name: str, mark: str) -> bool:
        """Whether a session of this id goes on."""
        with self._lock:
            until_s, its_mark = self._until.get(_hash(name), (0.0, ""))
            return self._clock() < until_s and hmac.compare_digest(its_mark, mark)

    def end(self, name: str) -> None:
        """Log out."""
        with self._lock:
            self._until.pop(_hash(name), None)

    def form_token(self, name: str) -> str:
        """What every form of a session must send, in hex."""
        return hmac.new(self._key, name.encode(), hashlib.sha256).hexdigest()

    def form_fits(self, name: str, token: str) -> bool:
        """Whether a form was made for this session."""
        return hmac.compare_digest(self.form_token(name).encode(), token.encode("utf-8", "replace"))


def new_id() -> str:
    """Of a session, or of a visitor who has not logged in yet."""
    return secrets.token_urlsafe(32)


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "replace")).digest()
