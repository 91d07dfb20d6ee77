"""What became of the phones of a simulation, in bounded size: `fleet.json` of a run.

Hours are of virtual time, which begins on a Monday at midnight. A phone that was assigned and is neither counted nor
dropped was not needed any more: its round had its reports.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from kbdfl.device_sim.devices import TIERS
from kbdfl.device_sim.hours import HOUR_S
from kbdfl.report.fleet import FORMAT, REASONS


class Tally:
    """Counts by tier and by phone."""

    def __init__(self) -> None:
        self.assigned: Counter[str] = Counter()
        self.reported: Counter[str] = Counter()
        self.dropped: dict[str, Counter[str]] = {}
        self.energy_j: dict[str, float] = {}  # by tier
        self.tier_of: dict[str, str] = {}  # of phones that were assigned
        self.by_hour: Counter[int] = Counter()  # check-ins
        self.events = 0  # check-ins, arrivals and deadlines that the clock came to

    def check_in(self, now: float) -> None:
        """A phone checks in."""
        self.events += 1
        self.by_hour[int(now // HOUR_S)] += 1

    def assign(self, phone: str, tier: str) -> None:
        """A phone was selected."""
        self.tier_of[phone] = tier
        self.assigned[tier] += 1

    def drop(self, tier: str, reason: str) -> None:
        """A selected phone will not report, for one of REASONS."""
        self.dropped.setdefault(tier, Counter())[reason] += 1

    def report(self, tier: str, *, energy_j: float) -> None:
        """A phone's report was counted; its training took so many joules."""
        self.reported[tier] += 1
        self.energy_j[tier] = self.energy_j.get(tier, 0.0) + energy_j

    def document(self, *, population: int, counted: Mapping[str, int]) -> dict[str, Any]:
        """The content of fleet.json; `counted` is how often each phone's reports were."""
        phones = Counter(self.tier_of.values())
        times = Counter(counted.values())
        most = max(times, default=0)
        return {
            "format": FORMAT,
            "population": population,
            "hours": _week(self.by_hour),
            "tiers": {
                tier: {
                    "phones": phones[tier],
                    "assigned": self.assigned[tier],
                    "reported": self.reported[tier],
                    "energy_wh": round(self.energy_j.get(tier, 0.0) / HOUR_S, 3),
                    "dropped": {why: self.dropped.get(tier, Counter())[why] for why in REASONS},
                }
                for tier in sorted(self.assigned, key=_rank)
            },
            "participation": [population - sum(times.values()), *(times[i] for i in range(1, most + 1))],
        }


def _rank(tier: str) -> int:
    """From fast to slow; what is none of TIERS last."""
    names = [one.name for one in TIERS]
    return names.index(tier) if tier in names else len(names)


def _week(by_hour: Mapping[int, int]) -> list[list[float | None]]:
    """Mean check-ins in each hour of each weekday; None for hours that the clock did not come to."""
    week: list[list[float | None]] = [[None] * 24 for _ in range(7)]
    hours = max(by_hour, default=-1) + 1
    for day in range(7):
        for hour in range(24):
            same = range(24 * day + hour, hours, 7 * 24)
            if same:
                week[day][hour] = sum(by_hour.get(each, 0) for each in same) / len(same)
    return week
