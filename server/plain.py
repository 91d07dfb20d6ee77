"""Requests of phones that are read in one go, and answered so: waitress takes longer around a check-in than it takes.

A plain request is HTTP/1.1 to a path of letters, digits, `/`, `-`, `_` and `.`, without a query, with fields of visible
characters, each once, none of which changes how the connection is used, and a body whose length it says (RFC 9112).
Whatever is not plain is waitress's to read from its first byte on; what is, means the same to both.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Protocol

_HEAD = re.compile(
    rb"([A-Z]{3,7}) (/[\w/.-]{0,200}) HTTP/1\.1\r\n((?:[A-Za-z0-9-]++: [!-~][ -~]*+\r\n){1,40})\r\n"
)
_MOST_HEAD_BYTES = 4_096
_NOT_PLAIN = frozenset((b"connection", b"expect", b"te", b"trailer", b"transfer-encoding", b"upgrade"))
_LENGTH = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class Plain:
    """A request, of whose body of `length` bytes at least `body` is here. `headers` are by their names in any case."""

    method: str
    path: str
    headers: Mapping[str, str]
    length: int
    body: bytes = field(repr=False)

    @property
    def whole(self) -> bool:
        return len(self.body) == self.length


def read(data: bytes) -> Plain | None:
    """The request that `data` begins with, and does not go on after; None if it is not plain or its head not whole."""
    found = _HEAD.match(data, 0, _MOST_HEAD_BYTES)
    if found is None or found[2].startswith(b"//"):
        return None
    fields: dict[bytes, str] = {}
    for line in found[3].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        name = name.lower()
        if name in _NOT_PLAIN or name in fields:
            return None
        fields[name] = value.rstrip(b" ").decode("ascii")
    length, body = fields.get(b"content-length", "0"), data[found.end() :]
    if not _LENGTH.fullmatch(length) or len(body) > int(length):
        return None
    return Plain(found[1].decode(), found[2].decode("ascii"), _Fields(fields), int(length), body)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, with all fields that it needs but the date and the server's name."""

    status: int
    headers: Iterable[tuple[str, str]]
    content: bytes = field(repr=False)

    def encode(self, *, date: str, server: str) -> bytes:
        """As it is sent, on a connection that stays open."""
        fields = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
        head = f"HTTP/1.1 {status_line(self.status)}\r\n{fields}Date: {date}\r\nServer: {server}\r\n\r\n"
        return head.encode("latin-1") + self.content


class Quick(Protocol):
    """Who answers some plain requests in the thread that reads them, and so must not wait for anything."""

    def takes(self, request: Plain) -> bool:
        """Whether it answers this one, once its body is whole."""
        ...

    def answer(self, request: Plain, claim: Callable[[str], None]) -> Reply:
        """The answer; `claim` is called with the device that the request is from. Raises nothing."""
        ...


def status_line(status: int) -> str:
    """A status as HTTP says it: `404 Not Found`."""
    return f"{status} {HTTPStatus(status).phrase}"


class _Fields(Mapping[str, str]):
    def __init__(self, fields: dict[bytes, str]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields[_key(name)]

    def __iter__(self) -> Iterator[str]:
        return (name.decode("ascii") for name in self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@lru_cache(maxsize=64)
def _key(name: str) -> bytes:
    return name.lower().encode()
