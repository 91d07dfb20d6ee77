"""What the sender of a mail wrote: without what it quotes, forwards and signs with."""

import re
from html.parser import HTMLParser

_STOP = re.compile(
    r"-- ?|_{10,}|-{2,} ?(?:Original|Forwarded|Ursprüngliche|Weitergeleitete|Message|Mensaje|Messaggio)\b.*"
    r"|-{2,} ?Oorspronkelijk\b.*|Begin forwarded message:",
    re.IGNORECASE,
)
_INTRODUCES = re.compile(
    r"(?:(?:On|Am|Le|El|Il|Op|Em|Den|Dnia)\b.{5,200}|.{0,200}<[^<>\s]+@[^<>\s]+>.{0,40})"
    r"(?:wrote|schrieb\b.{0,60}|a écrit|escribió|ha scritto|schreef\b.{0,60}|escreveu|skrev|napisał\(?a?\)?) ?:\s*",
    re.IGNORECASE | re.DOTALL,
)
_HEADERS = re.compile(r"(?:From|Von|De|Da|Van): .+")
_MORE_HEADERS = re.compile(r"(?:Sent|Date|Gesendet|Datum|Envoyé|Enviado|Inviato|Verzonden|To|An)\s?: .+")


def own_words(text: str) -> str:
    """`text` without quoted lines, the line that introduces them, and all from a signature or an older mail on."""
    lines = text.split("\n")
    kept: list[str] = []
    place = 0
    while place < len(lines):
        line = lines[place].rstrip("\r")
        after = lines[place + 1].rstrip() if place + 1 < len(lines) else ""
        if _STOP.fullmatch(line.rstrip("\r\n")) or (
            _HEADERS.fullmatch(line) and _MORE_HEADERS.fullmatch(after)
        ):
            break
        introduced = _introduces(line, after)
        if introduced:
            place += introduced
            while place < len(lines) and not lines[place].strip():
                place += 1
            if place < len(lines) and not lines[place].startswith(">"):
                break  # an older mail below, without marks
            continue
        if line.startswith(">From "):  # as mbox writes a line that begins with From
            kept.append(line[1:])
        elif not line.startswith(">"):
            kept.append(line)
        place += 1
    return "\n".join(kept).strip()


def _introduces(line: str, after: str) -> int:
    """How many lines say that somebody wrote what follows: none, one, or two where it was wrapped."""
    if len(line) > 300 or not line.strip():
        return 0
    if _INTRODUCES.fullmatch(line):
        return 1
    return 2 if len(after) < 300 and after.endswith(":") and _INTRODUCES.fullmatch(f"{line} {after}") else 0


def unwrapped(text: str) -> str:
    """Text of format=flowed (RFC 3676) with its soft line breaks taken out."""
    lines: list[str] = []
    soft = False
    for line in text.replace("\r\n", "\n").split("\n"):
        line = line.removeprefix(" ") if not line.startswith(">") else line
        if soft and not line.startswith(">"):
            lines[-1] += line
        else:
            lines.append(line)
        soft = line.endswith(" ") and line != "-- " and not line.startswith(">")
    return "\n".join(lines)


class _Page(HTMLParser):
    """Gathers the text of a mail that is HTML alone, without quotes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self._hidden: list[str] = []  # the open elements whose text is not the sender's

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        quoted = "gmail_quote" in (names.get("class") or "") or names.get("id") == "divRplyFwdMsg"
        if tag in ("blockquote", "style", "script", "head", "title") or quoted or tag in self._hidden:
            self._hidden.append(tag)
        elif tag in ("br", "p", "div", "li", "tr"):
            self.text.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if self._hidden and self._hidden[-1] == tag:
            self._hidden.pop()

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text.append(re.sub(r"\s+", " ", data))


def text_of_html(page: str) -> str:
    """The text of a mail's HTML, a line a paragraph, without what it quotes."""
    reader = _Page()
    try:
        reader.feed(page)
        reader.close()
    except (
        AssertionError
    ):  # how html.parser refuses a declaration that it does not know; what came before stands
        reader.text.append("\n")
    return re.sub(r"\n\s*\n+", "\n", "".join(reader.text)).strip()
