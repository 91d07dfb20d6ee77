"""The mechanism that an audit attacks, and four faults that look like it.

`Mechanism` is the seam: whatever releases a vector from updates can be audited. `Released` is `kbdfl.privacy.Central`
behind it, the very code that a task's rounds are released by; `PLANTED` are the same with one thing wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.privacy import Account, Central, MemoryBooks, Privacy, Source, Summing
from kbdfl.privacy.grid import LEVELS
from kbdfl.privacy.source import KEY_BYTES


class Mechanism(Protocol):
    """One release of a mean over phones, by unit of one phone's whole update (zero-out neighbours).

    `clip_norm` bounds one phone's part, `noise_multiplier` is the noise's standard deviation as its multiple, and
    `denominator` is what the sum is divided by: what is claimed of it follows from these.
    """

    @property
    def clip_norm(self) -> float: ...

    @property
    def noise_multiplier(self) -> float: ...

    @property
    def denominator(self) -> int: ...

    def release(self, updates: np.ndarray, *, round: int) -> np.ndarray:
        """float (P,): the noised mean of `updates` float32 (n, P); a row of zeros is a phone that takes no part."""
        ...

    def claimed_epsilon(self, delta: float, *, releases: int = 1) -> float:
        """What is claimed of a phone that takes part in so many releases."""
        ...


class _Unpriced(Account):
    """An account that is not asked what it costs: an audit releases the same thing tens of thousands of times."""

    __slots__ = ()

    def rho(self, released: int) -> float:
        return 0.0

    def epsilon(self, released: int) -> float:
        return 0.0


@dataclass(frozen=True, slots=True)
class Released:
    """What a round with Gaussian noise releases; every release is the first of a task of its own."""

    clip_norm: float
    noise_multiplier: float
    denominator: int
    central: ClassVar[type[Central]] = Central

    def __post_init__(self) -> None:
        if not 0 < self.clip_norm < float("inf"):
            raise ConfigError(f"clip_norm must be > 0 and finite, got {self.clip_norm}")
        if self.denominator < 1:
            raise ConfigError(f"denominator must be >= 1, got {self.denominator}")
        self._privacy(0.5)  # refuses what it refuses

    def release(self, updates: np.ndarray, *, round: int) -> np.ndarray:
        size = updates.shape[1]
        central = self._central(_Unpriced(self._privacy(0.5), self.clip_norm, 1, self.denominator, size))
        summed = central.summing(size)
        for update in np.asarray(updates, np.float32):
            if update.any():
                summed.add(update)
        return central.release(round, summed, ())

    def claimed_epsilon(self, delta: float, *, releases: int = 1) -> float:
        return Account(self._privacy(delta), self.clip_norm, releases, self.denominator, 1).epsilon(releases)

    def _privacy(self, delta: float) -> Privacy:
        return Privacy(mechanism="gaussian", noise_multiplier=self.noise_multiplier, delta=delta)

    def _central(self, account: Account) -> Central:
        return self.central(account, MemoryBooks())


class _Loose(Summing):
    """Adds updates as they come."""

    def add(self, delta: np.ndarray) -> None:
        self.total += np.trunc(delta.astype(float) * (LEVELS / self.clip_norm)).astype(np.int64)
        self.count += 1


class _NoClip(Central):
    def summing(self, size: int) -> Summing:
        return _Loose(size, self.clip_norm)


class _HalfNoise(Central):
    def _noise(self, source: Source) -> Callable[[float, int], np.ndarray]:
        draw = super()._noise(source)
        return lambda deviation, count: draw(deviation / 2, count)


class _WrongDenominator(Central):
    def divisor(self, summed: Summing) -> float:
        return max(1, summed.count)


class NoClip(Released):
    """A fault: updates are added as they come."""

    __slots__ = ()
    central = _NoClip


class HalfNoise(Released):
    """A fault: half the noise that is claimed."""

    __slots__ = ()
    central = _HalfNoise


class WrongDenominator(Released):
    """A fault: divided by how many took part, which is a figure of the data and has no noise."""

    __slots__ = ()
    central = _WrongDenominator


class SeededNoise(Released):
    """A fault: every release draws the same noise."""

    __slots__ = ()

    def _central(self, account: Account) -> Central:
        return self.central(account, MemoryBooks(), source=lambda: Source.of_key(bytes(KEY_BYTES)))


PLANTED: dict[str, type[Released]] = {
    "no clip": NoClip,
    "half noise": HalfNoise,
    "wrong denominator": WrongDenominator,
    "seeded noise": SeededNoise,
}
