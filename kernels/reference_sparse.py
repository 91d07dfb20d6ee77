"""The numpy twins of sparse.pyx, the oracle of its tests: same arguments, same bytes."""

import numpy as np

from kbdfl.kernels.reference_quantize import block_keys


def topk(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(indices (k,) int32 ascending, values (k,) float32) of the k largest magnitudes, of equal ones the first."""
    if not np.all(np.isfinite(x)):
        raise ValueError("values must be finite, got a NaN or an infinity")
    indices = np.sort(np.argsort(-np.abs(x), kind="stable")[:k]).astype(np.int32)
    return indices, x[indices]


def shared_indices(n: int, k: int, seed: int) -> np.ndarray:
    """A set of k out of [0, n), (k,) int32 ascending (Floyd's algorithm: Bentley and Floyd 1987)."""
    taken: set[int] = set()
    for last, key in zip(range(n - k, n), block_keys(seed, n)[n - k :].tolist(), strict=True):
        chosen = key * (last + 1) >> 64
        taken.add(last if chosen in taken else chosen)
    return np.array(sorted(taken), np.int32)


def gather_rows(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """x (V, E)[rows], (R, E)."""
    return x[rows]


def gather_runs(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(changes (K,) int32, values): where zeros of x (P,) begin or end, and what is not zero."""
    there = x != 0
    return np.flatnonzero(np.diff(there, prepend=False)).astype(np.int32), x[there]


def scatter_runs(changes: np.ndarray, values: np.ndarray, *, size: int) -> np.ndarray:
    """(size,): the values where an odd number of the ascending `changes` lies at or before a place, else 0."""
    out = np.zeros(size, np.float32)
    out[np.cumsum(np.isin(np.arange(size), changes)) % 2 == 1] = values
    return out
