"""How often someone may ask: limits of the form "60/minute", counted in this process by the library `limits`."""

import math
import time

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from kbdfl.errors import ConfigError, TooMany

NONE = "none"
ENROL, LOGIN, CHECK_IN = "enrol", "login", "check-in"


class Rates:
    """Limits by kind: enrolments and logins of an address, check-ins of a device. Thread-safe.

    Each is a text such as "60/minute" or "5 per 10 seconds", or "none". Raises ConfigError for any other.
    """

    def __init__(self, *, enrol: str = NONE, login: str = "10/minute", check_in: str = NONE) -> None:
        texts = {ENROL: enrol, LOGIN: login, CHECK_IN: check_in}
        self._limits = {kind: _parsed(kind, text) for kind, text in texts.items() if text != NONE}
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage()) if self._limits else None

    def check(self, kind: str, who: str) -> None:
        """Count a request of `who`; raises TooMany if there were more than the limit of its kind allows."""
        limit = self._limits.get(kind)
        if limit is None or self._limiter is None or self._limiter.hit(limit, kind, who):
            return
        wait_s = self._limiter.get_window_stats(limit, kind, who).reset_time - time.time()
        wait_s = min(max(math.ceil(wait_s), 1), limit.get_expiry())
        raise TooMany(
            f"at most {limit} {kind}s are answered here, come back in {wait_s} s", retry_after_s=wait_s
        )


def _parsed(kind: str, text: str) -> RateLimitItem:
    try:
        return parse(text)
    except ValueError:
        raise ConfigError(
            f"a limit of {kind}s must be none or a rate such as 60/minute, got {text[:60]!r}"
        ) from None
