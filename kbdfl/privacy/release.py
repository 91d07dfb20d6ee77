"""The central mechanism: updates on a grid, their sum with noise, the divisor, and the next clip norm.

Where devices add the noise (`kbdfl.privacy.distributed`) what is left is `release_noised`: the books, the divisor.

The four things that an audit plants faults in stand apart: `Summing.add` clips, `Central._noise` draws,
`Central.divisor` divides, and each release has a `Source` of its own.
"""

from collections.abc import Callable, Collection
from math import exp
from typing import Any, Self

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.privacy.grid import LEVELS, clip_to_grid
from kbdfl.privacy.ledger import Account, Books, Ledger
from kbdfl.privacy.mechanisms import LARGEST, discrete_gaussian
from kbdfl.privacy.participation import Participations
from kbdfl.privacy.source import Source
from kbdfl.privacy.terms import DEFAULT_CLIP_RATE, Privacy

MOST_DEVICES = 1 << 20  # in one sum: with all factors it stays inside int64
LOOSE = 2.0  # where the clip norm moves, phones clip to so many times of it, so that it is seen who is longer


class Summing:
    """A sum of updates on the grid, exact in any order. `within` counts those no longer than the clip norm."""

    def __init__(self, size: int, clip_norm: float) -> None:
        self.clip_norm = clip_norm
        self.total: np.ndarray = np.zeros(size, np.int64)
        self.count: int = 0
        self.within: int = 0

    def add(self, delta: np.ndarray) -> None:
        """One device's update, float32 (P,). Raises WireError, and changes nothing, for one that is not finite."""
        steps, within = clip_to_grid(delta, self.clip_norm)
        self.total += steps
        self.count += 1
        self.within += within

    def merge(self, other: Self) -> None:
        """All that `other` has added, of the same round."""
        self.total += other.total
        self.count += other.count
        self.within += other.within

    def add_state(self, state: dict[str, Any]) -> None:
        """All that another one had added when its `state` was taken, of the same round."""
        self.total += state["steps"]
        self.count += state["count"]
        self.within += state["within"]

    def state(self) -> dict[str, Any]:
        """A copy of all that it holds."""
        return {"steps": self.total.copy(), "count": self.count, "within": self.within}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self.total, self.count, self.within = state["steps"], state["count"], state["within"]


