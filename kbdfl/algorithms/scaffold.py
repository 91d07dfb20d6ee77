"""SCAFFOLD: control variates against client drift (Karimireddy et al. 2019, arXiv 1910.06378, algorithm 1).

A phone's c_i estimates the gradient of its own text, the server's c is the mean of all c_i. A local step follows
g_i + c - c_i: what makes this phone's text differ from everyone's is taken out, so that many local steps still go
where all phones want to go.

One departure: a phone that comes for the first time, or whose c_i has expired, takes its steps without a
correction, where the paper would begin with c_i = 0 and so add a whole c to its gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kbdfl.algorithms.aggregate import WEIGHT_STEP, bounding_factor
from kbdfl.algorithms.server import State
from kbdfl.kernels.accumulate import accumulate_float32
from kbdfl.transform import Draws, Transform, Update, decode_chain

CONTROL_STATE = ("control", "control_weight")  # of the server, beside its rule's
OPTIONS = (0, 1, 2)  # none, and how the paper renews a c_i


def correction(shared: np.ndarray, own: np.ndarray) -> np.ndarray:
    """c - c_i, float32 (P,): what a local step adds to its gradient."""
    return shared - own


def renewed_control(
    delta: np.ndarray, corrected: np.ndarray | None, *, steps: int, learning_rate: float
) -> np.ndarray:
    """Option II, c_i+ = c_i - c + (x - y) / (K eta): the mean gradient along K `steps`, float32 (P,).

    `delta` is y - x, `corrected` the c - c_i that was added to every step, or None.
    """
    own = delta / np.float32(-steps * learning_rate)
    return own if corrected is None else own - corrected


def read_change(
    transforms: Sequence[Transform], update: Update, draws: Draws, *, size: int, norm_bound: float
) -> np.ndarray:
    """c_i+ - c_i, float32 (P,), as phone and server both take it from a report. Raises WireError.

    What is longer than `norm_bound` > 0 is scaled down to it, as a delta is.
    """
    change = decode_chain(transforms, update, size, draws)
    return np.float32(bounding_factor(change, norm_bound)) * change


@dataclass(slots=True)
class ServerControl:
    """The server's c, and the changes of c_i that came since it was last renewed.

    c is the weighted mean over the phones that ever reported. Equal weights and a round of |S| of N phones give the
    paper's c + |S|/N mean(c_i+ - c_i). A phone that never comes back stays in the mean with its last c_i.

    mean    float32 (P,), c
    weight  of all phones in it
    change  float64 (P,), the sum of weight times change, exact
    joined  the weight of the phones that are new
    """

    mean: np.ndarray
    weight: float
    change: np.ndarray
    joined: float = 0.0

    @classmethod
    def of_state(cls, state: State) -> "ServerControl":
        """From what `state` or `renew` gave; read-only, for it goes out as it is."""
        mean = state["control"]
        mean.setflags(write=False)
        return cls(mean, float(state["control_weight"][0]), np.zeros(len(mean)))

    @staticmethod
    def begin(size: int) -> State:
        """Before the first round: c is zero, float32 (P,)."""
        return {"control": np.zeros(size, np.float32), "control_weight": np.zeros(1, np.float64)}

    def add(self, change: np.ndarray, *, weight: float, first: bool) -> None:
        """Count a phone's c_i+ - c_i; `first` if the server never saw a c_i of it, which then changed from zero."""
        accumulate_float32(self.change, change, weight)
        self.joined += round(weight / WEIGHT_STEP) * WEIGHT_STEP if first else 0.0  # exact, as the sum is

    def merge(self, change: np.ndarray, joined: float) -> None:
        """Count what was added to another one with the same mean."""
        self.change += change
        self.joined += joined

    def renew(self) -> State:
        """c with all changes in it, as the arrays that a store keeps; nothing is changed here."""
        weight = self.weight + self.joined
        if weight == 0:
            return {"control": self.mean, "control_weight": np.zeros(1, np.float64)}
        mean = (self.weight * self.mean.astype(np.float64) + self.change) / weight
        return {"control": mean.astype(np.float32), "control_weight": np.array([weight], np.float64)}
