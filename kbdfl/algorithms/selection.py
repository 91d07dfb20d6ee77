"""Client selection: which of the phones that check in get a place in a round.

A rule of one kind looks at each phone as it comes; one of the other kind ranks those that were seen lately and
invites the best (`kbdfl.algorithms.selector`). Every rule but uniform selection buys something, and pays with a model
that has heard less of the phones it passes over.
"""

from dataclasses import dataclass

import numpy as np

from kbdfl.algorithms.oort import Oort
from kbdfl.algorithms.roster import Roster, Tier, faded
from kbdfl.errors import ConfigError


def _check_separation(rounds: int) -> None:
    if rounds < 0:
        raise ConfigError(f"min_separation must be >= 0, got {rounds}")


@dataclass(frozen=True, slots=True)
class Uniform:
    """First come, first served; phones check in at random moments (Bonawitz et al. 2019, arXiv 1902.01046).

    min_separation  a phone is counted at most once in so many rounds; 0 = once an assignment, and nothing is kept

    The separation bounds how often a phone takes part, which privacy without amplification by sampling is accounted
    with (Kairouz et al. 2021, arXiv 2103.00039; Xu et al. 2023, arXiv 2305.18465). Biased to phones that check in
    often and stay long: uniform over check-ins is not uniform over people. The separation levels that out.
    """

    min_separation: int = 0

    def __post_init__(self) -> None:
        _check_separation(self.min_separation)

    def admits(self, tier: Tier, *, round: int, idle_s: float) -> bool:
        """Everyone."""
        return True


@dataclass(frozen=True, slots=True)
class DeadlineAware:
    """Phones of tiers that are expected to report in time (after FedCS, Nishio & Yonetani 2018, arXiv 1804.08333).

    target_s        seconds from assignment to report that a tier may take; below the round's deadline
    retry_rounds    a slower tier is tried with one phone in so many rounds: what was slow need not be so for ever
    min_separation  a phone is counted at most once in so many rounds; 0 = once an assignment

    A phone states its tier, and nothing else is believed: what a tier takes is the median of what the server
    saw. The target grows by the time that a place stays empty, since waiting costs as much as a slow phone does.
    Biased against people with old phones: their language is learnt from few of them or none. The paper asks
    phones for their resources and fits as many as it can into a round one after another, over a shared channel.
    """

    target_s: float = 60.0
    retry_rounds: int = 10
    min_separation: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.target_s < float("inf"):
            raise ConfigError(f"target_s must be > 0 and finite, got {self.target_s}")
        if self.retry_rounds < 1:
            raise ConfigError(f"retry_rounds must be >= 1, got {self.retry_rounds}")
        _check_separation(self.min_separation)

    def admits(self, tier: Tier, *, round: int, idle_s: float) -> bool:
        """Whether a phone of `tier` may have a place that has been empty for `idle_s`."""
        expected_s = tier.expected_s
        in_time = np.isnan(expected_s) or expected_s <= self.target_s + idle_s
        return bool(in_time) or round - tier.tried_round >= self.retry_rounds


@dataclass(frozen=True, slots=True)
class AvailabilityAware:
    """The phones that are there least often first (REFL's IPS, Abdelmoniem et al. 2022, arXiv 2111.01108).

    min_separation  a phone is counted at most once in so many rounds; 0 = once an assignment

    Those that are always there can be had later; so more people are heard. Biased to newcomers and rare guests,
    who also drop out more often, and whoever checks in under ever new names is one. The paper's phones predict
    their own availability; here the server counts in how many rounds it has seen a phone, each counting half after
    `roster.HALF_LIFE` more, and compares to a tenth of the most. There a phone that took part holds off for some
    rounds; here `min_separation` says for how many.
    """

    min_separation: int = 0

    def __post_init__(self) -> None:
        _check_separation(self.min_separation)

    def invite(
        self, roster: Roster, rows: np.ndarray, *, places: int, round: int, random: np.random.Generator
    ) -> np.ndarray:
        """Whom of `rows` to give `places`: as many of them, or all; equals in random order."""
        table = roster.table[rows]
        presence = faded(table["presence"], roster.epoch - table["seen_epoch"])
        # To a tenth of the most present: a poll missed by chance must not decide who is asked for ever after.
        tenths = np.rint(10 * presence / np.max(presence, initial=1e-9))
        return rows[np.lexsort((random.random(len(rows)), tenths))[:places]]


Gate = Uniform | DeadlineAware
Ranking = AvailabilityAware | Oort
Selection = Gate | Ranking

SELECTIONS: dict[str, type] = {
    "uniform": Uniform,
    "available": AvailabilityAware,
    "deadline": DeadlineAware,
    "oort": Oort,
}
