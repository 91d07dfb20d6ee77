"""WhatsApp's chat exports: `_chat.txt` of an iPhone, `WhatsApp Chat with NAME.txt` of Android, in the zip or out of it.

    [04.03.24, 17:06:30] Ann: see you          04/03/2024, 17:06 - Ann: see you
    soon                                       3/4/24, 5:06 PM - Ann: see you

A message goes on until a line begins with a date. System lines have no sender, or, on an iPhone, a text that begins
with an invisible left-to-right mark, as all that WhatsApp wrote itself does.
"""

import re

from kbdfl.device_sim.typing.imports.dates import NUMERIC, DateOrder, numeric_time
from kbdfl.device_sim.typing.imports.fields import ambiguous
from kbdfl.device_sim.typing.imports.items import (
    MEDIA,
    NO_TEXT,
    SYSTEM,
    Item,
    Items,
    Malformed,
    Options,
    Skipped,
    ask_who,
    others_of,
)
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.device_sim.typing.records import Message

_MARKS = "\u200e\u200f\u202a\u202b\u202c\ufeff"
START = re.compile(rf"[{_MARKS}]*(?P<open>\[)?{NUMERIC}(?(open)\]\s?|\s[-–]\s)(?P<rest>.*)", re.DOTALL)
_SENDER = re.compile(rf"[{_MARKS}~\s]*([^:\n]{{1,100}}?)[{_MARKS}]*:(?:[ \u00a0]|$)")
_PLACEHOLDER = re.compile(r"<[^<>\n]{3,60}>|.{1,200}\.\w{2,5} \([^()\n]{3,40}\)")
_EDITED = re.compile(r"\s*(?:\u200e<[^<>\n]{3,60}>|<This message was edited>)\s*$")
_GONE = {
    "null",
    "this message was deleted",
    "you deleted this message",
    "missed voice call",
    "missed video call",
    "waiting for this message. this may take a while.",
    "diese nachricht wurde gelöscht",
    "du hast diese nachricht gelöscht",
    "ce message a été supprimé",
    "vous avez supprimé ce message",
    "se eliminó este mensaje",
    "eliminaste este mensaje",
    "esta mensagem foi apagada",
    "você apagou esta mensagem",
    "questo messaggio è stato eliminato",
    "hai eliminato questo messaggio",
    "dit bericht is verwijderd",
    "je hebt dit bericht verwijderd",
}  # what Android leaves of a message without marking it
_WRITTEN_BY_APP = Skipped("deleted, or a missed call")
MOST_CHARACTERS = 20_000  # of one message; more would be skipped anyway


def read_whatsapp(file: Opened, options: Options) -> Items:
    """Yield the chat's messages that `options.me` sent. Raises ConfigError, naming senders, when nobody is named."""
    order = options.dates
    if not options.me or order == "auto":
        fits, doubtful, senders = _survey(file)
        if not options.me:
            ask_who("a WhatsApp chat", senders)
        order = fits
        if doubtful:
            yield ambiguous(order)
    current: tuple[Item, ...] = ()
    begun: re.Match[str] | None = None
    begun_at, text, size = 0, [], 0
    for number, line in file.lines():
        match = START.match(line) if line is not None and len(line) < MOST_CHARACTERS else None
        if match is None and line is not None and begun is not None:
            if size < MOST_CHARACTERS:
                text.append(line)
                size += len(line)
            continue
        if begun is not None:
            current = (_message(begun, text, begun_at, order, options),)
        yield from current
        current, begun, begun_at, text, size = (), match, number, [], 0
        if line is None:
            yield Malformed(number, "a line of millions of characters")
        elif match is None and line.strip():
            yield Malformed(number, "before the first message")
    if begun is not None:
        yield _message(begun, text, begun_at, order, options)


def _survey(file: Opened) -> tuple[str, bool, list[str]]:
    """The order of the dates, whether another fits too, and some senders: a first reading of the whole file."""
    dates = DateOrder()
    senders: dict[str, None] = {}
    for _, line in file.lines():
        match = START.match(line) if line is not None and len(line) < MOST_CHARACTERS else None
        if match is None:
            continue
        dates.see(match)
        sender = _SENDER.match(match["rest"]) if len(senders) < 8 else None
        if sender:
            senders[sender[1]] = None
    return *dates.resolve(), list(senders)


def _message(begun: re.Match[str], more: list[str], line: int, order: str, options: Options) -> Item:
    sender = _SENDER.match(begun["rest"])
    if sender is None:
        return SYSTEM
    if not options.is_me(sender[1]):
        return others_of(sender[1])
    first = begun["rest"][sender.end() :]
    if first.startswith("\u200e"):
        return SYSTEM
    if _PLACEHOLDER.fullmatch(first.strip(_MARKS + " ")):
        first = ""  # a picture; its caption stands below
        if not any(each.strip() for each in more):
            return MEDIA
    text = _EDITED.sub("", "\n".join([first, *more])).strip(_MARKS + " \n")
    if text.casefold() in _GONE:
        return _WRITTEN_BY_APP
    if text.startswith("POLL:") or text.startswith("location: http"):
        return MEDIA
    if not text:
        return NO_TEXT
    time = numeric_time(begun, order, options.zone)
    if time is None:
        return Malformed(line, "no such day or hour")
    return Message(options.user, text, time, "chat")
