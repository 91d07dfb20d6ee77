"""What was spent, before it is spent: an append-only row for every release, durable before its model is published.

A row holds the sha256 of the one before it, so that none can be changed or left out unnoticed. `Books` is where rows
and participations are kept; a release that was booked and then lost, in a crash between the row and the model, stays
booked.
"""

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any, Protocol

from kbdfl.errors import ConfigError, DataError
from kbdfl.privacy.distributed import Shares
from kbdfl.privacy.participation import Participations, Parts
from kbdfl.privacy.terms import Privacy

NOTHING = "0" * 64


@dataclass(frozen=True, slots=True)
class Account:
    """What rows say for themselves: the promise, and what else its cost depends on.

    clip_norm   at the beginning
    rounds      of the task, as the noise was made for
    cohort      reports that commit a round
    size        numbers in an update
    shares      how the devices add the noise; None = the server does
    """

    privacy: Privacy
    clip_norm: float
    rounds: int
    cohort: int
    size: int
    shares: Shares | None = None

    def __post_init__(self) -> None:
        if (self.shares is not None) != self.privacy.on_devices:
            raise ConfigError(
                f"shares must come with noise that devices add, got {self.privacy.mechanism}, {self.shares}"
            )

    def rho(self, released: int) -> float:
        """What so many releases cost."""
        if self.shares is not None:
            noise, times = self.privacy.noise_multiplier, self.privacy.parts(released)
            return self.shares.rho(noise, times=times) if released else 0.0
        return self.privacy.rho(released, rounds=self.rounds, cohort=self.cohort)

    def epsilon(self, released: int) -> float:
        """What is claimed after them."""
        if self.shares is not None:
            noise, times = self.privacy.noise_multiplier, self.privacy.parts(released)
            return self.shares.epsilon(noise, self.privacy.delta, times=times, releases=released)
        return self.privacy.claim(self.rho(released), draws=released * (self.size + 1))


@dataclass(frozen=True, slots=True)
class Row:
    """One release. `clip_norm` bounded its updates, `next_clip_norm` those of the next; rho and epsilon are so far.

    An epsilon of None claims nothing: there was too little noise to say anything.
    """

    number: int
    round: int
    devices: int
    clip_norm: float
    next_clip_norm: float
    rho: float
    epsilon: float | None
    delta: float
    terms: dict[str, Any]
    before: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, line: str) -> "Row":
        """Raises DataError for what is no row."""
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError):
            raise DataError(
                f"a ledger must hold a release's JSON object a line, got {line!r}"[:200]
            ) from None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()


class Books(Protocol):
    """Where a task's ledger and its devices' participations are durable."""

    def rows(self) -> list[Row]:
        """All rows, the first one first."""
        ...

    def participations(self) -> dict[str, Parts]:
        """Of every device that was ever counted."""
        ...

    def book(self, row: Row, devices: Collection[str]) -> None:
        """Keep a row, and that these devices were counted in its release, all or nothing, durable when it returns."""


