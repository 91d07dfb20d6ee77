"""The numpy twins of accumulate.pyx, the oracle of its tests: same arguments, same bytes."""

import numpy as np

from kbdfl.kernels.reference_quantize import unpack_1bit, unpack_2bit, unpack_4bit

GRID = 1.5 * 2.0**20  # the last bit of a float64 near it is 2^-32
SUM_LANES = 32
FOURS = 16
JUST_INSIDE = 1 - 2.0**-22
SMALLEST_FACTOR = 2.0**-126


def accumulate_float32(acc: np.ndarray, x: np.ndarray, weight: float) -> None:
    """acc (P,) += weight * x."""
    acc += _on_grid(weight * x.astype(np.float64))


def accumulate_int8(
    acc: np.ndarray, q: np.ndarray, scales: np.ndarray, weight: float, *, block: int = 256
) -> None:
    """acc (P,) += weight * scale * q."""
    acc += _weighted(q, scales, weight, block)


def accumulate_4bit(
    acc: np.ndarray, packed: np.ndarray, scales: np.ndarray, weight: float, *, block: int = 256
) -> None:
    """acc (P,) += weight * scale * level."""
    acc += _weighted(unpack_4bit(packed, acc.size), scales, weight, block)


def accumulate_2bit(
    acc: np.ndarray, packed: np.ndarray, scales: np.ndarray, weight: float, *, block: int = 256
) -> None:
    """acc (P,) += weight * scale * level."""
    acc += _weighted(unpack_2bit(packed, acc.size), scales, weight, block)


def accumulate_1bit(
    acc: np.ndarray, packed: np.ndarray, scales: np.ndarray, weight: float, *, block: int = 256
) -> None:
    """acc (P,) += ±weight * scale."""
    acc += _weighted(unpack_1bit(packed, acc.size), scales, weight, block)


def accumulate_sparse(acc: np.ndarray, indices: np.ndarray, values: np.ndarray, weight: float) -> None:
    """acc (P,)[indices] += weight * values; the indices (K,) are distinct."""
    acc[indices] += _on_grid(weight * values.astype(np.float64))


def accumulate_runs(acc: np.ndarray, changes: np.ndarray, values: np.ndarray, weight: float) -> None:
    """acc += weight * values where an odd number of the ascending `changes` lies at or before a place."""
    there = np.cumsum(np.isin(np.arange(acc.size), changes)) % 2 == 1
    acc[there] += _on_grid(weight * values.astype(np.float64))


def accumulate_sparse_int8(
    acc: np.ndarray,
    indices: np.ndarray,
    q: np.ndarray,
    scales: np.ndarray,
    weight: float,
    *,
    block: int = 256,
) -> None:
    """acc (P,)[indices] += weight * scale * q; the indices (K,) are distinct."""
    acc[indices] += _weighted(q, scales, weight, block)


def accumulate_rows(acc: np.ndarray, rows: np.ndarray, values: np.ndarray, weight: float) -> None:
    """acc (V, E)[rows] += weight * values (R, E); the rows (R,) are distinct."""
    acc[rows] += _on_grid(weight * values.astype(np.float64))


def accumulate_levels(acc: np.ndarray, q: np.ndarray, weight: int = 1) -> None:
    """acc (P,) int32 or int64 += weight * q; OverflowError if a sum does not fit."""
    range_ = np.iinfo(acc.dtype)
    sums = acc.astype(object) + weight * q.astype(object)
    if any(not range_.min <= total <= range_.max for total in sums):
        raise OverflowError(f"sums must fit {range_.bits} bits, got one that does not")
    acc[:] = sums.astype(acc.dtype)


def scale_inplace(x: np.ndarray, factor: float) -> None:
    """x (P,) *= float32(factor)."""
    x *= np.float32(factor)


def l2_norm(x: np.ndarray) -> float:
    """The Euclidean norm of x (P,), in SUM_LANES partial sums of float64 that are added from the first to the last."""
    squares = np.zeros((x.size // SUM_LANES + 1, SUM_LANES))
    squares.ravel()[: x.size] = np.square(x, dtype=np.float64)
    return _root_of_sum(squares)


def norm_clip(x: np.ndarray, clip_norm: float, *, out: np.ndarray) -> float:
    """out (P,) = x * min(1, clip_norm / ||x||); returns ||x||."""
    norm = _norm_in_fours(x)
    if not 2.0**-30 <= norm <= 2.0**60 or abs(norm - clip_norm) <= 2.0**-22 * clip_norm:
        norm = l2_norm(x)
    if not np.isfinite(norm):
        raise ValueError("update must be finite, got a NaN or an infinity")
    if norm <= clip_norm:
        out[:] = x
    else:
        ratio = clip_norm / norm * JUST_INSIDE
        out[:] = x * np.float32(ratio if ratio >= SMALLEST_FACTOR else 0)
    return norm


def _norm_in_fours(x: np.ndarray) -> float:
    """The norm to within 2^-23 of itself, where squares stay in float32: four elements, 16 apart, meet first."""
    rows = np.zeros((x.size // (4 * FOURS) + 1, 4, FOURS), np.float32)
    rows.ravel()[: x.size] = x
    with np.errstate(over="ignore"):
        first, second, third, fourth = np.moveaxis(np.square(rows), 1, 0)
        squares = (first + second) + (third + fourth)
    return _root_of_sum(squares.astype(np.float64))


def _root_of_sum(squares: np.ndarray) -> float:
    """Of float64 (rows, lanes): each lane from the first row to the last, then the lanes from the first to the last."""
    return float(np.sqrt(sum(np.add.accumulate(squares)[-1])))


def _weighted(q: np.ndarray, scales: np.ndarray, weight: float, block: int) -> np.ndarray:
    steps = weight * scales.astype(np.float64)
    return _on_grid(q * np.repeat(steps, block)[: q.size])


def _on_grid(terms: np.ndarray) -> np.ndarray:
    return (terms + GRID) - GRID
