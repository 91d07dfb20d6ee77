import numpy as np
from numpy.typing import NDArray

def quantize_int8(
    x: NDArray[np.float32], *, block: int = 256, seed: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]: ...
def quantize_4bit(
    x: NDArray[np.float32], *, block: int = 256, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]: ...
def quantize_2bit(
    x: NDArray[np.float32], *, block: int = 256, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]: ...
def quantize_sign(
    x: NDArray[np.float32], *, block: int = 256
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]: ...
def quantize_1bit(
    x: NDArray[np.float32], *, block: int = 256, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]: ...
def dequantize_int8(
    q: NDArray[np.int8],
    scales: NDArray[np.float32],
    *,
    block: int = 256,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]: ...
def dequantize_4bit(
    packed: NDArray[np.uint8],
    scales: NDArray[np.float32],
    *,
    size: int,
    block: int = 256,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]: ...
def dequantize_2bit(
    packed: NDArray[np.uint8],
    scales: NDArray[np.float32],
    *,
    size: int,
    block: int = 256,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]: ...
def dequantize_1bit(
    packed: NDArray[np.uint8],
    scales: NDArray[np.float32],
    *,
    size: int,
    block: int = 256,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]: ...