class MemoryBooks:
    """For tests, and for simulations that leave nothing behind."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._parts = Participations()
        self._devices: set[str] = set()

    def rows(self) -> list[Row]:
        return list(self._rows)

    def participations(self) -> dict[str, Parts]:
        return {device: had for device in self._devices if (had := self._parts.of(device)) is not None}

    def book(self, row: Row, devices: Collection[str]) -> None:
        self._rows.append(row)
        self._parts.counted(devices, row.number)
        self._devices.update(devices)


class FileBooks:
    """In a run's folder: `ledger.jsonl`, a row a line, and `participations.jsonl`, the devices of each.

    The devices are written first, and their line names the row's number. A line that was not written to its end was
    never followed by a model, and is dropped.
    """

    def __init__(self, folder: Path) -> None:
        self._ledger, self._devices = folder / "ledger.jsonl", folder / "participations.jsonl"
        for path in (self._ledger, self._devices):
            if path.exists():
                _drop_torn(path)

    def rows(self) -> list[Row]:
        if not self._ledger.exists():
            return []
        return [Row.from_json(line) for line in self._ledger.read_text("utf-8").splitlines()]

    def participations(self) -> dict[str, Parts]:
        found = Participations()
        names: set[str] = set()
        if self._devices.exists():
            for line in self._devices.read_text("utf-8").splitlines():
                counted = json.loads(line)
                found.counted(counted["devices"], counted["number"])
                names.update(counted["devices"])
        return {device: had for device in names if (had := found.of(device)) is not None}

    def book(self, row: Row, devices: Collection[str]) -> None:
        _append(self._devices, json.dumps({"number": row.number, "devices": sorted(devices)}))
        _append(self._ledger, row.to_json())


class Ledger:
    """The rows of one task, over `books`. Raises ConfigError where these are of another promise, or were changed."""

    def __init__(self, account: Account, books: Books) -> None:
        self.account: Account = account
        self._books = books
        self._rows = check_rows(books.rows())
        self._affords: tuple[int, bool] | None = None  # after so many rows
        for row in self._rows[-1:]:
            if row.terms != _terms(account):
                raise ConfigError(
                    "the ledger is of another promise of privacy than the task: begin another task"
                )

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last(self) -> Row | None:
        """The newest row."""
        return self._rows[-1] if self._rows else None

    @property
    def epsilon(self) -> float:
        """Spent so far; inf where nothing is claimed any more."""
        if not self._rows:
            return 0.0
        epsilon = self._rows[-1].epsilon
        return inf if epsilon is None else epsilon

    def affords(self) -> bool:
        """Whether one more release stays within the budget."""
        if self._affords is None or self._affords[0] != len(self._rows):  # asked at every check-in
            budget, released = self.account.privacy.epsilon, len(self._rows) + 1
            self._affords = len(self._rows), not budget or self.account.epsilon(released) <= budget
        return self._affords[1]

    def book(self, round: int, devices: Collection[str], *, clip_norm: float, next_clip_norm: float) -> Row:
        """The row of a release that is about to be published. Beyond the budget ConfigError, and no row."""
        if not self.affords():
            raise ConfigError(
                f"the privacy budget of epsilon = {self.account.privacy.epsilon:g} is spent: "
                f"round {round} cannot be released"
            )
        released = len(self._rows) + 1
        epsilon = self.account.epsilon(released)
        row = Row(
            number=released - 1,
            round=round,
            devices=len(devices),
            clip_norm=clip_norm,
            next_clip_norm=next_clip_norm,
            rho=self.account.rho(released),
            epsilon=epsilon if epsilon < inf else None,
            delta=self.account.privacy.delta,
            terms=_terms(self.account),
            before=self._rows[-1].sha256 if self._rows else NOTHING,
        )
        self._books.book(row, devices)
        self._rows.append(row)
        return row


def check_rows(rows: list[Row]) -> list[Row]:
    """The rows, if each follows from the one before. Raises DataError."""
    before = NOTHING
    for number, row in enumerate(rows):
        if row.number != number or row.before != before:
            raise DataError(f"the ledger was altered: row {number} does not follow from the one before it")
        before = row.sha256
    return rows


def _terms(account: Account) -> dict[str, Any]:
    terms = asdict(account)
    if account.shares is None:
        del terms["shares"]
    return json.loads(json.dumps(terms))


def account_of(row: Row) -> Account:
    """The account that a row states. Raises DataError where it states none."""
    try:
        terms = dict(row.terms)
        if "shares" in terms:
            terms["shares"] = Shares(**terms["shares"])
        return Account(Privacy(**terms.pop("privacy")), **terms)
    except (TypeError, KeyError, ConfigError):
        raise DataError("the ledger does not say what its rows promise") from None


def _append(path: Path, line: str) -> None:
    """A line, durable when this returns, and its file's name too."""
    new = not path.exists()
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    if new:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _drop_torn(path: Path) -> None:
    """Cut off what follows the last whole line."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with open(path, "r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
