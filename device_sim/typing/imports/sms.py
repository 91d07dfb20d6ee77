"""The XML of Android's SMS backup apps: only `type="2"`, which is what was sent from the phone.

SMS Backup & Restore writes `<sms type="2" date="1709568390000" body="..."/>` and, for picture messages,
`<mms msg_box="2" date="..."><parts><part ct="text/plain" text="..."/></parts></mms>`; Super Backup has the same
attributes, GO SMS Pro an element for each field, Titanium Backup `<sms msgBox="sent" date="...">text</sms>`.

Records are cut out of the text and parsed one by one, so a broken one costs nothing but itself, whatever the size of
the file. No document type is ever parsed, and a file that has one is refused: entities cannot be declared. The apps
write characters beyond the basic plane as two references (`&#55357;&#56832;`), which no XML parser takes; they are
joined.
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from kbdfl.device_sim.typing.imports.dates import when
from kbdfl.device_sim.typing.imports.items import NO_TEXT, Item, Items, Malformed, Options, Skipped
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import DataError

RECORD = re.compile(r"<(sms|mms|SMS|MMS)(?=[\s>/])")
_TAG = 8  # characters of the longest match, with what is looked ahead
_DOCTYPE = re.compile(r"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_REFERENCE = re.compile(r"&#(?:x([0-9a-fA-F]{1,6})|(\d{1,7}));")
_NO_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
LONGEST_RECORD = 6 << 20  # characters; pictures travel inside as Base64, and networks take 1 to 3 MB
NOT_SENT = {"1": "received", "3": "a draft", "4": "not sent", "5": "not sent", "6": "not sent"}
_BOXES = {
    "sent": "2",
    "inbox": "1",
    "draft": "3",
    "outbox": "4",
    "failed": "5",
    "queued": "6",
    "received": "1",
}


def read_sms(file: Opened, options: Options) -> Items:
    """Yield the messages that were sent. Raises DataError for a file with a document type."""
    for line, tag, text in _records(file):
        if text is None:
            yield Malformed(line, "a record of millions of characters")
            continue
        try:
            element = ElementTree.fromstring(_mended(_trimmed(text, tag)))
        except ElementTree.ParseError:
            yield Malformed(line, "not XML")
            continue
        yield _message(element, line, options)


def _records(file: Opened) -> Iterator[tuple[int, str, str | None]]:
    """(line, tag, text from this record's start to the next one's); None for a text too long to keep."""
    tag, held, size, searched = "", "", 0, 0
    line = begun_at = 1
    for chunk in file.chunks():
        held += chunk
        while match := RECORD.search(held, searched):
            before = held[: match.start()]
            if tag:
                yield begun_at, tag, before if size + len(before) <= LONGEST_RECORD else None
            else:
                _refuse_doctype(before, file)
            line += before.count("\n")
            begun_at, tag, size = line, match[1], 0
            held, searched = held[match.start() :], match.end() - match.start()
        searched = max(searched, len(held) - _TAG)
        if (
            len(held) > LONGEST_RECORD or not tag
        ):  # before the first record nothing is kept but a tag's length
            if not tag:
                _refuse_doctype(held, file)
            cut = len(held) - _TAG if len(held) > _TAG else 0
            line, size = line + held.count("\n", 0, cut), size + cut
            held, searched = held[cut:], 0
    if tag:
        yield begun_at, tag, held if size + len(held) <= LONGEST_RECORD else None


def _refuse_doctype(text: str, file: Opened) -> None:
    if _DOCTYPE.search(text):
        raise DataError(f"{file.path} declares a document type, which no SMS backup does: refused")


def _trimmed(text: str, tag: str) -> str:
    """The record without what follows it: the end of the document, or of a thread."""
    end = text.rfind(f"</{tag}>")
    if end >= 0:
        return text[: end + len(tag) + 3]
    return text[: text.rfind("/>") + 2]


def _mended(text: str) -> str:
    """The record with references to halves of a character joined, and without what XML cannot hold."""
    if "&#" in text:
        text = _REFERENCE.sub(_character, text)
        if not text.isascii():
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _NO_XML.sub("", text)


def _character(match: re.Match[str]) -> str:
    code = int(match[1], 16) if match[1] else int(match[2])
    if 0xD800 <= code < 0xE000:
        return chr(code)
    if code > 0x10FFFF or code in (0xFFFE, 0xFFFF) or (code < 0x20 and code not in (9, 10, 13)):
        return ""
    return match[0]


def _message(element: ElementTree.Element, line: int, options: Options) -> Item:
    fields = {child.tag.lower(): child.text or "" for child in element if not len(child)}
    fields |= {name.lower(): value for name, value in element.attrib.items()}
    box = fields.get("msg_box") or fields.get("msgbox") or fields.get("type")
    if box is None:
        return Malformed(line, "it does not say whether it was sent")
    box = _BOXES.get(box.strip().lower(), box.strip())
    if box != "2":
        return Skipped(NOT_SENT.get(box, "not sent"))
    if element.find("parts") is not None or element.tag.lower() == "mms":
        parts = (part for part in element.iter("part") if part.get("ct") == "text/plain")
        body: str | None = "\n".join(part.get("text") or "" for part in parts)
    else:
        body = fields.get("body", fields.get("text", element.text))
    if body is None:
        return Malformed(line, "the text is missing")
    if not body.strip() or body == "null":
        return NO_TEXT
    date = fields.get("date")
    time = when(date, options.zone) if date else None
    if date and time is None:
        return Malformed(line, "the time is none")
    return Message(options.user, body, time, "chat")
