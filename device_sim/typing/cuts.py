"""What every source does with its logs: the first users, the first days, key presses on top."""

from collections.abc import Sequence
from dataclasses import replace

from kbdfl.device_sim.typing.keystrokes import keystrokes, typist
from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import ConfigError
from kbdfl.rng import stream

DAY_S = 86_400.0


def first_users(names: Sequence[str], users: int | None, *, source: str) -> Sequence[str]:
    """The first `users` of `names`. Raises ConfigError when there are fewer."""
    if users is not None and users > len(names):
        raise ConfigError(f"users must be <= {len(names)}, the number of users in {source}, got {users}")
    return names[:users]


def first_days(messages: list[Message], days: int | None) -> list[Message]:
    """What was typed within `days` of the first message; messages without a time are kept."""
    known = [message.time for message in messages if message.time is not None]
    if days is None or not known:
        return messages
    end = min(known) + days * DAY_S
    return [message for message in messages if message.time is None or message.time < end]


def with_keystrokes(messages: list[Message], *, seed: int) -> list[Message]:
    """The same messages with simulated key presses, each ending in its text; a user keeps their hands."""
    if not messages:
        return messages
    hands = typist(stream(seed, "hands", messages[0].user))
    random = stream(seed, "keystrokes", messages[0].user)
    return [replace(message, keys=keystrokes(message.text, hands, random)) for message in messages]
