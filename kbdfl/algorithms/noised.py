"""A round's reports on their way to a mean with noise: each is clipped and rounded here, whatever the phone did."""

from collections.abc import Sequence
from math import isfinite
from typing import Any, Self

import numpy as np

from kbdfl.errors import Conflict
from kbdfl.privacy import Central
from kbdfl.transform import Draws, Transform, Update, decode_chain


class Noised:
    """The reports of one round, as whole numbers; `count` says how many. See `aggregate.Gathering`.

    Phones weigh alike. The `mean` is a release: it is booked, and drawn once, however often it is asked for.
    """

    def __init__(self, central: Central, transforms: Sequence[Transform], *, size: int, round: int) -> None:
        self._central, self._transforms, self._round = central, transforms, round
        self._summed = central.summing(size)
        self._devices: set[str] = set()

    @property
    def count(self) -> int:
        """How many were added."""
        return self._summed.count

    @property
    def epsilon(self) -> float | None:
        """Spent by the task so far; None where nothing is claimed of it any more."""
        return self._central.epsilon if isfinite(self._central.epsilon) else None

    def settle(self) -> None:
        """The round is closed, and what came of it is kept."""
        self._central.settle()

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
