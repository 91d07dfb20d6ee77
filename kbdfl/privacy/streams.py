"""How the noise of one round goes with that of others: not at all, by a tree, or by bands.

A stream gets each round's sum of whole numbers, adds whole noise, and gives what a model may be made of; it remembers
what it needs of earlier rounds, and that is secret: with it the noise could be taken off again. It lives in memory. One
that was lost begins anew, which costs accuracy and no privacy: a part of a device then counts in fewer releases.

`squared_sensitivity` bounds, in clip norms squared, what all parts of one device together move in all releases:
`participations` of norm one, in `rounds` rounds, at least `separation` rounds apart.
"""

from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Protocol

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.privacy.banded import UNIT, coefficients, prefix_variance, squared_norm

Noise = Callable[[float, int], np.ndarray]  # of a deviation and a length: int64


class Stream(Protocol):
    """See the module."""

    def squared_sensitivity(self, *, rounds: int, participations: int, separation: int) -> float:
        """In clip norms squared."""
        ...

    def prefix_variance(self, rounds: int) -> float:
        """The mean over the rounds of the variance of a running sum's noise, as a multiple of one draw's."""
        ...

    def release(self, total: np.ndarray, *, deviation: float, noise: Noise) -> np.ndarray:
        """float64 (P,): the sum int64 (P,) with noise of `deviation`. What it remembers is settled by `settle`."""
        ...

    def settle(self) -> None:
        """What was released last has become a model."""

    def restart(self) -> None:
        """Forget all earlier rounds."""


class Independent:
    """Every round has noise of its own (DP-FedAvg, McMahan et al. 2018, arXiv 1710.06963)."""

    def squared_sensitivity(self, *, rounds: int, participations: int, separation: int) -> float:
        return float(participations)

    def prefix_variance(self, rounds: int) -> float:
        return (rounds + 1) / 2

    def release(self, total: np.ndarray, *, deviation: float, noise: Noise) -> np.ndarray:
        return (total + noise(deviation, len(total))).astype(float)

    def settle(self) -> None:
        pass

    def restart(self) -> None:
        pass


class Tree:
    """Noise on the nodes of a binary tree over the rounds (Kairouz et al. 2021, arXiv 2103.00039, DP-FTRL).

    A running sum is the sum of as many nodes as its number of rounds has ones in binary. Every `restart` rounds a new
    tree begins (0 = never), on top of the last one's noise.
    """

    def __init__(self, restart: int = 0) -> None:
        self._every = restart
        self._leaves = 0
        self._nodes: dict[int, np.ndarray] = {}
        self.restart()

    def squared_sensitivity(self, *, rounds: int, participations: int, separation: int) -> float:
        # On each level nodes share no round. A node of w rounds holds at most ceil(w / separation) parts of a device;
        # the squares of the counts sum up to most where the counts are as uneven as that allows. Trees that were cut
        # short or begun elsewhere keep both bounds.
        longest, squares, width = min(self._every or rounds, rounds), 0, 1
        while width <= longest:
            most = min(participations, ceil(width / max(separation, 1)))
            full, rest = divmod(participations, most)
            squares += full * most**2 + rest**2
            width *= 2
        return float(squares)

    def prefix_variance(self, rounds: int) -> float:
        carried, total, every = 0, 0, self._every or rounds + 1
        for number in range(1, rounds + 1):
            leaves = (number - 1) % every + 1
            total += carried + leaves.bit_count()
            if leaves == every:
                carried += leaves.bit_count()
        return total / rounds

    def release(self, total: np.ndarray, *, deviation: float, noise: Noise) -> np.ndarray:
        leaves = self._leaves % self._every if self._every else self._leaves
        nodes = dict(self._nodes) if leaves else {}
        level = (~leaves & (leaves + 1)).bit_length() - 1  # of the node that this round completes
        noised = total + (fresh := noise(deviation, len(total)))
        for below in range(level):
            noised -= nodes.pop(below)
        nodes[level] = fresh
        self._next = leaves + 1, nodes
        return noised.astype(float)

    def settle(self) -> None:
        self._leaves, self._nodes = self._next

    def restart(self) -> None:
        self._leaves, self._nodes = 0, {}
        self._next = self._leaves, self._nodes


class Banded:
    """A banded Toeplitz matrix (`kbdfl.privacy.banded`), its coefficients chosen for so many rounds.

    It remembers `bands` - 1 sums as they were, and as many as they were released: 16 bytes a parameter each.
    """

    def __init__(self, rounds: int, bands: int) -> None:
        self.coefficients: tuple[int, ...] = coefficients(rounds, bands)
        self.restart()

    def squared_sensitivity(self, *, rounds: int, participations: int, separation: int) -> float:
        if participations > 1 and separation < len(self.coefficients):
            raise ConfigError(f"separation must be >= bands = {len(self.coefficients)}, got {separation}")
        return participations * squared_norm(self.coefficients[:rounds])

    def prefix_variance(self, rounds: int) -> float:
        return prefix_variance(self.coefficients, rounds)

    def release(self, total: np.ndarray, *, deviation: float, noise: Noise) -> np.ndarray:
        # First the release itself, all in whole numbers: C x + z.
        first, later = self.coefficients[0], self.coefficients[1:]
        released = first * total
        for coefficient, earlier in zip(later, self._sums, strict=False):
            released += coefficient * earlier
        released += noise(UNIT * deviation, len(total))
        # What follows sees nothing but releases: C^-1 of it, in floats.
        read = released.astype(float)
        for coefficient, earlier in zip(later, self._read, strict=False):
            read -= coefficient * earlier
        read /= first
        self._next = total, read
        return read

    def settle(self) -> None:
        total, read = self._next
        self._sums.appendleft(total)
        self._read.appendleft(read)

    def restart(self) -> None:
        most = len(self.coefficients) - 1
        self._sums: deque[np.ndarray] = deque(maxlen=most)
        self._read: deque[np.ndarray] = deque(maxlen=most)
