"""Whose export a file is, by what is in it; names count only where a folder holds several files."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kbdfl.device_sim.typing.imports.fields import Columns
from kbdfl.device_sim.typing.imports.folder import SUFFIXES, data_files, read_folder
from kbdfl.device_sim.typing.imports.items import Items, Options
from kbdfl.device_sim.typing.imports.jsonl import read_jsonl
from kbdfl.device_sim.typing.imports.jsonstream import first_fields
from kbdfl.device_sim.typing.imports.leaf import read_leaf
from kbdfl.device_sim.typing.imports.mail import SEPARATOR, read_mail
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.device_sim.typing.imports.sms import read_sms
from kbdfl.device_sim.typing.imports.table import read_table, separator_of
from kbdfl.device_sim.typing.imports.telegram import read_telegram
from kbdfl.device_sim.typing.imports.whatsapp import START, read_whatsapp
from kbdfl.errors import ConfigError, DataError

IMPORTERS: dict[str, Callable[[Opened, Options], Items]] = {
    "jsonl": read_jsonl,
    "csv": read_table,
    "leaf": read_leaf,
    "sms": read_sms,
    "whatsapp": read_whatsapp,
    "telegram": read_telegram,
    "mbox": read_mail,
}
FORMATS = (*IMPORTERS, "datasets")
_FIXED = ("text-column", "user-column", "time-column")
WITHOUT: dict[str, tuple[str, ...]] = {  # options that mean nothing to a format
    "leaf": ("user", "dates", *_FIXED),
    "sms": ("me", "dates", *_FIXED),
    "whatsapp": _FIXED,
    "telegram": ("dates", *_FIXED),
    "mbox": ("dates", *_FIXED),
}
INSIDE = ("result.json", "_chat.txt", "mbox")  # what Telegram, WhatsApp and Apple Mail put into a folder
_XML = ("<smses", "<sms", "<mms", "<allsms", "<gosms", "<threads")
_TELEGRAM = {"messages", "chats", "personal_information", "left_chats"}
_LEAF = {"user_data", "num_samples", "hierarchies"}


def open_export(
    path: Path, format: str, options: Options, *, masked: bool
) -> tuple[str, Opened | None, Items]:
    """The format ("auto" looks), the opened file (None for a datasets folder), and what its importer yields.

    Raises DataError for a file that is not there or of no format that is known, ConfigError for options that do not
    fit it.
    """
    if format not in ("auto", *FORMATS):
        raise ConfigError(f"format must be auto or one of {', '.join(FORMATS)}, got {format!r}")
    name, file, importer = _find(path, format, masked=masked)
    _check_options(name, options)
    return name, file if isinstance(file, Opened) else None, importer(file, options)


def _find(path: Path, format: str, *, masked: bool) -> tuple[str, Any, Callable[[Any, Options], Items]]:
    """The format, what its importer is given, and the importer."""
    if path.is_dir():
        inside = next((path / name for name in INSIDE if (path / name).is_file()), None)
        if inside is None or format == "datasets":
            if format not in ("auto", "datasets") or not data_files(path):
                raise DataError(f"{path} must hold one of {', '.join(INSIDE)}, or Arrow or Parquet files")
            return "datasets", path, read_folder
        path = inside
    if not path.is_file():
        raise DataError(f"no file at {path}")
    if format == "datasets" or (format == "auto" and path.suffix in SUFFIXES):
        return "datasets", path, read_folder
    file = Opened(path)
    name = detect(file) if format == "auto" else format
    file.fallback_lines = 0  # of the head; mails know their own encodings
    return name, file, partial(read_telegram, masked=masked) if name == "telegram" else IMPORTERS[name]


def _check_options(name: str, options: Options) -> None:
    """Raise ConfigError for an option that means nothing to a format."""
    columns = {field: getattr(options, field) for field in ("text_column", "user_column", "time_column")}
    given = {
        "me": bool(options.me),
        "user": options.user != "me",
        "dates": options.dates != "auto",
        "time-zone": options.zone is not None,
        **{field.replace("_", "-"): value is not None for field, value in columns.items()},
    }
    for option in WITHOUT.get(name, ()):
        if given[option]:
            raise ConfigError(f"--{option} means nothing to {name}, as which the file is read")


def detect(file: Opened) -> str:
    """The format of a text. Raises DataError when it is none that is known, or empty."""
    head = file.head().lstrip("\ufeff")
    text = head.lstrip()
    if not text:
        raise DataError(f"{file.path} is empty")
    if text.startswith("<"):
        lowered = text.lower()
        if any(tag in lowered for tag in _XML):
            return "sms"
    if text.startswith("From ") and SEPARATOR.match(text.split("\n", 1)[0].rstrip().encode()):
        return "mbox"
    lines = [line.rstrip("\r") for line in head.split("\n")[:200]]
    if any(START.match(line) for line in lines):  # before tables: its dates have commas
        return "whatsapp"
    if found := _json(text, lines):
        return found
    if _is_table(lines):
        return "csv"
    raise DataError(
        f"{file.path} looks like none of {', '.join(IMPORTERS)}: --format says which it is, should it be one"
    )


def _json(text: str, lines: list[str]) -> str | None:
    """LEAF and Telegram by the names of the first object's fields, JSON lines by a line that is an object."""
    fields = first_fields(text)
    if fields & _LEAF or ("users" in fields and len(fields) == 1):
        return "leaf"
    if fields & _TELEGRAM:
        return "telegram"
    for line in lines:
        if line.lstrip().startswith("{"):
            try:
                json.loads(line)
            except (ValueError, RecursionError):
                continue
            return "jsonl"
    return "jsonl" if len(fields & {"text", "message", "body", "content"}) else None


def _is_table(lines: list[str]) -> bool:
    """Whether the first line names a column of text."""
    names = [cell.strip('" ') for cell in lines[0].split(separator_of(lines[0]))]
    try:
        Columns.among(names, Options(), what="the table")
    except ConfigError:
        return False
    return len(names) > 1 or len(lines) > 1
