"""When the phones of a country are awake for training, a week long: worked out for many at a time, stored for none.

A phone is a number. All that is known of phone i follows from a hash of (seed, what is asked, i), as in Salmon et al.
2011, "Parallel random numbers: as easy as 1, 2, 3", so a million phones that nobody asks for take no memory. What the
hours are modelled on stands in `device_sim.devices`; here they also differ by the day:

- a phone is put on its charger at its own hour, some minutes earlier or later each day, an hour later on Friday and
  Saturday nights, when it also stays there longer; now and then it is not charged at all;
- clocks are off: most by seconds, one in a hundred by an hour or so, and a phone acts by its own.

An hour's more sleep at weekends is what phone screens show (Cuttone et al. 2017, "SensibleSleep", PLOS ONE 12(1)); the
other spreads are assumptions.
"""

from typing import Protocol

import numpy as np

from kbdfl.device_sim.devices import (
    BEDTIME_H,
    DAY_S,
    DAYTIME,
    NIGHT_H,
    SHORTEST_H,
    SPREAD,
    TIERS,
    ZONES,
    Device,
)
from kbdfl.rng import seed_of

HOUR_S = 3_600.0
WEEKEND = (4, 5)  # days of the week, from Monday = 0, whose nights are long
LATER_H, LONGER_H = 1.0, 0.7
JITTER_H, MOST_JITTER_H = 0.6, 1.5  # standard deviation and bound of what a day moves a window by
# Two windows of a phone never meet: 24 h less twice the jitter and the weekend's hour is longer than this.
LONGEST_H = 18.0
UNCHARGED = 0.1  # of days
SKEW_S, FAR_SKEW_S, FAR_OFF = 2.0, 3_600.0, 0.01  # standard deviations, and the share of clocks far off

_GOLDEN, _A, _B = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


# Columns: which phone, int64 (n,); when in virtual time its window opens and closes, float64 (n,) each.
Windows = tuple[np.ndarray, np.ndarray, np.ndarray]


class Hours(Protocol):
    """When the phones of a fleet may take part."""

    def windows(self, day: int, phones: np.ndarray) -> Windows:
        """The windows of `day` of these phones, int64 (n,), in any order.

        A window belongs to one day: it opens at most EARLY_S before that begins or after it ends. Windows of one
        phone do not overlap.
        """
        ...


EARLY_S = 4 * HOUR_S


def uniforms(seed: int, *name: str | int, phones: np.ndarray) -> np.ndarray:
    """float64 (n,) in [0, 1), by splitmix64 (Steele et al. 2014) of the phone's number under the name's seed."""
    z = (phones.astype(np.uint64) + np.uint64(1)) * _GOLDEN + np.uint64(seed_of(seed, *name))
    z = (z ^ (z >> np.uint64(30))) * _A
    z = (z ^ (z >> np.uint64(27))) * _B
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53


def normals(seed: int, *name: str | int, phones: np.ndarray) -> np.ndarray:
    """float64 (n,) standard normal, by Box and Muller's transform."""
    radius = np.sqrt(-2 * np.log1p(-uniforms(seed, *name, "radius", phones=phones)))
    return radius * np.cos(2 * np.pi * uniforms(seed, *name, "angle", phones=phones))


def tiers(seed: int, phones: np.ndarray) -> np.ndarray:
    """Which of `devices.TIERS` each phone is of, uint8 (n,)."""
    bounds = np.cumsum([tier.share for tier in TIERS])[:-1]
    return np.searchsorted(bounds, uniforms(seed, "tier", phones=phones), side="right").astype(np.uint8)


def hardware(seed: int, phone: int, tier: int, *, speeds: str) -> Device:
    """What `phone` is, of the tier `TIERS[tier]`; `speeds` is one of `kbdfl.run.SPEEDS`."""
    if speeds == "equal":
        return Device()
    training, link = 1.0, 1.0
    if speeds == "heavy-tailed":
        one = np.array([phone])
        training, link = (
            float(np.exp(SPREAD * normals(seed, what, phones=one)[0])) for what in ("training", "link")
        )
    return Device.of(TIERS[tier], training=training, link=link)


class Weekly:
    """The hours that this module's page describes; day 0 is a Monday, from midnight in the east."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def windows(self, day: int, phones: np.ndarray) -> Windows:
        seed = self._seed
        zones = np.cumsum([share for _, share in ZONES])[:-1]
        zone = np.searchsorted(zones, uniforms(seed, "zone", phones=phones), side="right")
        bedtime_h = BEDTIME_H[0] + BEDTIME_H[1] * normals(seed, "bedtime", phones=phones)
        any_h = 24 * uniforms(seed, "any time", phones=phones)
        by_day = uniforms(seed, "daytime", phones=phones) < DAYTIME
        own_h = (np.where(by_day, any_h, bedtime_h) + np.array([behind for behind, _ in ZONES])[zone]) % 24
        far = uniforms(seed, "far off", phones=phones) < FAR_OFF
        skew_s = np.where(far, FAR_SKEW_S, SKEW_S) * normals(seed, "skew", phones=phones)
        skew_s = np.clip(skew_s, -EARLY_S / 2, EARLY_S / 2)
        jitter_h = np.clip(
            JITTER_H * normals(seed, "jitter", day, phones=phones), -MOST_JITTER_H, MOST_JITTER_H
        )
        long = day % 7 in WEEKEND
        opens_s = day * DAY_S + (own_h + jitter_h + LATER_H * long) * HOUR_S + skew_s
        night_h = NIGHT_H[0] + NIGHT_H[1] * normals(seed, "night", phones=phones)
        free_h = np.clip(night_h + 0.5 * jitter_h + LONGER_H * long, SHORTEST_H, LONGEST_H)
        charged = uniforms(seed, "charged", day, phones=phones) >= UNCHARGED
        return phones[charged], opens_s[charged], (opens_s + free_h * HOUR_S)[charged]
