"""What the server does with a round's mean update: frozen rules with pure functions.

A rule turns (parameters, mean delta, its state, round) into (new parameters, new state). The mean delta points
from the old model to where the phones went, so a rule adds.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kbdfl.errors import ConfigError

State = dict[str, np.ndarray]


class ServerRule(Protocol):
    """A server optimiser (Reddi et al. 2020, arXiv 2003.00295, algorithm 2)."""

    def init(self, size: int) -> State:
        """The state before the first round; arrays float32 (size,)."""

    def apply(
        self, params: np.ndarray, mean_delta: np.ndarray, state: State, *, round: int
    ) -> tuple[np.ndarray, State]:
        """New parameters float32 (P,) and state; nothing passed in is changed. `round` counts from 0."""


def _check_rate(value: float, name: str) -> None:
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name} must be > 0 and finite, got {value}")


@dataclass(frozen=True, slots=True)
class FedAvg:
    """x <- x + learning_rate * mean delta (McMahan et al. 2017, arXiv 1602.05629; 1.0 is the paper's)."""

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate, "server learning_rate")

    def init(self, size: int) -> State:
        return {}

    def apply(
        self, params: np.ndarray, mean_delta: np.ndarray, state: State, *, round: int
    ) -> tuple[np.ndarray, State]:
        return params + np.float32(self.learning_rate) * mean_delta, state


@dataclass(frozen=True, slots=True)
class FedAdam:
    """Adam over mean deltas, without bias correction, as in the paper (Reddi et al. 2020, arXiv 2003.00295).

        m <- beta1 m + (1 - beta1) d,  v <- beta2 v + (1 - beta2) d^2,  x <- x + rate m / (sqrt(v) + epsilon)

    v starts at epsilon^2. The rate falls geometrically from learning_rate to final_learning_rate over
    decay_rounds rounds and stays there; decay_rounds 0 keeps it constant.
    """

    learning_rate: float = 0.01
    final_learning_rate: float = 0.001
    decay_rounds: int = 0
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate, "server learning_rate")
        _check_rate(self.final_learning_rate, "server final_learning_rate")
        _check_rate(self.epsilon, "server epsilon")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"server {name} must lie in [0, 1), got {getattr(self, name)}")
        if self.decay_rounds < 0:
            raise ConfigError(f"server decay_rounds must be >= 0, got {self.decay_rounds}")

    def rate(self, round: int) -> float:
        """The learning rate of round `round`."""
        if self.decay_rounds == 0:
            return self.learning_rate
        done = min(round / self.decay_rounds, 1.0)
        return self.learning_rate * (self.final_learning_rate / self.learning_rate) ** done

    def init(self, size: int) -> State:
        return {
            "m": np.zeros(size, np.float32),
            "v": np.full(size, self.epsilon**2, np.float32),
        }

    def apply(
        self, params: np.ndarray, mean_delta: np.ndarray, state: State, *, round: int
    ) -> tuple[np.ndarray, State]:
        m = np.float32(self.beta1) * state["m"] + np.float32(1 - self.beta1) * mean_delta
        v = np.float32(self.beta2) * state["v"] + np.float32(1 - self.beta2) * np.square(mean_delta)
        step = np.float32(self.rate(round)) * m / (np.sqrt(v) + np.float32(self.epsilon))
        return params + step, {"m": m, "v": v}


SERVER_RULES: dict[str, type] = {"fedavg": FedAvg, "fedadam": FedAdam}
