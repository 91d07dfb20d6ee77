"""Noise that the devices add themselves, each a share of it, under secure aggregation: nobody sees a sum without noise.

Every device rounds its clipped update at random to a grid of `levels` steps a clip norm, and adds Skellam noise.
Shares are as large as the smallest number of survivors needs: with more of them the sum has more noise than is
accounted, never less. (Devices that add none, or tell the server their share, are not among the survivors.)
"""

from dataclasses import dataclass
from math import ceil, isfinite, log2, sqrt

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.kernels.accumulate import l2_norm
from kbdfl.privacy.accounting import epsilon_of_skellam, smallest
from kbdfl.privacy.grid import round_at_random, rounded_bound
from kbdfl.privacy.mechanisms import LARGEST_VARIANCE, skellam
from kbdfl.privacy.source import Source

SPREAD = 8.0  # standard deviations of a coordinate of the sum that do not wrap around


@dataclass(frozen=True, slots=True)
class Distributed:
    """One round of it.

    clip_norm         of an update
    levels            steps of the grid in a clip norm
    noise_multiplier  standard deviation of the sum's noise in clip norms, with the fewest survivors
    survivors         as many
    devices           as may take part at most
    size              numbers in an update
    """

    clip_norm: float
    levels: int
    noise_multiplier: float
    survivors: int
    devices: int
    size: int

    def __post_init__(self) -> None:
        for name in ("clip_norm", "noise_multiplier"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} must be finite and > 0, got {getattr(self, name)}")
        for name in ("levels", "survivors", "size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.devices < self.survivors:
            raise ConfigError(f"devices must be >= survivors = {self.survivors}, got {self.devices}")
        if self.variance > LARGEST_VARIANCE:
            raise ConfigError(
                f"levels must be fewer: the noise has a variance of {self.variance:g} steps squared"
            )

    @property
    def variance(self) -> float:
        """Of the sum's noise in each coordinate, in steps squared, with the fewest survivors."""
        return (self.noise_multiplier * self.levels) ** 2

    @property
    def share(self) -> float:
        """The variance that one device adds."""
        return self.variance / self.survivors

    @property
    def longest(self) -> float:
        """The L2 norm of one device's part in steps, which rounding makes longer than the clip norm."""
        return rounded_bound(self.levels, self.size)

    @property
    def bits(self) -> int:
        """Of the modulus, so that a coordinate of the sum wraps around at SPREAD deviations only.

        Counted for updates that were rotated, which makes a coordinate one in a square root of `size` of the norm; a
        sum that wraps around is wrong, and as private as before.
        """
        signal = SPREAD * self.devices * self.longest / sqrt(self.size)
        noise = SPREAD * sqrt(self.share * self.devices)
        return ceil(log2(2 * min(signal, self.devices * self.longest) + 2 * noise + 2))

    def encode(self, delta: np.ndarray, source: Source | None = None) -> np.ndarray:
        """One device's part: `delta` float32 (P,), rotated already if it is to be, clipped and with noise; int64 (P,).

        Raises ConfigError for a delta of another size.
        """
        if len(delta) != self.size:
            raise ConfigError(f"an update must have {self.size} numbers, got {len(delta)}")
        source = source or Source()
        values = delta.astype(float) * (self.levels / max(self.clip_norm, l2_norm(delta)))
        steps = round_at_random(values, levels=self.levels, source=source)
        return steps + skellam(self.share, self.size, source)

    def decode(self, words: np.ndarray, *, bits: int) -> np.ndarray:
        """float32 (P,): the sum of updates, from the sum of parts modulo 2^bits, uint32 or uint64 (P,)."""
        half, modulus = 1 << (bits - 1), 1 << bits
        steps = ((words.astype(np.int64) + half) % modulus) - half
        return (steps * (self.clip_norm / self.levels)).astype(np.float32)

    def epsilon(self, delta: float, *, times: int = 1) -> float:
        """What is claimed of `times` such rounds that a device takes part in."""
        squared = self.longest**2
        l1 = min(squared, sqrt(self.size) * self.longest)  # whole numbers: |x| <= x^2
        return epsilon_of_skellam(variance=self.variance, squared_l2=squared, l1=l1, delta=delta, times=times)


def calibrated(
    *,
    epsilon: float,
    delta: float,
    times: int,
    clip_norm: float,
    levels: int,
    survivors: int,
    devices: int,
    size: int,
) -> Distributed:
    """The round with the least noise of which `times` stay within (epsilon, delta). Raises ConfigError if none does."""

    def made(noise: float) -> Distributed:
        return Distributed(clip_norm, levels, noise, survivors, devices, size)

    def works(noise: float) -> bool:
        return made(noise).epsilon(delta, times=times) <= epsilon

    return made(smallest(works))
