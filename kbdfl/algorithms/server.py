"""What the server does with a round's mean update: frozen rules with pure functions.

A rule turns (parameters, mean delta, its state, round) into (new parameters, new state). The mean delta points
from the old model to where the phones went, so a rule adds. Every rule works on each coordinate by itself: where
a round reports some coordinates only (`kbdfl.algorithms.coordinates`) it is applied to these, and elsewhere the
state neither grows nor decays.
"""

from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from kbdfl.algorithms.schedule import decayed
from kbdfl.errors import ConfigError

State = dict[str, np.ndarray]


class ServerRule(Protocol):
    """A server optimiser (Reddi et al. 2020, arXiv 2003.00295, algorithm 2)."""

    def init(self, size: int) -> State:
        """The state before the first round; arrays float32 (size,)."""
        ...

    def apply(
        self, params: np.ndarray, mean_delta: np.ndarray, state: State, *, round: int
    ) -> tuple[np.ndarray, State]:
        """New parameters float32 (P,) and state; nothing passed in is changed. `round` counts from 0."""
        ...


@dataclass(frozen=True, slots=True)
class _Scheduled:
    """What all rules share: a rate that falls geometrically, and the ranges of what they are given.

    The rate falls from learning_rate to final_learning_rate over decay_rounds rounds and stays there;
    decay_rounds 0 keeps it constant.
    """

    learning_rate: float = 1.0
    final_learning_rate: float = 0.1
    decay_rounds: int = 0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name == "decay_rounds":
                if value < 0:
                    raise ConfigError(f"server decay_rounds must be >= 0, got {value}")
            elif name in ("momentum", "beta1", "beta2"):
                if not 0 <= value < 1:
                    raise ConfigError(f"server {name} must lie in [0, 1), got {value}")
            elif not 0 < value < float("inf"):
                raise ConfigError(f"server {name} must be > 0 and finite, got {value}")

    def rate(self, round: int) -> float:
        """The learning rate of round `round`."""
        return decayed(
            self.learning_rate, self.final_learning_rate, decay_rounds=self.decay_rounds, round=round
        )


@dataclass(frozen=True, slots=True)
class FedAvg(_Scheduled):
    """x <- x + rate d, d the mean delta (McMahan et al. 2017, arXiv 1602.05629; a rate of 1 is the paper's)."""

    def init(self, size: int) -> State:
        return {}

    def apply(
        self, params: np.ndarray, mean_delta: np.ndarray, state: State, *, round: int
    ) -> tuple[np.ndarray, State]:
        return params + np.float32(self.rate(round)) * mean_delta, state


@dataclass(frozen=True, slots=True)
class FedAvgM(_Scheduled):
    """Heavy-ball momentum over mean deltas (Hsu et al. 2019, arXiv 1909.06335).

        m <- momentum m + d,  x <- x + rate m

    m starts at 0 and is not averaged, so a steady delta ends up 1 / (1 - momentum) times as long. Where a round
    reports some coordinates only, the others rest: they neither coast on their momentum nor lose it.
    """

    momentum: float = 0.9

    def init(self, size: int) -> State:
        return {"m": np.zeros(size, np.float32)}

    def apply(
        self, params: np.ndarray, mean_delta: np.ndarray, state: State, *, round: int
    ) -> tuple[np.ndarray, State]:
        m = np.float32(self.momentum) * state["m"] + mean_delta
        return params + np.float32(self.rate(round)) * m, {"m": m}


@dataclass(frozen=True, slots=True)
class _Adaptive(_Scheduled):
    """Algorithm 2 of Reddi et al. 2020; a rule of the family says how v, the second moment, moves.

        m <- beta1 m + (1 - beta1) d,  v <- ...,  x <- x + rate m / (sqrt(v) + epsilon)

    As in the paper m starts at 0 and v at epsilon^2, there is no bias correction, and epsilon (the paper's tau)
    stands outside the root.
    """

    learning_rate: float = 0.01
    final_learning_rate: float = 0.001
    beta1: float = 0.9
    epsilon: float = 1e-4

    def second_moment(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        """The new v float32 (P,) from the old one and the mean delta's square."""
        raise NotImplementedError

    def init(self, size: int) -> State:
        return {
            "m": np.zeros(size, np.float32),
            "v": np.full(size, self.epsilon**2, np.float32),
        }

    def apply(
        self, params: np.ndarray, mean_delta: np.ndarray, state: State, *, round: int
    ) -> tuple[np.ndarray, State]:
        m = np.float32(self.beta1) * state["m"] + np.float32(1 - self.beta1) * mean_delta
        v = self.second_moment(state["v"], np.square(mean_delta))
        step = np.float32(self.rate(round)) * m / (np.sqrt(v) + np.float32(self.epsilon))
        return params + step, {"m": m, "v": v}


@dataclass(frozen=True, slots=True)
class FedAdagrad(_Adaptive):
    """v <- v + d^2: steps shrink by themselves (arXiv 2003.00295); beta1 = 0 is plain Adagrad."""

    learning_rate: float = 0.1
    final_learning_rate: float = 0.01
    beta1: float = 0.0

    def second_moment(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        return v + square


@dataclass(frozen=True, slots=True)
class FedAdam(_Adaptive):
    """v <- beta2 v + (1 - beta2) d^2: a moving average (arXiv 2003.00295)."""

    beta2: float = 0.99

    def second_moment(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        return np.float32(self.beta2) * v + np.float32(1 - self.beta2) * square


@dataclass(frozen=True, slots=True)
class FedYogi(_Adaptive):
    """v <- v - (1 - beta2) d^2 sign(v - d^2): it moves by d^2 at most, so it forgets slowly (arXiv 2003.00295)."""

    beta2: float = 0.99

    def second_moment(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        return v - np.float32(1 - self.beta2) * square * np.sign(v - square)


SERVER_RULES: dict[str, type] = {
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
}
