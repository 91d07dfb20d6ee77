"""JSON lines: an object a line, kbdfl's own typing log among them.

Key presses are not kept: they spell the text as it was before masking.
"""

import json
from collections.abc import Iterator
from typing import Any

from kbdfl.device_sim.typing.imports.fields import Columns, message_of, order_of
from kbdfl.device_sim.typing.imports.items import (
    TEXT_NAMES,
    TIME_NAMES,
    USER_NAMES,
    Items,
    Malformed,
    Options,
)
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.errors import ConfigError


def read_jsonl(file: Opened, options: Options) -> Items:
    """Yield the messages of a file of JSON lines; blank lines are nothing.

    A field goes by its option, else by the first usual name that the object has. Raises ConfigError when no object
    before the 1,000th has the field that an option names.
    """
    asked = {options.text_column, options.user_column, options.time_column} - {None}
    known: dict[tuple[str, ...], Columns] = {}

    def columns_of(record: dict[str, Any]) -> Columns:
        shape = tuple(record)
        if shape not in known:
            if len(known) > 1000:  # objects of ever new shapes
                known.clear()
            known[shape] = _columns(record, options)
        return known[shape]

    whole = (record for _, record in _records(file) if isinstance(record, dict))
    columned = ((record, columns_of(record).time) for record in whole)
    order, note = order_of((None if time is None else record.get(time) for record, time in columned), options)
    if note:
        yield note
    objects = 0
    for number, record in _records(file):
        if isinstance(record, Malformed):
            yield record
            continue
        objects += 1
        asked -= record.keys()
        if asked and objects == 1000:
            break
        yield message_of(record, columns_of(record), options, line=number, order=order)
    if asked and objects:
        raise ConfigError(f"no object in {file.path} has a field {sorted(map(str, asked))[0]!r}")


def _records(file: Opened) -> Iterator[tuple[int, dict[str, Any] | Malformed]]:
    """(line, object or what is wrong there)."""
    for number, line in file.lines():
        if line is None:
            yield number, Malformed(number, "a line of millions of characters")
            continue
        if not line or line.isspace():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            yield number, Malformed(number, "not JSON")
            continue
        yield number, record if isinstance(record, dict) else Malformed(number, "not an object")


def _columns(record: dict[str, Any], options: Options) -> Columns:
    def find(asked: str | None, usual: tuple[str, ...]) -> str | None:
        return asked or next((name for name in usual if name in record), None)

    return Columns(
        find(options.text_column, TEXT_NAMES) or TEXT_NAMES[0],
        find(options.user_column, USER_NAMES),
        find(options.time_column, TIME_NAMES),
    )
