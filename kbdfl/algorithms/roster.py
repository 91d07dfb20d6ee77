"""What a server knows of the phones that check in: one small row each, from what it saw itself.

Only a phone's tier is its own word. Rows live in memory: a server that starts again knows nobody and learns anew.
"""

from collections import deque
from statistics import median

import numpy as np

CAPACITY = 1 << 18  # phones; with their names some 50 MB
TIERS = 16  # phones that state yet another one count as unstated
OUTCOMES = 9  # of a tier: its expectation is their median, so four odd ones do not move it
LONGEST_S = 1e30  # that a phone is expected to take: far beyond any, and a number
HALF_LIFE = 100  # epochs after which having been seen counts half
NEVER = -(1 << 30)  # a round so long ago that no rule looks back to it

ROW = np.dtype(
    [
        ("seen_s", "f8"),  # its last check-in or report; -inf = it was waited for in vain
        ("since_s", "f8"),  # when it was given the assignment that it works on; nan = it has none
        ("duration_s", "f4"),  # from assignment to report, the last time; nan = not known
        ("utility", "f4"),  # of the last counted report; nan = there was none
        ("presence", "f4"),  # epochs in which it was seen, faded to `seen_epoch`
        ("seen_epoch", "i4"),
        ("part_round", "i4"),  # the last one that it was assigned to or counted in
        ("counted_round", "i4"),  # the last one that it was counted in
        ("assigned", "u4"),  # how often
        ("tier", "u1"),
    ]
)
_UNSEEN = np.array((-np.inf, np.nan, np.nan, np.nan, 0.0, 0, NEVER, NEVER, 0, 0), ROW)


class Tier:
    """What was seen of the phones that state one tier."""

    __slots__ = ("_outcomes", "tried_round")

    def __init__(self) -> None:
        self._outcomes: deque[float] = deque(maxlen=OUTCOMES)
        self.tried_round: int = NEVER  # the last one in which such a phone was assigned

    @property
    def expected_s(self) -> float:
        """The median of the last times from assignment to report; nan if there is none."""
        return median(self._outcomes) if self._outcomes else np.nan

    def counted(self, duration_s: float) -> None:
        """A phone took so long."""
        self._outcomes.append(duration_s)

    def missed(self, duration_s: float) -> None:
        """A phone was not done after so long, which tells something only if it was expected to be."""
        if not self._outcomes or duration_s > self.expected_s:
            self._outcomes.append(duration_s)


