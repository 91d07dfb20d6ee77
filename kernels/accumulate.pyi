import numpy as np
from numpy.typing import NDArray

def accumulate_int8(
    acc: NDArray[np.float32],
    q: NDArray[np.int8],
    scales: NDArray[np.float32],
    weight: float,
    *,
    block: int = 256,
) -> None: ...
def accumulate_float32(acc: NDArray[np.float32], x: NDArray[np.float32], weight: float) -> None: ...
def scale_inplace(x: NDArray[np.float32], factor: float) -> None: ...
def l2_norm(x: NDArray[np.float32]) -> float: ...
