"""mbox: the mails that one sent, without what they quote.

One's own are those `From` an address of `--me`; without it, those that Google Takeout labels Sent, or all of a file
whose path says that it is a folder of sent mail (`Sent`, `Sent Messages.mbox/mbox`).
"""

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message as Mail
from email.parser import BytesHeaderParser
from email.utils import parseaddr

from kbdfl.device_sim.typing.imports.dates import mail_time
from kbdfl.device_sim.typing.imports.items import (
    NO_TEXT,
    OTHERS,
    Item,
    Items,
    Malformed,
    Note,
    Options,
    Skipped,
    others_of,
)
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.device_sim.typing.imports.quoting import own_words, text_of_html, unwrapped
from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import ConfigError

MOST_BYTES = 6 << 20  # of one mail; what comes after is an attachment's
SENT = {"sent", "sent mail", "sent messages", "sent items", "gesendet", "envoyés", "messages envoyés", "enviados",
        "posta inviata", "inviata", "verzonden", "verzonden items", "wysłane", "skickat"}  # fmt: skip
SEPARATOR = re.compile(rb"^From \S*.*\d{4}.*$")
_DRAFTS = {"draft", "drafts", "entwürfe", "trash", "spam"}
_BLANK = re.compile(rb"\r?\n\r?\n")
_WHOLE_HEADERS = BytesHeaderParser()


def read_mail(file: Opened, options: Options) -> Items:
    """Yield the mails that were sent. Raises ConfigError where nothing says which are one's own."""
    if not options.me and not _is_sent_folder(file):
        if not any(b"x-gmail-labels:" in _head(mail).lower() for _, mail, _ in _first(file, 50)):
            raise ConfigError(f"{file.path} does not say which mails are yours: --me must be your address")
        by_label = True
    else:
        by_label = False
    cut = 0
    for line, mail, whole in _mails(file):
        cut += not whole
        yield _message(line, mail, options, by_label=by_label)
    if cut:
        yield Note(f"{cut:,} mails are longer than {MOST_BYTES >> 20} MiB; only their beginning was read")


def _is_sent_folder(file: Opened) -> bool:
    names = [*file.path.absolute().parts[-3:], *file.inner_name.split("/")]
    return any(name.lower().split(".mbox")[0].removesuffix(".mbx") in SENT for name in names)


def _first(file: Opened, count: int) -> Iterator[tuple[int, bytes, bool]]:
    for _, mail in zip(range(count), _mails(file), strict=False):
        yield mail


def _mails(file: Opened) -> Iterator[tuple[int, bytes, bool]]:
    """(line of its From, at most `MOST_BYTES` of a mail, whether that is all of it)."""
    lines: list[bytes] = []
    size = begun_at = 0
    blank, begun, fits = True, False, True
    for number, line in _lines(file):
        if blank and line.startswith(b"From ") and SEPARATOR.match(line.rstrip()):
            if begun:
                yield begun_at, b"".join(lines), fits
            lines, size, begun_at, begun, fits = [], 0, number, True, True
        elif size + len(line) <= MOST_BYTES:
            lines.append(line)
            size += len(line)
            if not begun:
                begun, begun_at = True, number
        else:
            fits = False
        blank = not line.strip()
    if begun:
        yield begun_at, b"".join(lines), fits


def _lines(file: Opened) -> Iterator[tuple[int, bytes]]:
    """(number, line with its end), long ones in pieces."""
    number, carried = 1, b""
    for block in file.blocks():
        whole = (carried + block).split(b"\n")
        carried = whole.pop()
        for line in whole:
            yield number, line + b"\n"
            number += 1
        if len(carried) > 1 << 20:
            yield number, carried
            carried = b""
    if carried:
        yield number, carried


def _head(mail: bytes) -> bytes:
    """The header lines, blank line included."""
    end = _BLANK.search(mail)
    return mail[: end.end()] if end else mail


def _message(line: int, mail: bytes, options: Options, *, by_label: bool) -> Item:
    head = _WHOLE_HEADERS.parsebytes(_head(mail))
    sender = parseaddr(_header(head, "From"))[1]
    if not sender:
        return Malformed(line, "a mail without a sender")
    labels = {label.strip().lower() for label in _header(head, "X-Gmail-Labels").split(",")}
    if options.me and not options.is_me(sender):
        return others_of(sender)
    if by_label and not labels & SENT:
        return OTHERS
    if labels & _DRAFTS:
        return Skipped("a draft, or thrown away")
    text = own_words(_text(message_from_bytes(mail)))
    if not text:
        return NO_TEXT
    return Message(options.user, text, mail_time(_header(head, "Date"), options.zone), "mail")


def _header(mail: Mail, name: str) -> str:
    """A header's text, encoded words decoded; "" where there is none."""
    value = mail.get(name)
    if value is None:
        return ""
    try:
        return str(make_header(decode_header(str(value))))
    except (ValueError, LookupError, MessageError):  # a charset that is unknown, or cut in half
        return str(value)


def _text(mail: Mail) -> str:
    """The first plain text that is no attachment; without one, the text of the first HTML."""
    page = None
    for part in mail.walk():
        if part.is_multipart() or part.get_content_disposition() == "attachment":
            continue
        if part.get_content_type() == "text/plain":
            text = _decoded(part)
            return unwrapped(text) if str(part.get_param("format", "")).lower() == "flowed" else text
        if part.get_content_type() == "text/html" and page is None:
            page = _decoded(part)
    return text_of_html(page) if page is not None else ""


def _decoded(part: Mail) -> str:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return ""
    try:
        return content.decode(part.get_content_charset("utf-8"), "replace").replace("\r\n", "\n")
    except (LookupError, ValueError):  # ValueError: a charset with a zero byte in its name
        return content.decode("utf-8", "replace").replace("\r\n", "\n")
