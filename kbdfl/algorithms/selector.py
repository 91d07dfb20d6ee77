"""The coordinator's desk for client selection: what was seen, who is invited, and who is let in.

Phones come one by one, at moments of their own, so a rule that ranks cannot choose among those present. It ranks
those that were seen lately and invites the best; an invited phone is let in when it comes. Nobody starves: places that
nobody is invited for go to whoever comes, an invitation lapses once a polling phone would have come, and the longer a
place stays empty the more phones are invited, until it is all of them.
"""

from typing import Any

import numpy as np

from kbdfl.algorithms.roster import Roster
from kbdfl.algorithms.selection import Ranking, Selection, Uniform

PATIENCE = 1.5  # paces: every phone that polls is back by then


class Selector:
    """Asked at each check-in, told what became of it. `pace_s` and `deadline_s` as in `RoundRule`.

    `random` is drawn from by rules that rank, and by no other. A uniform selection without a separation keeps
    nothing at all.
    """

    def __init__(
        self, rule: Selection, *, pace_s: float, deadline_s: float, random: np.random.Generator
    ) -> None:
        self._rule, self._random = rule, random
        self._patience_s = PATIENCE * pace_s
        # Phones that were told to wait at the beginning of a round that lasted as long as one may are remembered.
        self._lately_s = deadline_s + self._patience_s
        self._roster = None if rule == Uniform() else Roster(epoch_s=self._patience_s)
        self._invited: dict[str, float] = {}  # when; the one that lapses first stands first
        # Since when in this round a place has been free that was asked for.
        self._empty_s: float | None = None

    @property
    def remembers(self) -> bool:
        """Whether it keeps anything of the phones that it sees."""
        return self._roster is not None

    def seen(self, device: str, now: float, *, tier: str) -> None:
        """A phone checks in; `tier` is its own word."""
        if self._roster is not None:
            self._roster.seen(device, now, tier=tier)

    def admit(self, device: str, now: float, *, round: int, free: int) -> bool:
        """Whether a phone that was just seen, and has no assignment, gets one of the `free` >= 1 places."""
        if self._roster is None:
            return True
        if self._empty_s is None:
            self._empty_s = now
        if not self._fits(self._roster, device, now, round=round, free=free):
            return False
        self._roster.assign(device, now, round=round)
        if free == 1:
            self._empty_s = None
        return True

    def _fits(self, roster: Roster, device: str, now: float, *, round: int, free: int) -> bool:
        rule, row = self._rule, roster.row(device)
        if round - roster.table["counted_round"][row] < rule.min_separation:
            return False
        if not isinstance(rule, Ranking):
            return rule.admits(roster.tier(row), round=round, idle_s=self._idle_s(now))
        self._lapse(roster, now)
        if device not in self._invited:
            self._invite(rule, roster, now, round=round, free=free)
        if self._invited.pop(device, None) is not None:
            return True
        return len(self._invited) < free

    def counted(self, device: str, now: float, *, round: int, utility: float) -> None:
        """The phone's report was counted in `round`."""
        if self._roster is not None:
            self._roster.counted(device, now, round=round, utility=utility)

    def missed(self, device: str, now: float) -> None:
        """The phone's report is not waited for any more."""
        if self._roster is not None:
            self._roster.missed(device, now)

    def closed(self, now: float) -> None:
        """A round is over."""
        if self._roster is not None:
            self._roster.closed(now)
            self._empty_s = None

    def state(self) -> dict[str, Any]:
        """What it has seen, for a snapshot."""
        return {"roster": self._roster, "invited": self._invited, "empty_s": self._empty_s}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self._roster, self._invited, self._empty_s = state["roster"], state["invited"], state["empty_s"]

    def _idle_s(self, now: float) -> float:
        return 0.0 if self._empty_s is None else now - self._empty_s

    def _lapse(self, roster: Roster, now: float) -> None:
        """Take back the invitations of phones that should have come by now."""
        for device, invited_s in list(self._invited.items()):
            if now - invited_s < self._patience_s:
                return
            del self._invited[device]
            roster.absent(device, since_s=invited_s)

    def _invite(self, rule: Ranking, roster: Roster, now: float, *, round: int, free: int) -> None:
        """As many phones as places are free, and twice as many for each patience that one has been empty."""
        more = (free << min(int(self._idle_s(now) / self._patience_s), 30)) - len(self._invited)
        if more <= 0:
            return
        table = roster.table
        fits = (table["seen_s"] >= now - self._lately_s) & np.isnan(table["since_s"])
        fits &= round - table["counted_round"] >= max(1, rule.min_separation)
        fits[[roster.row(device) for device in self._invited]] = False
        candidates = np.flatnonzero(fits)
        chosen = rule.invite(
            roster, candidates, places=min(more, len(candidates)), round=round, random=self._random
        )
        self._invited |= dict.fromkeys((roster.names[row] for row in chosen), now)
