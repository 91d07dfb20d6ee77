"""Telegram Desktop's JSON export: `result.json` of one chat, or of everything.

An export of everything says who one is (`personal_information`); that of one chat does not, but in Saved Messages,
where all but the forwarded is one's own.
"""

from itertools import islice
from typing import Any

from kbdfl.device_sim.typing.imports.dates import when
from kbdfl.device_sim.typing.imports.items import (
    FORWARDED,
    MEDIA,
    NO_TEXT,
    SYSTEM,
    Item,
    Items,
    Malformed,
    Options,
    ask_who,
    others_of,
)
from kbdfl.device_sim.typing.imports.jsonstream import Found, Keys, parts
from kbdfl.device_sim.typing.imports.masking import MARKS
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.device_sim.typing.records import Message

# What an entity is in place of, where its kind says it better than its text can.
_ENTITIES = {
    "link": MARKS["url"],
    "email": MARKS["email"],
    "phone": MARKS["number"],
    "bank_card": MARKS["number"],
}
_SAVED = "saved_messages"


def wanted(keys: Keys, scalar: bool) -> bool:
    """Messages, what a chat is, and who one is."""
    last = keys[-1] if keys else ""
    if last is None:
        return keys[-2:-1] == ["messages"] and len(keys) in (2, 5)
    return scalar and (
        (last == "type" and len(keys) in (1, 4)) or keys == ["personal_information", "user_id"]
    )


def read_telegram(file: Opened, options: Options, *, masked: bool = True) -> Items:
    """Yield one's own messages, links and numbers that Telegram knew as such masked where `masked`.

    Raises ConfigError, naming senders, when the export does not say who one is and `options.me` is empty.
    """
    owner, saved = None, False
    for part in parts(file, wanted):
        if isinstance(part, Malformed):
            yield part
        elif part.keys[-1] == "user_id":
            owner = f"user{part.value}"
        elif part.keys[-1] == "type":
            saved = part.value == _SAVED
        else:
            if not options.me and owner is None and not saved:
                ask_who("an export of one Telegram chat", _senders(file))
            yield _message(part, options, owner=owner, saved=saved, masked=masked)


def _senders(file: Opened) -> list[str]:
    """Names of the first senders."""
    found = (part.value for part in islice(parts(file, wanted), 2000) if isinstance(part, Found))
    names = (record.get("from") for record in found if isinstance(record, dict))
    return [name for name in names if isinstance(name, str)]


def _message(part: Found, options: Options, *, owner: str | None, saved: bool, masked: bool) -> Item:
    record, line = part.value, part.line
    if not isinstance(record, dict):
        return Malformed(line, "a message is no object")
    if record.get("type") != "message":
        return SYSTEM if record.get("type") == "service" else Malformed(line, "a message of no known type")
    sender = record.get("from_id"), record.get("from")
    if options.me:
        mine = options.is_me(*sender)
    else:
        mine = sender[0] == owner if owner is not None else saved
    if not mine:
        return others_of(record.get("from"))
    if record.get("forwarded_from") is not None or record.get("via_bot") is not None:
        return FORWARDED
    text = _text(record.get("text"), masked)
    if text is None:
        return Malformed(line, "the text is missing")
    if not text.strip():
        return MEDIA if record.keys() & {"file", "photo", "media_type"} else NO_TEXT
    date = record.get("date_unixtime", record.get("date"))
    time = when(date, options.zone)
    if date is not None and time is None:
        return Malformed(line, "the time is none")
    return Message(options.user, text, time, "chat")


def _text(value: Any, masked: bool) -> str | None:
    """A message's text: a string, or a list of strings and of entities with a text each."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return None
    pieces: list[str] = []
    for each in value:
        text, kind = (each.get("text"), each.get("type")) if isinstance(each, dict) else (each, None)
        if not isinstance(text, str):
            return None
        pieces.append(_ENTITIES.get(kind, text) if masked and isinstance(kind, str) else text)
    return "".join(pieces)
