"""Users made up from (seed, name) alone: a million of them cost nothing until somebody asks for one.

What they write comes from `writer` (topics, style, dialect, habits of words), when, where and how much from
`schedule`, how they hit the keys from `keystrokes`; each of these states its priors.
"""

from collections.abc import Iterator, Sequence
from operator import index
from typing import overload

from kbdfl.device_sim.typing.cuts import with_keystrokes
from kbdfl.device_sim.typing.keystrokes import leave_typos, typist
from kbdfl.device_sim.typing.records import Message
from kbdfl.device_sim.typing.schedule import sessions
from kbdfl.device_sim.typing.writer import Writer
from kbdfl.errors import ConfigError, DataError
from kbdfl.rng import stream


class Personas:
    """`users` personas over `days` simulated days, from Monday 1 January 2024 on; see `sources.Source`."""

    name = "personas"

    def __init__(self, *, seed: int, users: int = 1000, days: int = 28) -> None:
        for option, number in (("users", users), ("days", days)):
            if number < 1:
                raise ConfigError(f"{option} must be >= 1, got {number}")
        self._seed, self._days = seed, days
        self._users = PersonaNames(users)

    def users(self) -> "PersonaNames":
        return self._users

    def messages(self, user: str, *, keystrokes: bool = False) -> list[Message]:
        if user not in self._users:
            raise DataError(f"no user {user!r} among {len(self._users)} personas")
        random = stream(self._seed, "persona", user)
        writer = Writer(random)
        hands = typist(stream(self._seed, "hands", user))
        messages = []
        for session in sessions(self._days, writer.style, random):
            writer.open_session()
            for time in session.times:
                text = leave_typos(writer.message(session.app), hands, random)
                messages.append(Message(user, text, time, session.app))
        messages.sort(key=lambda message: message.time or 0.0)
        return with_keystrokes(messages, seed=self._seed) if keystrokes else messages


class PersonaNames(Sequence[str]):
    """The names persona-0000000, persona-0000001, ... of any number of personas, none of which is stored."""

    __slots__ = ("_count",)

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return tuple(map(_persona_name, range(*place.indices(self._count))))
        number = index(place)
        if number < 0:
            number += self._count
        if not 0 <= number < self._count:
            raise IndexError(f"persona {place} of {self._count}")
        return _persona_name(number)

    def __iter__(self) -> Iterator[str]:
        return map(_persona_name, range(self._count))

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or not name.startswith("persona-"):
            return False
        digits = name.removeprefix("persona-")
        return (
            digits.isascii()
            and digits.isdigit()
            and len(digits) < 20
            and int(digits) < self._count
            and name == _persona_name(int(digits))
        )


def _persona_name(number: int) -> str:
    return f"persona-{number:07d}"