class Central:
    """One task's releases, in order. `source` makes what noise is drawn from, anew for each of them.

    A release is booked before anybody sees it, and one whose model could not be kept is the same when it is asked for
    again: nothing is released twice with different noise.
    """

    def __init__(self, account: Account, books: Books, *, source: Callable[[], Source] = Source) -> None:
        privacy = account.privacy
        if account.cohort > MOST_DEVICES:
            raise ConfigError(f"cohort must be at most {MOST_DEVICES} with privacy, got {account.cohort}")
        if not 0 < privacy.noise_multiplier <= LARGEST / 2**36:
            raise ConfigError(
                f"privacy noise_multiplier must be > 0 and at most {LARGEST / 2**36:g}, got {privacy.noise_multiplier}"
            )
        if account.shares is not None:
            account.shares.each(privacy.noise_multiplier)  # refuses what cannot be drawn
        self.privacy: Privacy = privacy
        self._account, self._source = account, source
        self.ledger: Ledger = Ledger(account, books)
        self._participations = Participations(books.participations())
        self._stream = privacy.stream(account.rounds)
        self._released: tuple[int, np.ndarray] | None = None  # of which round

    @property
    def clip_norm(self) -> float:
        """Of the updates in the next release."""
        last = self.ledger.last
        return last.next_clip_norm if last and self.privacy.quantile else self._account.clip_norm

    @property
    def device_clip_norm(self) -> float:
        """What phones clip to, whom nobody believes."""
        return self.clip_norm * (LOOSE if self.privacy.quantile else 1.0)

    @property
    def open(self) -> bool:
        """Whether the budget allows another release."""
        return self._released is not None or self.ledger.affords()

    @property
    def epsilon(self) -> float:
        """Spent so far."""
        return self.ledger.epsilon

    def lost(self, round: int) -> bool:
        """Whether a former process has booked a release of this round, whose model nobody ever saw.

        The noise that it drew is gone, and another draw over the same sum would be another release.
        """
        last = self.ledger.last
        return last is not None and last.round >= round and not self.drawn(round)

    def drawn(self, round: int) -> bool:
        """Whether the noise of this round is on its sum, so that nothing can be added to it any more."""
        return self._released is not None and self._released[0] == round

    def may(self, device: str) -> bool:
        """Whether the device may be counted in the next release."""
        return self._participations.may(device, len(self.ledger), self.privacy)

    def summing(self, size: int) -> Summing:
        """An empty sum of the next release."""
        return Summing(size, self.clip_norm)

    def divisor(self, summed: Summing) -> float:
        """What the sum is divided by: never how many reported."""
        return self.privacy.divisor(self._account.cohort)

    def release(self, round: int, summed: Summing, devices: Collection[str]) -> np.ndarray:
        """float32 (P,): the noised mean of the round that these devices are counted in. Booked when this returns.

        Raises ConfigError where the budget is spent, OSError where the row cannot be kept: then nothing is released.
        """
        if self._released is not None and self.drawn(round):
            return self._released[1]
        noise, clip_norm = self._noise(self._source()), summed.clip_norm
        noised = self._stream.release(
            summed.total, deviation=self.privacy.noise_multiplier * LEVELS, noise=noise
        )
        following = self._next_clip_norm(summed, noise)
        mean = (noised * (clip_norm / LEVELS / self.divisor(summed))).astype(np.float32)
        return self._book(round, mean, devices, clip_norm=clip_norm, next_clip_norm=following)

    def release_noised(self, round: int, total: np.ndarray, devices: Collection[str]) -> np.ndarray:
        """The same of the sum float (P,) of what these devices made, on which their noise is: none is added here.

        Raises ConfigError, too, for a sum of fewer devices than their noise was made for.
        """
        if self._released is not None and self.drawn(round):
            return self._released[1]
        shares = self._account.shares
        if shares is None:
            raise ConfigError("a sum must be noised by the server, whose noise this task has")
        if len(devices) < shares.survivors:
            raise ConfigError(f"a sum must hold the noise of {shares.survivors} devices, got {len(devices)}")
        clip_norm = self.clip_norm
        mean = (total / self.privacy.divisor(self._account.cohort)).astype(np.float32)
        return self._book(round, mean, devices, clip_norm=clip_norm, next_clip_norm=clip_norm)

    def _book(self, round: int, mean: np.ndarray, devices: Collection[str], **norms: float) -> np.ndarray:
        """A release is paid for, and from then on the same however often it is asked for."""
        self.ledger.book(round, devices, **norms)
        self._participations.counted(devices, len(self.ledger) - 1)
        self._released = round, mean
        return mean

    def settle(self) -> None:
        """The round is closed, and its model kept if there is one."""
        if self._released is not None:
            self._stream.settle()
            self._released = None

    def _noise(self, source: Source) -> Callable[[float, int], np.ndarray]:
        def draw(deviation: float, count: int) -> np.ndarray:
            return discrete_gaussian(deviation, count, source)

        return draw

    def _next_clip_norm(self, summed: Summing, noise: Callable[[float, int], np.ndarray]) -> float:
        """The clip norm moves towards the quantile (Andrew et al. 2021, algorithm 1), by a count with noise.

        A device that is within adds a half, another one takes a half away: doubled, whole numbers of sensitivity 1.
        """
        privacy, cohort = self.privacy, self._account.cohort
        if not privacy.quantile:
            return summed.clip_norm
        doubled = 2 * summed.within - summed.count + int(noise(2 * privacy.counting_noise(cohort), 1)[0])
        share = 0.5 + doubled / 2 / privacy.divisor(cohort)
        rate = privacy.clip_rate or DEFAULT_CLIP_RATE
        return summed.clip_norm * exp(-rate * (min(max(share, 0.0), 1.0) - privacy.quantile))
