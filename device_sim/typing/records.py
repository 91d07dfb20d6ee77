"""The typing log: one committed message a record, and its JSONL form.

A line is `{"user": ..., "text": ...}` with, where known, `"time"` (unix seconds), `"app"` and
`"keys": [[key, seconds since the first key], ...]`. A file whose name ends in `.gz` is gzip.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from io import TextIOWrapper
from math import isfinite
from os import replace
from pathlib import Path
from typing import Any

from kbdfl.errors import DataError

BACKSPACE = "Backspace"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Key:
    """One key press: a single character, or `BACKSPACE`; `time` in seconds after the message's first key."""

    key: str
    time: float


@dataclass(frozen=True, slots=True)
class Message:
    """What one user committed: `text` as sent, `time` in unix seconds, `app` the kind of app it went to.

    `keys` are the presses that led to `text` (see `keystrokes.replay`); None where nobody recorded them.
    """

    user: str
    text: str
    time: float | None = None
    app: str | None = None
    keys: tuple[Key, ...] | None = None


def read_messages(path: Path | str, *, keys: bool = True) -> Iterator[Message]:
    """Stream a typing log, line by line; blank lines are skipped and unknown fields ignored.

    With `keys=False` recorded key presses are passed over, which saves most of the memory. Raises DataError,
    one line that names the file and the number of a malformed line, when the file is missing, unreadable, no
    log, or holds no message at all.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no typing log at {path}")
    line_number = found = 0
    try:
        with open(path, "rb") as raw, closing(gzip.open(raw) if path.suffix == ".gz" else raw) as file:
            for line in file:
                line_number += 1
                if line.strip():
                    yield _message(line, keys=keys)
                    found += 1
    except _Malformed as problem:
        raise DataError(f"{path} line {line_number}: {problem}") from None
    except (OSError, EOFError, zlib.error) as error:  # a cut or altered gzip file, no permission, a bad disk
        raise DataError(f"{path} cannot be read after line {line_number}: {error}") from None
    if not found:
        raise DataError(f"the typing log {path} is empty: it must hold at least one message")


def write_messages(path: Path | str, messages: Iterable[Message]) -> int:
    """Write a typing log as it streams in and return the number of messages; equal messages, equal bytes.

    The file appears under its name only when it is complete. Raises DataError when there is no message.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    written = 0
    try:
        with open(part, "wb") as raw:
            binary = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw
            with TextIOWrapper(binary, "utf-8", newline="\n") as file:
                for message in messages:
                    file.write(_encode(_record(message)) + "\n")
                    written += 1
        if not written:
            raise DataError(f"a typing log must hold at least one message, got none for {path}")
        replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return written


class _Malformed(Exception):
    """What is wrong with a line; `read_messages` adds where."""


def _record(message: Message) -> dict[str, Any]:
    record: dict[str, Any] = {"user": message.user, "text": message.text}
    if message.time is not None:
        record["time"] = message.time
    if message.app is not None:
        record["app"] = message.app
    if message.keys is not None:
        record["keys"] = [[key.key, key.time] for key in message.keys]
    return record


def _message(line: bytes, *, keys: bool) -> Message:
    try:
        record = json.loads(line)
    except UnicodeDecodeError:
        raise _Malformed("not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise _Malformed(f"not JSON ({str(error)[:60]})") from None
    if not isinstance(record, dict):
        raise _Malformed(f"a message must be a JSON object, got {_short(record)}")
    user, text = _string(record, "user"), _string(record, "text")
    if not user:
        raise _Malformed('"user" must not be empty')
    time, app = record.get("time"), record.get("app")
    if time is not None:
        time = _seconds(time, '"time"')
    if app is not None:
        app = _string(record, "app")
    presses = record.get("keys")
    return Message(user, text, time, app, _keys(presses) if keys and presses is not None else None)


def _string(record: dict[str, Any], name: str) -> str:
    if name not in record:
        raise _Malformed(f'"{name}" is missing')
    value = record[name]
    if not isinstance(value, str):
        raise _Malformed(f'"{name}" must be a string, got {_short(value)}')
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Malformed(f'"{name}" holds half of a surrogate pair') from None
    return value


def _seconds(value: object, name: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or abs(value) > 1e15
        or not isfinite(value)
    ):
        raise _Malformed(f"{name} must be a finite number of seconds, got {_short(value)}")
    return float(value)


def _keys(presses: object) -> tuple[Key, ...]:
    if not isinstance(presses, list):
        raise _Malformed(f'"keys" must be a list, got {_short(presses)}')
    keys, before = [], 0.0
    for press in presses:
        if not isinstance(press, list) or len(press) != 2 or not isinstance(press[0], str):
            raise _Malformed(f'each of "keys" must be [key, seconds], got {_short(press)}')
        if len(press[0]) != 1 and press[0] != BACKSPACE:
            raise _Malformed(f"a key must be one character or {BACKSPACE}, got {_short(press[0])}")
        time = _seconds(press[1], "the time of a key")
        if time < before:
            raise _Malformed(f'the times of "keys" must not go back, got {time} after {before}')
        keys.append(Key(press[0], time))
        before = time
    return tuple(keys)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
