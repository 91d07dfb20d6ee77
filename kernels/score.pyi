import numpy as np
from numpy.typing import NDArray

def score(
    params: NDArray[np.float32],
    *,
    vocab: int,
    embed: int,
    hidden: int,
    inputs: NDArray[np.int32],
    targets: NDArray[np.int32],
    active: NDArray[np.int32],
    steps: NDArray[np.int32],
    first_word: int,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]: ...
