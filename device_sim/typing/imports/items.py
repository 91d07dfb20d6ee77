"""What importers are asked and what they answer.

An importer is a function of an opened file and `Options` that yields, in the order of the file: a `Message`, a
`Skipped` or a `Malformed` for every record, and now and then a `Note`. None but the message holds a word of the file,
save the names of those whose messages are skipped.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import NoReturn

from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import ConfigError

DATES = ("auto", "dmy", "mdy", "ymd")
TEXT_NAMES = ("text", "message", "body", "content", "msg")
USER_NAMES = ("user", "user_id", "author", "sender", "username", "from", "name")
TIME_NAMES = ("time", "timestamp", "date", "datetime", "created_at", "created_utc", "sent_at")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A whole record that is not kept; `reason` is one of few phrases, for they are counted. `of`: whose it is."""

    reason: str
    of: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Malformed:
    """A record that cannot be read: the line it begins on, from 1, or its number where the format has no lines."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something about the whole file that its owner should know."""

    text: str


Item = Message | Skipped | Malformed | Note
Items = Iterator[Item]

OTHERS = Skipped("someone else's")
NO_TEXT = Skipped("no text")
SYSTEM = Skipped("system line")
MEDIA = Skipped("media without words")
FORWARDED = Skipped("forwarded")


@dataclass(frozen=True, slots=True)
class Options:
    """How to read a file.

    me            names, ids or addresses under which one's own messages stand; () where the format says who one is
    user          the user that one's own messages get where the format names none
    dates         what 3/4/2024 means: "dmy", "mdy", "ymd", or "auto" for what fits the whole file
    zone          the time zone of times that name none; None for this machine's
    *_column      names of columns or fields; None for the first usual one that is there
    """

    me: tuple[str, ...] = ()
    user: str = "me"
    dates: str = "auto"
    zone: tzinfo | None = None
    text_column: str | None = None
    user_column: str | None = None
    time_column: str | None = None

    def __post_init__(self) -> None:
        if self.dates not in DATES:
            raise ConfigError(f"dates must be one of {', '.join(DATES)}, got {self.dates!r}")
        if not self.user:
            raise ConfigError("user must not be empty")
        if not all(name.strip() for name in self.me):
            raise ConfigError("me must not be empty")

    def is_me(self, *names: object) -> bool:
        """Whether one of `names` is one's own, whatever its case."""
        mine = {name.strip().casefold() for name in self.me}
        return any(isinstance(name, str) and name.strip().casefold() in mine for name in names)


def others_of(name: object) -> Skipped:
    """A message of somebody else's, whose name is kept for the case that all are."""
    return Skipped(OTHERS.reason, of=name) if isinstance(name, str) else OTHERS


def listed(names: Iterable[str]) -> str:
    """Some names, as a message in one line has them."""
    found = list(dict.fromkeys(names))
    return ", ".join(name[:40] for name in found[:6]) + (" ..." if len(found) > 6 else "")


def ask_who(what: str, names: Iterable[str]) -> NoReturn:
    """Raise ConfigError: `what` does not say who one is, and `names` are in it."""
    raise ConfigError(
        f"{what} does not say who you are: --me must name you, one of {listed(names) or 'its senders'}"
    )
