"""A phone's typing log: what its user committed, bounded in number, bytes and age, and gone when it expires."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kbdfl.device_sim.typing.records import Message, read_messages, write_messages
from kbdfl.errors import ConfigError
from kbdfl.text import Vocabulary


@dataclass(frozen=True, slots=True)
class Retention:
    """Bounds of a log: the newest `max_messages`, `max_bytes` of UTF-8 text, nothing older than `max_age_s`."""

    max_messages: int = 1_000
    max_bytes: int = 1 << 20
    max_age_s: float = 365 * 86_400.0

    def __post_init__(self) -> None:
        for name in ("max_messages", "max_bytes", "max_age_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")


class TypingLog:
    """Messages of one user, oldest first. With a `path` it is kept there as JSONL; without, in memory."""

    def __init__(self, retention: Retention | None = None, *, path: Path | None = None) -> None:
        self.retention = retention or Retention()
        self._path = path
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._encoded: tuple[str, list[list[int]]] | None = None
        if path is not None and path.exists():
            self._append(read_messages(path))
            if self._forget(self._newest()):
                self._changed()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the texts held."""
        return self._bytes

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(self._messages)

    def extend(self, messages: Iterable[Message]) -> None:
        """Add newer messages; what no longer fits the bounds is forgotten, oldest first.

        Age counts from the newest message. One without a time has no age.
        """
        before = len(self._messages)
        self._append(messages)
        if len(self._messages) > before:
            self._forget(self._newest())
            self._changed()

    def expire(self, now: float) -> None:
        """Forget what is older than `max_age_s` at `now` (unix seconds)."""
        if self._forget(now):
            self._changed()

    def sentences(self, vocabulary: Vocabulary) -> list[list[int]]:
        """Token ids of every message that has at least one word, to be read only; encoded once a vocabulary."""
        if self._encoded is None or self._encoded[0] != vocabulary.sha256:
            encoded = vocabulary.encode_many(message.text for message in self._messages)
            self._encoded = (vocabulary.sha256, [ids for ids in encoded if len(ids) > 2])
        return self._encoded[1]

    def clear(self) -> None:
        """Forget everything, on disk too."""
        self._messages.clear()
        self._bytes = 0
        self._changed()

    def _append(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._messages.append(message)
            self._bytes += len(message.text.encode())

    def _newest(self) -> float | None:
        return max((message.time for message in self._messages if message.time is not None), default=None)

    def _forget(self, now: float | None) -> bool:
        """Whether anything had to go."""
        bounds, before = self.retention, len(self._messages)
        if now is not None:
            # Clocks jump and some messages have no time, so the old ones need not stand first.
            fresh = [m for m in self._messages if m.time is None or now - m.time <= bounds.max_age_s]
            if len(fresh) < before:
                self._messages = deque(fresh)
                self._bytes = sum(len(message.text.encode()) for message in fresh)
        while self._messages and (
            len(self._messages) > bounds.max_messages or self._bytes > bounds.max_bytes
        ):
            self._bytes -= len(self._messages.popleft().text.encode())
        return len(self._messages) < before

    def _changed(self) -> None:
        self._encoded = None
        if self._path is not None:
            if self._messages:
                write_messages(self._path, self._messages)
            else:
                self._path.unlink(missing_ok=True)
