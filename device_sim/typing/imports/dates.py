"""Times as exports write them: unix seconds and their multiples, ISO 8601, mail's, and 3/4/24, 5:06 PM.

Which of day, month and year comes first is decided over a whole file (`DateOrder`).
"""

import re
from datetime import UTC, datetime, tzinfo
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import SupportsFloat

# Date and time with digits alone, in the styles of phones' languages: "3/4/24, 5:06 PM", "04.03.2024 klo 17.06.30",
# "2024-03-04 下午5:06", "4/3/2024, 5:06 p. m.". \s takes the narrow spaces that phones put before PM.
NUMERIC = (
    r"(?P<a>\d{1,4})[./\-]\s?(?P<b>\d{1,2})[./\-]\s?(?P<c>\d{1,4})\.?"
    r"(?:[,،]?\s+(?:um|at|klo|kl\.?|às|à|a las|alle|om|o)(?=\s))?[,،]?\s*"
    r"(?P<before>上午|下午|午前|午後|오전|오후)?\s?"
    r"(?P<hour>\d{1,2})[:.](?P<minute>\d{2})(?:[:.](?P<second>\d{2}))?"
    r"(?:\s?(?P<half>[AaPp])\.?\s?[Mm]\b\.?)?"
)
_WHOLE = re.compile(rf"\s*{NUMERIC}\s*(?:Uhr)?\s*")
_PLACES = {"dmy": (2, 1, 0), "mdy": (2, 0, 1), "ymd": (0, 1, 2)}
_AFTERNOON = ("下午", "午後", "오후")
EARLIEST, LATEST = 1970, 2199


class DateOrder:
    """Which order of day, month and year fits the dates of a file; `see` all of them, then ask.

    An order is out when another has fewer impossible dates, then when another goes back in time less often. What is
    left is `ambiguous` when the orders still differ; a file with AM and PM is then read as month first, else day first.
    """

    def __init__(self) -> None:
        self._impossible = dict.fromkeys(_PLACES, 0)
        self._back = dict.fromkeys(_PLACES, 0)
        self._last: dict[str, tuple[int, int, int]] = {}
        self._seen = ("", "", "")
        self._differ = self._halves = False
        self._year_first = True

    def see(self, match: re.Match[str]) -> None:
        """Take in one date: a match of `NUMERIC`."""
        parts = match["a"], match["b"], match["c"]
        if parts == self._seen:
            return
        self._seen = parts
        self._differ |= parts[0] != parts[1]
        self._halves |= match["half"] is not None
        self._year_first &= len(parts[0]) == 4
        for order in _PLACES:
            date = _in_order(parts, order)
            if date is None:
                self._impossible[order] += 1
                continue
            if date < self._last.get(order, date):
                self._back[order] += 1
            self._last[order] = date

    @property
    def seen(self) -> bool:
        """Whether there was any date."""
        return self._seen != ("", "", "")

    def resolve(self) -> tuple[str, bool]:
        """The order, and whether another would have fitted as well."""
        left = ["mdy", "dmy"] if self._halves else ["dmy", "mdy"]
        fewest = min(self._impossible.values())
        left = [order for order in left if self._impossible[order] == fewest]
        if self._year_first or not left:
            return "ymd", False
        least = min(self._back[order] for order in left)
        left = [order for order in left if self._back[order] == least]
        return left[0], len(left) > 1 and self._differ


def numeric_time(match: re.Match[str], order: str, zone: tzinfo | None) -> float | None:
    """Unix seconds of a match of `NUMERIC`; None for a day or an hour that does not exist."""
    date = _in_order((match["a"], match["b"], match["c"]), order)
    hour = int(match["hour"])
    if match["half"] or match["before"]:
        if not 1 <= hour <= 12 and not (match["before"] and hour <= 12):
            return None
        late = match["before"] in _AFTERNOON if match["before"] else match["half"] in "Pp"
        hour = hour % 12 + (12 if late else 0)
    if date is None:
        return None
    try:
        return _seconds(datetime(*date, hour, int(match["minute"]), int(match["second"] or 0), tzinfo=zone))
    except ValueError:
        return None


def whole_numeric(value: object) -> re.Match[str] | None:
    """The match of `NUMERIC` with a whole string, if it is one."""
    return _WHOLE.fullmatch(value) if isinstance(value, str) else None


def when(value: object, zone: tzinfo | None, order: str = "dmy") -> float | None:
    """Unix seconds of what a field holds; None for what is no time.

    A number is in seconds, or, when that would lie beyond the year 5000, in milli-, micro- or nanoseconds.
    """
    if isinstance(value, datetime):
        return _seconds(value if value.tzinfo else value.replace(tzinfo=zone))
    if isinstance(value, str):
        value = value.strip()
        try:
            number = float(value)
        except ValueError:
            return _written(value, zone, order)
    elif isinstance(value, bool) or not isinstance(value, int | float | SupportsFloat):  # the usual first
        return None
    else:
        try:
            number = float(value)
        except OverflowError:
            return None
    if not isfinite(number) or abs(number) > 1e20:
        return None
    while abs(number) > 1e11:
        number /= 1000
    return number


def _written(value: str, zone: tzinfo | None, order: str) -> float | None:
    try:
        time = datetime.fromisoformat(
            value.removesuffix(" UTC") + ("+00:00" if value.endswith(" UTC") else "")
        )
    except ValueError:
        if match := whole_numeric(value):
            return numeric_time(match, order, zone)
        try:
            time = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return _seconds(time if time.tzinfo else time.replace(tzinfo=zone))


def mail_time(value: str, zone: tzinfo | None) -> float | None:
    """Unix seconds of a mail's Date; without a zone in either, it is UTC, as the standard says of -0000."""
    try:
        time = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return _seconds(time if time.tzinfo else time.replace(tzinfo=zone or UTC))


def _seconds(time: datetime) -> float | None:
    if not EARLIEST <= time.year <= LATEST:
        return None
    try:
        return time.timestamp()
    except (OverflowError, OSError, ValueError):
        return None


def _in_order(parts: tuple[str, str, str], order: str) -> tuple[int, int, int] | None:
    """(year, month, day), or None where the order makes no date of the parts."""
    year, month, day = (parts[place] for place in _PLACES[order])
    if len(year) not in (2, 4) or len(month) > 2 or len(day) > 2 or not 1 <= int(month) <= 12:
        return None
    if not 1 <= int(day) <= 31:
        return None
    century = 0 if len(year) == 4 else 2000 if int(year) < 70 else 1900
    return int(year) + century, int(month), int(day)
