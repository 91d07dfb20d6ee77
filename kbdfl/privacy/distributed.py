"""Noise that the devices add themselves, each a share of it, under secure aggregation: nobody sees a sum without noise.

Every device rounds its clipped update at random to a grid of `steps` to a clip norm, and adds Skellam noise (Agarwal,
Kairouz and Liu 2021, arXiv 2110.04995). Shares are as large as the smallest number of honest survivors needs: with
more of them the sum has more noise than is accounted, never less. Devices that add none, or tell the server what they
added, are not among these.

All is bounded, so that a sum cannot wrap around: values are cut at `levels`, and noise where less than 2^-176 of it
lies beyond, which is charged as the noise's other inexactness is (`kbdfl.privacy.sampling`).
"""

from dataclasses import dataclass
from math import asinh, ceil, inf, isfinite, log, sqrt

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.privacy.accounting import covered, epsilon_of_skellam, rho_of_skellam
from kbdfl.privacy.grid import round_at_random, rounded_bound
from kbdfl.privacy.mechanisms import LARGEST_VARIANCE, skellam
from kbdfl.privacy.source import Source

TAIL = 176 * log(2)  # nats: a thinner tail of a device's noise is cut off
INEXACT = 3  # for each number: two Poisson draws, and what is cut off


@dataclass(frozen=True, slots=True)
class Shares:
    """How the devices of a round share its noise. Its `noise` is in clip norms, after rounding has made them longer.

    steps      of the grid in a clip norm
    levels     steps at which a value is cut
    size       numbers in an update
    survivors  honest ones in a sum, at least
    devices    as may take part at most
    """

    steps: float
    levels: int
    size: int
    survivors: int
    devices: int

    def __post_init__(self) -> None:
        if not (isfinite(self.steps) and self.steps > 0):
            raise ConfigError(f"steps must be finite and > 0, got {self.steps}")
        for name in ("levels", "size", "survivors"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.devices < self.survivors:
            raise ConfigError(f"devices must be >= survivors = {self.survivors}, got {self.devices}")

    @property
    def longest(self) -> float:
        """The L2 norm of one device's part in steps, which rounding makes longer than the clip norm."""
        return rounded_bound(self.steps, self.size)

    @property
    def squared_l2(self) -> float:
        """What one device moves in a sum at most, squared, in steps."""
        return self.longest**2

    @property
    def l1(self) -> float:
        """The same in the L1 norm. Of whole numbers, |x| <= x^2."""
        return min(self.squared_l2, sqrt(self.size) * self.longest)

    def variance(self, noise: float) -> float:
        """Of the sum's noise in each number, in steps squared, with the fewest survivors."""
        return noise**2 * self.squared_l2

    def each(self, noise: float) -> float:
        """The variance that one device adds. Raises ConfigError for more than can be drawn."""
        share = self.variance(noise) / self.survivors
        if not (noise > 0 and share <= LARGEST_VARIANCE):
            raise ConfigError(
                f"privacy noise_multiplier must be > 0 and leave a device's noise a variance of at most "
                f"{LARGEST_VARIANCE:g} steps squared, got {noise:g} and {share:g}"
            )
        return share

    def noise_bound(self, noise: float) -> int:
        """What a device's noise is cut to in each number, in steps."""
        return _reach(self.each(noise))

    def bound(self, noise: float) -> int:
        """The largest magnitude of a number that a device gives."""
        return self.levels + self.noise_bound(noise)

    def rho(self, noise: float, *, times: int) -> float:
        """For every whole order a > 1, `times` parts have a Renyi divergence of at most rho a."""
        return times * rho_of_skellam(variance=self.variance(noise), squared_l2=self.squared_l2, l1=self.l1)

    def epsilon(self, noise: float, delta: float, *, times: int, releases: int = 1) -> float:
        """What is claimed of `times` parts in so many releases; inf where nothing is."""
        variance = self.variance(noise)
        if not variance > 0:
            return inf
        epsilon = epsilon_of_skellam(
            variance=variance, squared_l2=self.squared_l2, l1=self.l1, delta=delta, times=times
        )
        return covered(epsilon, delta, draws=INEXACT * releases * self.devices * self.size)

    def encode(self, values: np.ndarray, noise: float, source: Source | None = None) -> np.ndarray:
        """One device's part: int64 (size,), within `bound`, of `values` float (size,) in steps, clipped or not yet.

        Raises ConfigError for another number of values.
        """
        if len(values) != self.size:
            raise ConfigError(f"an update must have {self.size} numbers, got {len(values)}")
        source, values = source or Source(), values.astype(float)
        norm = sqrt(float(np.einsum("i,i", values, values)))
        if norm > self.steps:
            values *= self.steps / norm
        np.clip(values, -self.levels, self.levels, out=values)  # makes it shorter, if anything
        steps, most = round_at_random(values, levels=self.steps, source=source), self.noise_bound(noise)
        return steps + np.clip(skellam(self.each(noise), self.size, source), -most, most)


def _reach(variance: float) -> int:
    """The smallest t with P(|X| > t) <= exp(-TAIL) by Chernoff's bound, for Skellam noise X.

    ln P(X >= t) <= v (sqrt(1 + u^2) - 1 - u asinh(u)), u = t / v
    """

    def far(t: int) -> bool:
        u = (t + 1) / variance
        return log(2) + variance * (u * u / (sqrt(1 + u * u) + 1) - u * asinh(u)) <= -TAIL

    low, high = 0, ceil(16 * sqrt(variance)) + 1
    while not far(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if far(middle) else (middle, high)
    return high
