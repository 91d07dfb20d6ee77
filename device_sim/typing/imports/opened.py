"""The text of a file: plain, gzip, or the one text in a zip; UTF-8, UTF-16, or Windows-1252 where a line is no UTF-8.

Read in blocks of 64 KiB. What is unpacked is bounded, so that a small file cannot become an endless one.
"""

import gzip
import zipfile
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, getincrementaldecoder
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

from kbdfl.errors import DataError

BLOCK = 1 << 16
MOST_UNPACKED = 8 << 30  # bytes out of a zip or gzip file
FREELY_UNPACKED, MOST_RATIO = 64 << 20, 200  # beyond the first, no more than so many times the packed size
LONGEST_LINE = 4 << 20  # characters
TEXTS = (".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".mbox")
PREFERRED = ("_chat.txt", "result.json")  # WhatsApp's and Telegram's own names


class Opened:
    """A file whose text can be read again and again; `fallback_lines` of the last reading were no UTF-8.

    Raises DataError when there is no such file, when it cannot be read, or when it unpacks to too much.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(f"no file at {path}")
        self.path, self.fallback_lines = path, 0
        with self._failing(), open(path, "rb") as file:
            magic = file.read(4)
        self._packed = path.stat().st_size
        self._kind = {b"\x1f\x8b": "gzip", b"PK": "zip"}.get(magic[:2], "plain")
        self._member = self._find_member() if self._kind == "zip" else None

    @property
    def inner_name(self) -> str:
        """The name of the text: of the zip's member, or of the file."""
        return self._member.filename if self._member is not None else self.path.name

    def blocks(self) -> Iterator[bytes]:
        """The unpacked bytes."""
        read = 0
        with self._failing(), ExitStack() as stack:
            file = self._open(stack)
            while block := file.read(BLOCK):
                read += len(block)
                if self._kind != "plain":
                    self._check_size(read)
                yield block

    def chunks(self) -> Iterator[str]:
        """The text in pieces that end at a line's end where lines are short; without a byte order mark."""
        self.fallback_lines = 0
        blocks = self.blocks()
        first = next(blocks, b"")
        wide = _utf16(first)
        if wide:
            decoder = getincrementaldecoder(wide)("replace")
            yield decoder.decode(first).removeprefix("\ufeff")
            for block in blocks:
                yield decoder.decode(block)
            yield decoder.decode(b"", True)
            return
        carried = first.removeprefix(BOM_UTF8)
        for block in blocks:
            carried += block
            cut = carried.rfind(b"\n") + 1
            if not cut and len(carried) > BLOCK:  # a long line: between two characters
                last = range(len(carried) - 1, len(carried) - 5, -1)
                cut = next((place for place in last if _starts(carried[place])), len(carried))
            if cut:
                yield self._decode(carried[:cut])
                carried = carried[cut:]
        yield self._decode(carried)

    def lines(self) -> Iterator[tuple[int, str | None]]:
        """(number from 1, line without its end); None in place of a line longer than `LONGEST_LINE`."""
        number, carried, too_long = 0, "", False
        for chunk in self.chunks():
            whole = chunk.split("\n")
            whole[0] = carried + whole[0]
            carried = whole.pop()
            for line in whole:
                number += 1
                yield number, None if too_long or len(line) > LONGEST_LINE else line.removesuffix("\r")
                too_long = False
            if len(carried) > LONGEST_LINE:
                carried, too_long = "", True
        if carried or too_long:
            yield number + 1, None if too_long else carried.removesuffix("\r")

    def head(self) -> str:
        """The first characters, some tens of thousands."""
        return next(filter(None, self.chunks()), "")

    def _decode(self, content: bytes) -> str:
        try:
            return content.decode()
        except UnicodeDecodeError:
            return "".join(map(self._decode_line, content.splitlines(keepends=True)))

    def _decode_line(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.fallback_lines += 1
            return line.decode("cp1252", "replace")

    def _open(self, stack: ExitStack) -> IO[bytes]:
        raw: IO[bytes] = stack.enter_context(self.path.open("rb"))
        if self._member is not None:
            return stack.enter_context(stack.enter_context(zipfile.ZipFile(raw)).open(self._member))
        return stack.enter_context(cast(IO[bytes], gzip.open(raw))) if self._kind == "gzip" else raw

    def _find_member(self) -> zipfile.ZipInfo:
        with self._failing(), zipfile.ZipFile(self.path) as archive:
            members = [info for info in archive.infolist() if info.filename.lower().endswith(TEXTS)]
        for name in PREFERRED:
            for info in members:
                if info.filename.rsplit("/", 1)[-1] == name:
                    members = [info]
        if len(members) != 1:
            raise DataError(
                f"{self.path} must hold one text ({', '.join(TEXTS)}), got {len(members)}: unpack it, and import each"
            )
        if members[0].flag_bits & 1:
            raise DataError(f"{self.path} is locked with a password: unpack it first")
        self._packed = max(1, members[0].compress_size)
        return members[0]

    def _check_size(self, read: int) -> None:
        if read > MOST_UNPACKED or (read > FREELY_UNPACKED and read > MOST_RATIO * self._packed):
            raise DataError(
                f"{self.path} unpacks to more than its {self._packed:,} bytes could honestly hold"
            )

    def _failing(self) -> "_Failing":
        return _Failing(self.path)


class _Failing:
    """Turns what reading a file can raise into one line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        broken = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError)
        if isinstance(error, broken):
            raise DataError(f"{self._path} cannot be read: {str(error)[:100]}") from None


def _starts(byte: int) -> bool:
    """Whether a byte is the first of a UTF-8 character."""
    return byte & 0xC0 != 0x80


def _utf16(first: bytes) -> str | None:
    """The name of the UTF-16 that a text begins in: by its mark, or by every other byte of it being zero."""
    if first.startswith(BOM_UTF16_LE):
        return "utf-16-le"
    if first.startswith(BOM_UTF16_BE):
        return "utf-16-be"
    even, odd = first[:200:2].count(0), first[1:200:2].count(0)
    half = len(first[:200]) // 2
    if half > 2 and max(even, odd) > 0.8 * half and min(even, odd) == 0:
        return "utf-16-le" if odd > even else "utf-16-be"
    return None
