"""Phones made from a source of typing logs, and the held-out users that measure what they learnt."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from kbdfl.device_sim.store import Retention, TypingLog
from kbdfl.device_sim.typing.sources import Source, is_held_out, open_source
from kbdfl.errors import ConfigError, DataError
from kbdfl.rng import stream
from kbdfl.text import Vocabulary

HELD_OUT_MESSAGES = 200  # of one held-out user, so that no one of them is the measurement
MOST_DEVICES = 10_000_000  # names alone take a gigabyte there


def open_logs(spec: str, *, seed: int, devices: int) -> Source:
    """The source called `spec`, with users enough for `devices` phones and some held out where it is generated.

    Raises ConfigError or DataError.
    """
    if not 0 <= devices <= MOST_DEVICES:
        raise ConfigError(f"devices must lie in [0, {MOST_DEVICES}], got {devices}")
    if spec != "personas":
        return open_source(spec, seed=seed)
    return open_source(spec, seed=seed, users=(devices or 1_000) * 4 // 3 + 60)


class Names(Protocol):
    """What phones are called, by place: a list, or names that are made when they are asked for."""

    def __getitem__(self, place: int, /) -> str: ...


class Crowd(Protocol):
    """Phones as a simulation sees them: a `Population`, or one of which little is kept."""

    @property
    def users(self) -> Names:
        """Their names, as many as there are phones."""
        ...

    def __len__(self) -> int: ...

    def log(self, user: str) -> TypingLog:
        """What was typed on a phone."""
        ...


class Population:
    """The training users of a source, a phone each; a phone's log is filled when it is first asked for.

    Raises DataError when the source has no training users, ConfigError when they are fewer than `devices`
    (0 = take all).
    """

    def __init__(self, source: Source, *, devices: int = 0, retention: Retention | None = None) -> None:
        self._source = source
        self._retention = retention or Retention()
        self.users: list[str] = []
        for user in source.users():
            if devices and len(self.users) == devices:
                break
            if not is_held_out(user):
                self.users.append(user)
        if not self.users:
            raise DataError(f"the source {source.name} has no training users (one user in five is held out)")
        if devices > len(self.users):
            raise ConfigError(
                f"devices must be at most the {len(self.users)} training users of {source.name}, got {devices}"
            )
        self._logs: dict[str, TypingLog] = {}

    def __len__(self) -> int:
        return len(self.users)

    def log(self, user: str) -> TypingLog:
        """The phone's typing log."""
        log = self._logs.get(user)
        if log is None:
            log = self._logs[user] = TypingLog(self._retention)
            log.extend(self._source.messages(user))
        return log

    def texts(self) -> Iterator[str]:
        """Every training message, for a vocabulary that is to be counted on them."""
        for user in self.users:
            for message in self.log(user).messages:
                yield message.text


def held_out_users(source: Source, *, at_most: int | None = None) -> Sequence[str]:
    """Users that never train: sha256(user) mod 5 = 0."""
    users = []
    for user in source.users():
        if is_held_out(user):
            users.append(user)
            if len(users) == at_most:
                break
    if not users:
        raise DataError(f"the source {source.name} has no held-out users (one user in five is held out)")
    return users


def held_out_sentences(source: Source, vocabulary: Vocabulary, *, words: int, seed: int) -> list[list[int]]:
    """Token ids of about `words` words of held-out users' messages, drawn user by user in a random order."""
    return drawn_sentences(source, held_out_users(source, at_most=5_000), vocabulary, words=words, seed=seed)


def drawn_sentences(
    source: Source, users: Sequence[str], vocabulary: Vocabulary, *, words: int, seed: int
) -> list[list[int]]:
    """Token ids of about `words` words of these users' messages, drawn user by user in a random order."""
    order = list(users)
    stream(seed, "held-out").shuffle(order)
    sentences: list[list[int]] = []
    total = 0
    for user in order:
        messages = source.messages(user)[:HELD_OUT_MESSAGES]
        for ids in vocabulary.encode_many(message.text for message in messages):
            sentences.append(ids)
            total += len(ids) - 2
        if total >= words:
            break
    return sentences
