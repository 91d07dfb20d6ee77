"""Parts of a JSON document of any size, as they go by, with the line that each begins on.

The parser is ijson's (BSD; YAJL in C): it is pushed one line at a time, so that every event has a line, and holds no
more than the part being built. A document that is broken inside a list of objects which begin on lines of their own, as
Telegram writes them, is taken up again at the next such line.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ijson

from kbdfl.device_sim.typing.imports.items import Malformed
from kbdfl.device_sim.typing.imports.opened import BLOCK, Opened

Keys = list[str | None]  # the way to a value: a name for each object, None for each array
Wanted = Callable[[Keys, bool], bool]
DEEPEST = 64  # containers inside each other
LONGEST_VALUE = 8 << 20  # bytes pushed without an event: one string or number
MOST_EVENTS = 200_000  # of one part
_OPENING = {"start_map": dict, "start_array": list}


@dataclass(frozen=True, slots=True)
class Found:
    """A part: the way to it, its value, and the line that it begins on."""

    keys: tuple[str | None, ...]
    value: Any
    line: int


class _Broken(Exception):
    """What is wrong with the document, in few words."""


def parts(file: Opened, wanted: Wanted) -> Iterator[Found | Malformed]:
    """Yield the values of which `wanted(way, is no container)` says yes; nothing inside them is asked about.

    A document that breaks is one `Malformed`, and goes on where it can.
    """
    walk = _Walk(wanted)
    lines = _pushes(file)
    for number, line in lines:
        broken = None
        try:
            yield from walk.push(line, number)
        except _Broken as error:
            broken = str(error)
        if broken is not None:
            yield Malformed(number, broken)
            if not walk.take_up(lines):
                return
            yield from walk.push(walk.opening, walk.line)
    if walk.unfinished():
        yield Malformed(walk.line, "the file breaks off, or is not JSON")


class _Walk:
    """The parser, where it stands in the document, and the part that it is building."""

    def __init__(self, wanted: Wanted) -> None:
        self.line, self.opening = 1, ""
        self._wanted = wanted
        self._way: Keys = []  # to the objects that begin on a line of their own
        self._start()

    def _start(self) -> None:
        self._keys: Keys = []
        self._building: list[Any] = []
        self._names: list[str] = []
        self._part: tuple[Any, int] = (None, 0)
        self._count = self._silent = 0
        self._events = ijson.sendable_list()
        self._parser = ijson.basic_parse_coro(self._events)

    def push(self, text: str, line: int) -> Iterator[Found]:
        """Parse on. Raises `_Broken`, after the parts that came before."""
        self.line = line
        broken = None
        try:
            self._parser.send(text.encode("utf-8", "replace"))
        except ijson.JSONError:
            broken = "not JSON"
        self._silent = 0 if self._events else self._silent + len(text)
        if self._silent > LONGEST_VALUE:
            broken = "a value of millions of characters"
        own_line = text.strip() == "{" and text.endswith("\n")
        for event, value in self._events:
            if self._building:
                found = self._build(event, value)
                if found is not None:
                    yield found
            elif event == "map_key":
                self._keys[-1] = value
            elif event in ("end_map", "end_array"):
                self._keys.pop()
            elif self._wanted(self._keys, event not in _OPENING):
                if event in _OPENING:
                    self._building, self._names, self._count = [_OPENING[event]()], [""], 0
                    self._part = (self._building[0], line)
                    if own_line:
                        self.opening, self._way = text, list(self._keys)
                else:
                    yield Found(tuple(self._keys), value, line)
            elif event in _OPENING:
                self._keys.append("" if event == "start_map" else None)
                if len(self._keys) > DEEPEST:
                    broken = "nested too deep"
                    break
        del self._events[:]
        if broken:
            raise _Broken(broken)

    def _build(self, event: str, value: Any) -> Found | None:
        self._count += 1
        if self._count > MOST_EVENTS or len(self._building) > DEEPEST:
            raise _Broken("a record too large or too deep")
        if event == "map_key":
            self._names[-1] = value
            return None
        if event in ("end_map", "end_array"):
            self._building.pop()
            self._names.pop()
            return None if self._building else Found(tuple(self._keys), *self._part)
        new = _OPENING[event]() if event in _OPENING else value
        inside = self._building[-1]
        if isinstance(inside, dict):
            inside[self._names[-1]] = new
        else:
            inside.append(new)
        if event in _OPENING:
            self._building.append(new)
            self._names.append("")
        return None

    def take_up(self, lines: Iterator[tuple[int, str]]) -> bool:
        """Go to the next line on which such an object begins, and have the parser believe it came there as before."""
        if not self.opening:
            return False
        for number, line in lines:
            if line == self.opening:
                way = self._way
                self._start()
                openings = "".join("[" if key is None else "{" + json.dumps(key) + ":" for key in way)
                for _ in self.push(openings, number):  # opens containers alone, in which nothing is wanted
                    pass
                return True
        return False

    def unfinished(self) -> bool:
        """Whether the document is not whole, now that all of it was pushed."""
        try:
            self._parser.close()
        except ijson.JSONError:
            return True
        return bool(self._keys or self._building)


def _pushes(file: Opened) -> Iterator[tuple[int, str]]:
    """(number, line with its end); a longer line in pieces of a block."""
    number, carried = 1, ""
    for chunk in file.chunks():
        whole = chunk.split("\n")
        whole[0] = carried + whole[0]
        carried = whole.pop()
        for line in whole:
            yield number, line + "\n"
            number += 1
        if len(carried) >= BLOCK:
            yield number, carried
            carried = ""
    if carried:
        yield number, carried


def first_fields(text: str) -> set[str]:
    """Names at the top of the first object, as far as `text` goes."""
    names: set[str] = set()
    if not text.startswith("{"):
        return names
    events = ijson.sendable_list()
    parser = ijson.basic_parse_coro(events)
    try:
        parser.send(text.encode("utf-8", "replace"))
        parser.close()
    except ijson.JSONError:  # cut off, as a head is; what came before it is known
        pass
    depth = 0
    for event, value in events:
        depth += event in ("start_map", "start_array")
        depth -= event in ("end_map", "end_array")
        if event == "map_key" and depth == 1:
            names.add(value)
        if depth == 0:
            break
    return names