class Roster:
    """Rows of up to `capacity` phones; those that were not seen for longest are forgotten first.

    An epoch is a round, or as many as last `epoch_s`, in which every phone that polls is seen.
    """

    def __init__(self, capacity: int = CAPACITY, *, epoch_s: float = 0.0) -> None:
        self._capacity, self._epoch_s = capacity, epoch_s
        self._began_s: float | None = None  # the epoch
        self.epoch: int = 0
        self._rows: dict[str, int] = {}
        self._table = np.full(min(capacity, 64), _UNSEEN)
        self._codes = {"": 0}
        self.names: list[str] = []
        self.tiers: list[Tier] = [Tier()]  # by code; the first one's phones state none
        self.utilities: list[float] = []  # what the reports of each closed round summed up to
        self._utility = 0.0

    @property
    def table(self) -> np.ndarray:
        """All rows, ROW (n,), a view: written to by the roster alone."""
        return self._table[: len(self.names)]

    def row(self, device: str) -> int:
        """Where the phone's row is; a phone that is new gets one."""
        found = self._rows.get(device)
        if found is not None:
            return found
        if len(self.names) == self._capacity:
            self._forget()
        row = len(self.names)
        if row == len(self._table):
            more = min(self._capacity, 2 * row) - row
            self._table = np.concatenate([self._table, np.full(more, _UNSEEN)])
        self._rows[device] = row
        self.names.append(device)
        return row

    def tier(self, row: int) -> Tier:
        """What is known of phones like this one."""
        return self.tiers[self._table["tier"][row]]

    def seen(self, device: str, now: float, *, tier: str) -> None:
        """A phone checks in and states its tier, or "" for none."""
        row, table = self.row(device), self._table
        if self._began_s is None:
            self._began_s = now
        table["seen_s"][row] = now
        table["tier"][row] = self._code(tier)
        last = table["seen_epoch"][row]
        if table["presence"][row] == 0 or self.epoch > last:
            table["presence"][row] = 1 + faded(table["presence"][row], self.epoch - last)
            table["seen_epoch"][row] = self.epoch

    def assign(self, device: str, now: float, *, round: int) -> None:
        """The phone was given an assignment of `round`."""
        row, table = self.row(device), self._table
        table["since_s"][row] = now
        table["part_round"][row] = round
        table["assigned"][row] += 1
        self.tier(row).tried_round = round

    def counted(self, device: str, now: float, *, round: int, utility: float) -> None:
        """Its report was counted in `round`."""
        row, table = self.row(device), self._table
        duration_s = now - table["since_s"][row]
        epochs = self.epoch - table["seen_epoch"][row]
        if duration_s >= 0:  # nan where the phone was forgotten while it worked
            table["duration_s"][row] = duration_s
            self.tier(row).counted(float(duration_s))
            # It was there all the while, or those who work would pass for those who are away.
            lasting = (1 - faded(1.0, epochs)) / (1 - faded(1.0, 1))
            table["presence"][row] = faded(table["presence"][row], epochs) + lasting
            table["seen_epoch"][row] = self.epoch
        table["since_s"][row] = np.nan
        table["seen_s"][row] = now
        table["part_round"][row] = table["counted_round"][row] = round
        table["utility"][row] = utility
        self._utility += utility

    def missed(self, device: str, now: float) -> None:
        """The phone's report is not waited for any more.

        All that is known is that it takes longer than so far. Where that is longer than it took before, or nothing is
        known of it but that it misses its rounds, it is expected to take twice as long as before.
        """
        row, table = self.row(device), self._table
        duration_s = now - table["since_s"][row]
        if duration_s >= 0:
            before_s = table["duration_s"][row]
            # Written so that it holds where there is no `before`, which is nan.
            if not duration_s <= before_s or np.isnan(table["utility"][row]):
                table["duration_s"][row] = np.fmin(np.fmax(duration_s, 2 * before_s), LONGEST_S)
            self.tier(row).missed(float(duration_s))
        table["since_s"][row] = np.nan

    def absent(self, device: str, *, since_s: float) -> None:
        """The phone was waited for: if in vain, nobody waits for it again before it has been seen."""
        row = self.row(device)
        if self._table["seen_s"][row] <= since_s:
            self._table["seen_s"][row] = -np.inf

    def closed(self, now: float) -> None:
        """A round is over."""
        self.utilities.append(self._utility)
        self._utility = 0.0
        if self._began_s is not None and now - self._began_s >= self._epoch_s:
            self.epoch, self._began_s = self.epoch + 1, now

    def _code(self, tier: str) -> int:
        if tier not in self._codes and len(self.tiers) < TIERS:
            self._codes[tier] = len(self.tiers)
            self.tiers.append(Tier())
        return self._codes.get(tier, 0)

    def _forget(self) -> None:
        """Drop the sixteenth that was not seen for longest, and at least one: in bulk, since it takes a while."""
        drop = max(1, self._capacity // 16)
        keep = np.sort(np.argsort(self.table["seen_s"], kind="stable")[drop:])
        kept = self.table[keep]
        self._table[:] = _UNSEEN
        self._table[: len(keep)] = kept
        self.names = [self.names[row] for row in keep]
        self._rows = {name: row for row, name in enumerate(self.names)}


def faded(presence: np.ndarray | float, epochs: np.ndarray | int) -> np.ndarray | float:
    """What `presence` counts `epochs` later."""
    return presence * 0.5 ** (epochs / HALF_LIFE)
