"""Phones' hours from a file instead of a model: one line a window, CSV or Parquet.

    device,opens_s,closes_s
    a1f0,79200,104400
    a1f0,165000,190800

`device` is any name, times are seconds from the Monday midnight on which virtual time begins, and a phone is free from
`opens_s` to `closes_s`. The n-th device of the file is the n-th phone; where there are more phones, phone i follows
device i mod n. After the last window's day the file begins again, whole weeks later if it is longer than one.
"""

import csv
from math import ceil, isfinite
from pathlib import Path

import numpy as np

from kbdfl.device_sim.devices import DAY_S
from kbdfl.device_sim.hours import Hours, Weekly, Windows
from kbdfl.errors import ConfigError, DataError
from kbdfl.run import TRACES

COLUMNS = ("device", "opens_s", "closes_s")


class Trace:
    """Windows that were recorded; see `kbdfl.device_sim.hours.Hours`. Raises DataError for a file that is not such."""

    def __init__(self, path: Path) -> None:
        names, opens, closes = _parquet(path) if path.suffix == ".parquet" else _csv(path)
        if not names:
            raise DataError(f"{path} holds no window")
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        devices = np.array([numbers[name] for name in names])
        _check(path, names, devices, opens, closes)
        order = np.lexsort((devices, opens))
        self.devices = len(numbers)
        self._devices, self._opens, self._closes = devices[order], opens[order], closes[order]
        days = ceil(closes.max() / DAY_S)
        self.days = days if days <= 7 else 7 * ceil(days / 7)

    def windows(self, day: int, phones: np.ndarray) -> Windows:
        if day < 0 or not len(phones):
            none = np.zeros(0)
            return none.astype(np.int64), none, none
        of_day = day % self.days
        rows = slice(*np.searchsorted(self._opens, [of_day * DAY_S, (of_day + 1) * DAY_S]))
        devices, shift_s = self._devices[rows], (day - of_day) * DAY_S
        first, last = int(phones[0]), int(phones[-1])
        laps = np.arange(first // self.devices, last // self.devices + 1) * self.devices
        numbers = (devices[:, None] + laps).ravel()
        opens, closes = (np.repeat(each[rows] + shift_s, len(laps)) for each in (self._opens, self._closes))
        wanted = np.isin(numbers, phones)
        return numbers[wanted], opens[wanted], closes[wanted]


def open_hours(availability: str, *, seed: int) -> Hours | None:
    """The hours that `kbdfl.run.Settings.availability` names; None where phones are asked when they are wanted."""
    if availability.endswith(TRACES):
        return Trace(Path(availability))
    return Weekly(seed) if availability == "weekly" else None


def _csv(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    names, times = [], []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            if tuple(next(rows, ())) != COLUMNS:
                raise DataError(f"{path} must begin with the line {','.join(COLUMNS)}")
            for row in rows:
                try:
                    name, opens_s, closes_s = row
                    times.append((float(opens_s), float(closes_s)))
                except ValueError:
                    raise DataError(
                        f"{path} line {rows.line_num} must be a device and two times, got {','.join(row)!r}"[
                            :200
                        ]
                    ) from None
                names.append(name)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}"[:200]) from None
    opens, closes = np.array(times, np.float64).reshape(-1, 2).T
    return names, opens, closes


def _parquet(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise ConfigError("a Parquet trace needs pyarrow: pip install 'kbdfl[parquet]'") from None
    try:
        table = read_table(path, columns=list(COLUMNS))
        names = [str(name) for name in table["device"].to_pylist()]
        opens, closes = (table[name].to_numpy().astype(np.float64) for name in COLUMNS[1:])
    except (OSError, ArrowException, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a Parquet trace: {error}".splitlines()[0][:200]) from None
    return names, opens, closes


def _check(path: Path, names: list[str], devices: np.ndarray, opens: np.ndarray, closes: np.ndarray) -> None:
    """Raise DataError for a window that ends before it begins, or meets another one of its device."""
    for name, opens_s, closes_s in zip(names, opens, closes, strict=True):
        if not (isfinite(closes_s) and 0 <= opens_s < closes_s):
            raise DataError(
                f"{path}: a window must have 0 <= opens_s < closes_s, got {opens_s:g} and {closes_s:g} of {name}"[
                    :200
                ]
            )
    if opens.min() >= 7 * DAY_S:
        raise DataError(
            f"{path}: the first window must open within a week from a Monday's midnight, got {opens.min():g} s"
        )
    order = np.lexsort((opens, devices))
    same = devices[order][1:] == devices[order][:-1]
    early = same & (opens[order][1:] < closes[order][:-1])
    if early.any():
        at = order[1:][early][0]
        raise DataError(f"{path}: windows of {names[at]} overlap at {opens[at]:g} s"[:200])
