"""Where typing comes from: one interface over real chat, generated personas and anyone's JSONL log."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from kbdfl.device_sim.typing.cuts import first_days, first_users
from kbdfl.device_sim.typing.records import Message, read_messages
from kbdfl.errors import ConfigError, DataError


class Source(Protocol):
    """Users and what they typed."""

    @property
    def name(self) -> str:
        """What reports and errors call it."""
        ...

    def users(self) -> Sequence[str]:
        """All users, in an order that does not change; may be lazy."""
        ...

    def messages(self, user: str, *, keystrokes: bool = False) -> list[Message]:
        """The user's messages in chronological order; with key presses only when asked, for they cost time.

        The texts do not depend on `keystrokes`. Raises DataError for a user who is not of this source.
        """
        ...


def open_source(spec: str, *, seed: int, users: int | None = None, days: int | None = None) -> Source:
    """The source called `spec`: "chat", "personas", or the path of a `.jsonl` or `.jsonl.gz` typing log.

    `users` keeps the first so many users (default: all; for personas 1,000), `days` what each of them typed
    in so many days from their first message (default: all; for personas 28 days). What is simulated follows
    from `seed`. Raises DataError when the source is not there or malformed, ConfigError when it has fewer
    than `users` users.
    """
    for name, number in (("users", users), ("days", days)):
        if number is not None and number < 1:
            raise ConfigError(f"{name} must be >= 1, got {number}")
    if spec == "personas":
        from kbdfl.device_sim.typing.personas import Personas

        return Personas(seed=seed, users=users or 1000, days=days or 28)
    if spec == "chat":
        from kbdfl.device_sim.typing.chat import Chat

        return Chat(seed=seed, users=users, days=days)
    if not spec.endswith((".jsonl", ".jsonl.gz")) and not Path(spec).exists():
        raise DataError(f"a source must be chat, personas or a .jsonl or .jsonl.gz file, got {spec!r}")
    return JsonlSource(Path(spec), users=users, days=days)


def is_held_out(user: str) -> bool:
    """Whether a user is never trained on: every fifth one, by the hash of the name."""
    return int(sha256(user.encode()).hexdigest(), 16) % 5 == 0


class JsonlSource:
    """A typing log file: users in the order of their first line, messages by time where all of them have one.

    Key presses are those that were recorded; messages without them keep None.
    """

    def __init__(self, path: Path, *, users: int | None = None, days: int | None = None) -> None:
        self.name = path.name
        self._path, self._days = path, days
        self._logs = self._read(keys=False)
        self._users = tuple(first_users(tuple(self._logs), users, source=str(path)))
        self._with_keys: dict[str, list[Message]] | None = None

    def users(self) -> Sequence[str]:
        return self._users

    def messages(self, user: str, *, keystrokes: bool = False) -> list[Message]:
        logs = self._logs
        if keystrokes:  # read again, and only now: key presses take most of the memory
            if self._with_keys is None:
                self._with_keys = self._read(keys=True)
            logs = self._with_keys
        if user not in logs:
            raise DataError(f"no user {user!r} in {self._path}")
        return first_days(logs[user], self._days)

    def _read(self, *, keys: bool) -> dict[str, list[Message]]:
        logs: dict[str, list[Message]] = {}
        for message in read_messages(self._path, keys=keys):
            logs.setdefault(message.user, []).append(message)
        for messages in logs.values():
            if all(message.time is not None for message in messages):
                messages.sort(key=lambda message: message.time or 0.0)
        return logs
