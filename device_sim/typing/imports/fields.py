"""A record with named fields, as JSON lines, tables and datasets have it, made into a message."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kbdfl.device_sim.typing.imports.dates import DateOrder, when, whole_numeric
from kbdfl.device_sim.typing.imports.items import (
    NO_TEXT,
    TEXT_NAMES,
    TIME_NAMES,
    USER_NAMES,
    Item,
    Malformed,
    Note,
    Options,
    others_of,
)
from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Columns:
    """The names under which text, user and time stand; None for a field that is not there."""

    text: str
    user: str | None
    time: str | None

    @classmethod
    def among(cls, names: Iterable[str], options: Options, *, what: str) -> "Columns":
        """The columns that `options` asks for, or the first usual ones. Raises ConfigError when one is missing."""
        there = list(names)

        def find(asked: str | None, usual: tuple[str, ...], field: str) -> str | None:
            if asked is not None:
                if asked not in there:
                    listed = ", ".join(name[:30] for name in there[:12])
                    raise ConfigError(
                        f"{field}_column must be one of {what}'s ({listed}), got {asked!r}"[:400]
                    )
                return asked
            by_lower = {name.strip().lower(): name for name in reversed(there)}
            return next((by_lower[name] for name in usual if name in by_lower), None)

        text = find(options.text_column, TEXT_NAMES, "text")
        if text is None:
            listed = ", ".join(name[:30] for name in there[:12])
            raise ConfigError(
                f"text_column must say which of {what}'s columns holds the text ({listed})"[:400]
            )
        user = find(options.user_column, USER_NAMES, "user")
        return cls(text, user, find(options.time_column, TIME_NAMES, "time"))


def order_of(values: Iterable[Any], options: Options) -> tuple[str, Note | None]:
    """The order of day, month and year in a column's `values`, and what to say where two would fit.

    All values are gone through if the first is such a date; they are left alone otherwise, and where `options` decides.
    A column whose first thousand values are empty holds no dates.
    """
    if options.dates != "auto":
        return options.dates, None
    dates = DateOrder()
    for place, value in enumerate(values):
        match = whole_numeric(value)
        if match:
            dates.see(match)
        elif not dates.seen and (place >= 1000 or (value is not None and value != "")):
            return "dmy", None  # times of another kind, or none
    order, doubtful = dates.resolve()
    return order, ambiguous(order) if doubtful else None


def ambiguous(order: str) -> Note:
    """What is said of dates that fit more than one order."""
    names = {"dmy": "day/month/year", "mdy": "month/day/year", "ymd": "year/month/day"}
    other = "mdy" if order == "dmy" else "dmy"
    return Note(
        f"the dates fit {names[order]} and {names[other]}; taken as {names[order]} (--dates {other}: the other)"
    )


def message_of(
    record: Mapping[str, Any], columns: Columns, options: Options, *, line: int, order: str = "dmy"
) -> Item:
    """The message in a record, or why there is none; `order` is that of its dates."""
    text = record.get(columns.text)
    user = record.get(columns.user) if columns.user is not None else None
    if text is None:
        return NO_TEXT if columns.text in record else Malformed(line, "the text is missing")
    if not isinstance(text, str):
        return Malformed(line, "the text is no string")
    if isinstance(user, int) and not isinstance(user, bool):
        user = str(user)
    if user is None or user == "":
        user = options.user
    if not isinstance(user, str):
        return Malformed(line, "the user is no name")
    if options.me and not options.is_me(user):
        return others_of(user)
    value = record.get(columns.time) if columns.time is not None else None
    time = None
    if value is not None and value != "":
        time = when(value, options.zone, order)
        if time is None:
            return Malformed(line, "the time is none")
    app = record.get("app")
    return Message(user, text, time, app if isinstance(app, str) else None)
