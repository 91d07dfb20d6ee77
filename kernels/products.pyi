import numpy as np
from numpy.typing import NDArray

def variants() -> list[str]: ...
def product(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    start: NDArray[np.float32] | None = None,
    *,
    variant: str | None = None,
) -> NDArray[np.float32]: ...
