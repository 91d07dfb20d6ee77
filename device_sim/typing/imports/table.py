"""Tables: CSV with a header line, separated by commas, semicolons, tabs or bars, quoted as RFC 4180 says."""

import csv
from collections.abc import Iterator

from kbdfl.device_sim.typing.imports.fields import Columns, message_of, order_of
from kbdfl.device_sim.typing.imports.items import Items, Malformed, Options
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.errors import DataError

SEPARATORS = ",;\t|"


def read_table(file: Opened, options: Options) -> Items:
    """Yield the messages of a table. Raises ConfigError when no column holds text, DataError without a header."""
    separator = separator_of(file.head())
    header, columns = None, None
    order = "dmy"
    for line, row in _rows(file, separator):
        if isinstance(row, Malformed):
            yield row
            continue
        if header is None:
            header = row
            columns = Columns.among(row, options, what="the table")
            order, note = order_of(_column(file, separator, columns.time), options)
            if note:
                yield note
            continue
        if columns is None or len(row) != len(header):
            yield Malformed(line, f"{len(row)} cells in place of {len(header)}")
            continue
        yield message_of(dict(zip(header, row, strict=True)), columns, options, line=line, order=order)
    if header is None:
        raise DataError(f"{file.path} has no header line")


def separator_of(head: str) -> str:
    """The separator of the first line's cells: the one that makes most of them."""
    first = head.split("\n", 1)[0]
    return max(SEPARATORS, key=first.count)


def _rows(file: Opened, separator: str) -> Iterator[tuple[int, list[str] | Malformed]]:
    """(number of its last line, row); after a broken row reading goes on with the next line."""
    numbers: list[int] = [0]

    def lines() -> Iterator[str]:
        for number, line in file.lines():
            numbers[0] = number
            # longer than any cell may be, so that csv refuses it
            yield "?" * (csv.field_size_limit() + 1) if line is None else line + "\n"

    reader = csv.reader(lines(), delimiter=separator, strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield numbers[0], Malformed(numbers[0], _reason(error))
            continue
        if row:
            yield numbers[0], row


def _reason(error: csv.Error) -> str:
    return "a cell is too long" if "limit" in str(error) else "a quote is open or stands amid a cell"


def _column(file: Opened, separator: str, name: str | None) -> Iterator[str]:
    """The cells of a column, from a reading of the table of their own."""
    rows = (row for _, row in _rows(file, separator) if not isinstance(row, Malformed))
    place = None
    if name is None:
        return
    for row in rows:
        if place is None:
            place = row.index(name)
        elif place < len(row):
            yield row[place]
