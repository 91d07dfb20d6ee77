"""fleet.json of a run: who was there, who dropped out and who was heard; and how evenly phones were heard.

    {"format": 1, "population": phones,
     "hours": 7 weekdays of 24 numbers, the mean check-ins of an hour, null where the run never got to it,
     "tiers": {name: {"phones": n, "assigned": n, "reported": n, "energy_wh": watt-hours,
                      "dropped": {each of REASONS: n}}},
     "participation": [phones never counted, phones counted once, twice, ...]}

Weekday 0 is the Monday that virtual time begins on. An assignment that is neither reported nor dropped was not needed
any more. What else stands there is not looked at.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbdfl.errors import DataError

FLEET = "fleet.json"
FORMAT = 1
DAYS, HOURS = 7, 24
REASONS = ("download", "training", "upload", "late", "declined", "left")
MOST_TIERS = 20
_MOST = 2**53  # beyond it floats skip whole numbers


@dataclass(frozen=True, slots=True)
class TierCounts:
    """A tier's phones, the assignments they were given, those reported, and those lost, by reason."""

    phones: int
    assigned: int
    reported: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FleetCounts:
    """The fleet of a run, as in fleet.json; participation[i] phones were counted i times."""

    population: int
    hours: Sequence[Sequence[float | None]]
    tiers: Mapping[str, TierCounts]
    participation: Sequence[int]


def read_fleet(path: Path) -> FleetCounts:
    """The fleet.json at `path`. Raises DataError in one line when it is not one."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5,000 digits, a deep nest
        raise DataError(f"{path} is not JSON: {' '.join(str(error).split())}"[:200]) from None
    try:
        return _fleet(document)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def gini(participation: Sequence[int]) -> float | None:
    """How unevenly phones were counted: 0 = all alike, (n - 1) / n = one of n phones alone; None if nobody was.

    Of n phones counted x_i times, the mean difference of two of them by twice the mean (Gini 1912):
    sum_i sum_j |x_i - x_j| / (2 n^2 mean(x)), computed as (2 sum_r r x_(r) / sum x - (n + 1)) / n over ranks r.
    """
    phones, reports = _sums(participation)
    if reports == 0:
        return None
    ranked = below = 0
    for times, count in enumerate(participation):
        ranked += times * (count * below + count * (count + 1) // 2)  # their ranks, added up
        below += count
    return (2 * ranked - (phones + 1) * reports) / (phones * reports)


def loudest_tenth(participation: Sequence[int]) -> float | None:
    """The share of reports that came from the tenth of phones counted most often; None if nobody was counted.

    A tenth of 15 phones is one and a half, so all alike are always 0.1: 1 - L(0.9) of the Lorenz curve L.
    """
    phones, reports = _sums(participation)
    if reports == 0:
        return None
    left, heard = phones, 0  # in tenths of a phone
    for times in reversed(range(len(participation))):
        taken = min(left, 10 * participation[times])
        heard += times * taken
        left -= taken
    return heard / (10 * reports)


def _sums(participation: Sequence[int]) -> tuple[int, int]:
    return sum(participation), sum(times * count for times, count in enumerate(participation))


def _fleet(document: Any) -> FleetCounts:
    table = _table(document, "it", ("format", "population", "hours", "tiers", "participation"))
    if table["format"] != FORMAT:
        raise DataError(f"format must be {FORMAT}, got {table['format']!r}"[:200])
    population = _count(table["population"], "population")
    hours = [
        [
            _mean(hour, f"hours[{day}][{number}]")
            for number, hour in enumerate(_list(row, f"hours[{day}]", HOURS))
        ]
        for day, row in enumerate(_list(table["hours"], "hours", DAYS))
    ]
    tiers = table["tiers"]
    if not isinstance(tiers, dict) or len(tiers) > MOST_TIERS or not all(map(_is_name, tiers)):
        raise DataError(f"tiers must be at most {MOST_TIERS} objects by name, got {tiers!r}"[:200])
    participation = [
        _count(count, f"participation[{times}]")
        for times, count in enumerate(_list(table["participation"], "participation"))
    ]
    if population < 1 or sum(participation) != population:
        raise DataError(
            f"participation must add up to the population, >= 1, got {sum(participation)} of {population}"
        )
    return FleetCounts(
        population,
        hours,
        {name: _tier(counts, f"tiers.{name}") for name, counts in tiers.items()},
        participation,
    )


def _tier(document: Any, where: str) -> TierCounts:
    table = _table(document, where, ("phones", "assigned", "reported", "dropped"))
    reasons = _table(table["dropped"], f"{where}.dropped", REASONS)
    unknown = sorted(reasons.keys() - set(REASONS))
    if unknown:  # it would be missing from every total
        raise DataError(f"{where}.dropped has an unknown reason {unknown[0]!r:.80}")
    dropped = {reason: _count(reasons[reason], f"{where}.dropped.{reason}") for reason in REASONS}
    phones, assigned, reported = (
        _count(table[name], f"{where}.{name}") for name in ("phones", "assigned", "reported")
    )
    if reported + sum(dropped.values()) > assigned:
        raise DataError(
            f"{where} must have at most {assigned} reported and dropped, as assigned, "
            f"got {reported + sum(dropped.values())}"
        )
    return TierCounts(phones, assigned, reported, dropped)


def _table(value: Any, where: str, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or not set(names) <= value.keys():
        raise DataError(f"{where} must be an object with {', '.join(names)}, got {value!r}"[:200])
    return value


def _list(value: Any, where: str, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (len(value) != length if length else not value):
        raise DataError(f"{where} must be a list of {length or 'one and more'}, got {value!r}"[:200])
    return value


def _count(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise DataError(f"{where} must be a whole number >= 0, got {value!r}"[:200])
    return value


def _mean(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _MOST:  # nor nan
        raise DataError(f"{where} must be a number >= 0 or null, got {value!r}"[:200])
    return float(value)


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 40 and name.isprintable()
