import numpy as np
from numpy.typing import NDArray

def accumulate_float32(acc: NDArray[np.float64], x: NDArray[np.float32], weight: float) -> None: ...
def accumulate_int8(
    acc: NDArray[np.float64],
    q: NDArray[np.int8],
    scales: NDArray[np.float32],
    weight: float,
    *,
    block: int = 256,
) -> None: ...
def accumulate_4bit(
    acc: NDArray[np.float64],
    packed: NDArray[np.uint8],
    scales: NDArray[np.float32],
    weight: float,
    *,
    block: int = 256,
) -> None: ...
def accumulate_2bit(
    acc: NDArray[np.float64],
    packed: NDArray[np.uint8],
    scales: NDArray[np.float32],
    weight: float,
    *,
    block: int = 256,
) -> None: ...
def accumulate_1bit(
    acc: NDArray[np.float64],
    packed: NDArray[np.uint8],
    scales: NDArray[np.float32],
    weight: float,
    *,
    block: int = 256,
) -> None: ...
def accumulate_sparse(
    acc: NDArray[np.float64], indices: NDArray[np.int32], values: NDArray[np.float32], weight: float
) -> None: ...
def accumulate_runs(
    acc: NDArray[np.float64], changes: NDArray[np.int32], values: NDArray[np.float32], weight: float
) -> None: ...
def accumulate_sparse_int8(
    acc: NDArray[np.float64],
    indices: NDArray[np.int32],
    q: NDArray[np.int8],
    scales: NDArray[np.float32],
    weight: float,
    *,
    block: int = 256,
) -> None: ...
def accumulate_rows(
    acc: NDArray[np.float64], rows: NDArray[np.int32], values: NDArray[np.float32], weight: float
) -> None: ...
def accumulate_levels(
    acc: NDArray[np.int32] | NDArray[np.int64], q: NDArray[np.int8], weight: int = 1
) -> None: ...
def scale_inplace(x: NDArray[np.float32], factor: float) -> None: ...
def l2_norm(x: NDArray[np.float32]) -> float: ...
def norm_clip(x: NDArray[np.float32], clip_norm: float, *, out: NDArray[np.float32]) -> float: ...
