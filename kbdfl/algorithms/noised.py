"""A round's reports on their way to a mean with noise: each is clipped and rounded here, whatever the phone did.

Or, summed unseen, they come with their phones' noise on them, and nothing is left to be done but to book them.
"""

from collections.abc import Collection, Sequence
from math import isfinite
from typing import Any, Self

import numpy as np

from kbdfl.algorithms.aggregate import RunningSum
from kbdfl.errors import Conflict
from kbdfl.privacy import Central
from kbdfl.transform import Draws, Transform, Update, decode_chain


class Release:
    """A sum of one round whose `mean` is a release: it is booked, and drawn once, however often it is asked for."""

    _central: Central

    @property
    def epsilon(self) -> float | None:
        """Spent by the task so far; None where nothing is claimed of it any more."""
        return self._central.epsilon if isfinite(self._central.epsilon) else None

    def settle(self) -> None:
        """The round is closed, and what came of it is kept."""
        self._central.settle()


class Noised(Release):
    """The reports of one round, as whole numbers; `count` says how many. See `aggregate.Gathering`.

    Phones weigh alike.
    """

    def __init__(self, central: Central, transforms: Sequence[Transform], *, size: int, round: int) -> None:
        self._central, self._transforms, self._round = central, transforms, round
        self._summed = central.summing(size)
        self._devices: set[str] = set()

    @property
    def count(self) -> int:
        """How many were added."""
        return self._summed.count

    def add(self, device: str, update: Update, draws: Draws, *, weight: float, scale: float = 1.0) -> None:
        if self._central.drawn(self._round):
            raise Conflict(f"round {self._round} is being closed: what comes now is in no sum")
        self._summed.add(decode_chain(self._transforms, update, self._summed.total.size, draws))
        self._devices.add(device)

    def merge(self, other: Self) -> None:
        """Count all that `other` has added, of the same round."""
        self._summed.merge(other._summed)
        self._devices |= other._devices

    def state(self) -> dict[str, Any]:
        """A copy of all that it holds."""
        return self._summed.state() | {"devices": sorted(self._devices)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self._summed.restore(state)
        self._devices = set(state["devices"])

    def add_state(self, state: dict[str, Any]) -> None:
        """Count all that another sum had added when its `state` was taken, of the same round."""
        self._summed.add_state(state)
        self._devices |= set(state["devices"])

    def mean(self) -> np.ndarray:
        return self._central.release(self._round, self._summed, self._devices)


class NoisedUnseen(Release, RunningSum):
    """A round whose phones have noised what they sum up unseen."""

    def __init__(self, central: Central, *, size: int, round: int) -> None:
        super().__init__((), size, 0.0)
        self._central, self._round = central, round
        self._devices: set[str] = set()

    def add(self, device: str, update: Update, draws: Draws, *, weight: float, scale: float = 1.0) -> None:
        raise Conflict("an update of a task whose phones noise their sum must come in that sum")

    def add_noised(self, values: np.ndarray, devices: Collection[str]) -> None:
        """Count the updates of `devices`, by their sum `values` float32 (P,) with the noise on it."""
        self.add_sum(values, count=len(devices))
        self._devices |= set(devices)

    def merge(self, other: RunningSum) -> None:
        """Count all that `other`, of the same class, has added, of the same round."""
        if not isinstance(other, type(self)):
            raise Conflict("a sum without its phones' noise must not join one with it")
        super().merge(other)
        self._devices |= other._devices

    def state(self) -> dict[str, Any]:
        """A copy of all that it holds."""
        return super().state() | {"devices": sorted(self._devices)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        super().restore(state)
        self._devices = set(state["devices"])

    def add_state(self, state: dict[str, Any]) -> None:
        """Count all that another sum had added when its `state` was taken, of the same round."""
        super().add_state(state)
        self._devices |= set(state["devices"])

    def mean(self) -> np.ndarray:
        return self._central.release_noised(self._round, self._total, self._devices)
