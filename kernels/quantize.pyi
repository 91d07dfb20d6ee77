import numpy as np
from numpy.typing import NDArray

def quantize_int8(
    x: NDArray[np.float32], *, block: int = 256, seed: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]: ...
def dequantize_int8(
    q: NDArray[np.int8],
    scales: NDArray[np.float32],
    *,
    block: int = 256,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]: ...
