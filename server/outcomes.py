"""What came of the request in hand, in one word, for those who count requests.

The words are a bounded set: what an answer is called in the code, or the class of the error that refused it. No word
comes from a request.
"""

import re
from functools import cache

from flask import g


def note(outcome: str) -> None:
    """The request in hand came to this: `assigned`, say."""
    g.outcome = outcome


def note_error(error: Exception) -> None:
    """The request in hand was refused with this."""
    g.outcome = outcome_of(error)


def outcome_of(error: Exception) -> str:
    """What a refusal with this is called."""
    return _words(type(error).__name__)


def noted(status: int) -> str:
    """What was noted of the request in hand, or failing that what its status says."""
    outcome: str | None = g.get("outcome")
    return outcome or (f"http_{status}" if status >= 400 else "ok")


@cache
def _words(name: str) -> str:
    """`TooStale` as too_stale, `WireError` as wire."""
    return re.sub("(?<!^)([A-Z])", r"_\1", name).lower().removesuffix("_error")
