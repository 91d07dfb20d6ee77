"""Real chat: the messages of the `chitchat-dataset` package, with keystrokes simulated on top when asked.

The texts stay as they were sent (their typos are real), except that e-mail addresses, URLs and long runs of
digits are masked as `<EMAIL>`, `<URL>`, `<#>`.
"""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kbdfl.device_sim.typing.cuts import first_days, first_users, with_keystrokes
from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import DataError

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_URL = re.compile(
    r"(?:https?://|www\.)\S+|\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|edu|gov|io|tv|me|ly|be)\b(?:/\S*)?",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"\d{5,}|\+?\(?\d{2,4}\)?(?:[ .-]\d{2,4}){2,}")


def mask(text: str) -> str:
    """`text` with addresses and numbers that could name a person replaced by their kind."""
    if "@" in text:
        text = _EMAIL.sub("<EMAIL>", text)
    if "." in text or "://" in text:
        text = _URL.sub("<URL>", text)
    return _DIGITS.sub("<#>", text)


class Chat:
    """The package's users, sorted by name, each with their messages by time. Reading it takes a second."""

    name = "chat"

    def __init__(self, *, seed: int, users: int | None = None, days: int | None = None) -> None:
        try:
            import chitchat_dataset
        except ImportError:
            raise DataError(
                'the source chat needs a package that is not there: pip install "kbdfl[chat]"'
            ) from None
        self._seed, self._days = seed, days
        self._logs: dict[str, list[tuple[str, str]]] = {}
        for conversation in _load(Path(chitchat_dataset.__file__).with_name("dataset.json")).values():
            for turn in conversation["messages"]:
                for message in turn:
                    if message["text"].strip():
                        line = (message["timestamp"], message["text"])
                        self._logs.setdefault(message["sender"], []).append(line)
        self._users = first_users(tuple(sorted(self._logs)), users, source="the chat package")

    def users(self) -> Sequence[str]:
        return self._users

    def messages(self, user: str, *, keystrokes: bool = False) -> list[Message]:
        if user not in self._logs:
            raise DataError(f"no user {user!r} in the chat package")
        # Python sorts stably, and the timestamps are all of one format, so that text order is time order
        lines = sorted(self._logs[user], key=lambda line: line[0])
        messages = [
            Message(user, mask(text), datetime.fromisoformat(time).timestamp(), "chat")
            for time, text in lines
        ]
        messages = first_days(messages, self._days)
        return with_keystrokes(messages, seed=self._seed) if keystrokes else messages


def _load(path: Path) -> dict[str, Any]:
    # the package's own reader leaves its file open, which ends in a ResourceWarning; so the file is read here
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"the chat package cannot be read: {error}") from None
