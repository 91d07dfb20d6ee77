import numpy as np
from numpy.typing import NDArray

class Workspace:
    @property
    def bytes(self) -> int: ...

def parameter_count(vocab: int, embed: int, hidden: int) -> int: ...
def scratch_bytes(
    vocab: int, embed: int, hidden: int, *, rows: int, sentences: int, momentum: float = 0.0
) -> int: ...
def local_sgd(
    params: NDArray[np.float32],
    *,
    vocab: int,
    embed: int,
    hidden: int,
    inputs: NDArray[np.int32],
    targets: NDArray[np.int32],
    active: NDArray[np.int32],
    steps: NDArray[np.int32],
    learning_rate: float,
    clip_norm: float = 0.0,
    proximal: float = 0.0,
    correction: NDArray[np.float32] | None = None,
    momentum: float = 0.0,
    time_budget_s: float = 0.0,
    workspace: Workspace | None = None,
) -> tuple[NDArray[np.float32], float, int, int]: ...
def gradient(
    params: NDArray[np.float32],
    *,
    vocab: int,
    embed: int,
    hidden: int,
    inputs: NDArray[np.int32],
    targets: NDArray[np.int32],
    active: NDArray[np.int32],
) -> tuple[NDArray[np.float32], float]: ...
