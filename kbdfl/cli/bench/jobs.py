"""What `kbdfl bench kernels` measures: the arrays, and our side of every job on them."""

from collections.abc import Callable
from typing import Any

BLOCK = 256
WEIGHT = 0.37
WIDTH = 96  # of a row, as in the embedding of `gboard`


def draw(size: int, seed: int) -> dict[str, Any]:
    """The arrays all contestants read, of `size` parameters (a multiple of BLOCK).

    `dense` is float32 from a Laplace distribution, which deltas resemble; in `sparse` two thirds of its rows of
    WIDTH are zero, as words that nobody typed leave them. k is 1 % for top-k, 1/16 for the shared set, and a tenth
    of the rows travels.
    """
    import numpy as np

    from kbdfl.kernels.quantize import quantize_int8
    from kbdfl.kernels.sparse import gather_rows, shared_indices
    from kbdfl.rng import seed_of, stream

    random = stream(seed, "bench", "kernels")
    dense = (random.laplace(size=size) * 1e-3).astype(np.float32)
    table = dense[: size // WIDTH * WIDTH].reshape(-1, WIDTH)
    sparse = dense.copy()
    silent = shared_indices(len(table), len(table) * 2 // 3, seed_of(seed, "silent"))
    sparse[: table.size].reshape(table.shape)[silent] = 0
    levels, scales = quantize_int8(dense, block=BLOCK, seed=seed_of(seed, "levels"))
    indices = shared_indices(size, size // 16, seed_of(seed, "indices"))
    rows = shared_indices(len(table), len(table) // 10, seed_of(seed, "rows"))
    return {
        "block": BLOCK,
        "weight": WEIGHT,
        "kept": size // 100,
        "dense": dense,
        "sparse": sparse,
        "levels": levels,
        "scales": scales,
        "indices": indices,
        "values": dense[indices],
        "table": table,
        "rows": rows,
        "row_values": gather_rows(table, rows),
        "clip_norm": float(np.linalg.norm(dense)) / 2,
        "limit": 0.01,
        "steps": 127,
        "bits": 16,
        "words": random.integers(0, 2**24, size, np.uint32),
        "mask": random.integers(0, 2**24, size, np.uint32),
    }


def ours(arrays: dict[str, Any], random: Any) -> dict[str, Callable[[], object]]:
    """A function a job."""
    import numpy as np

    from kbdfl.kernels import accumulate, masking, quantize, rotate, sparse

    a, seed = arrays, int(random.integers(2**63))
    dense, size, weight = a["dense"], a["dense"].size, a["weight"]
    acc, sums = np.zeros(size), np.zeros(size, np.int32)
    rows_acc = np.zeros(a["table"].shape)
    words, words_32 = a["words"].copy(), a["words"].copy()
    out = np.empty(size, np.float32)
    rule = {"limit": a["limit"], "levels": a["steps"], "bits": a["bits"], "seed": seed}
    return {
        "quantize_int8": lambda: quantize.quantize_int8(dense, block=BLOCK, seed=seed),
        "pack4": lambda: quantize.quantize_4bit(dense, block=BLOCK, seed=seed),
        "pack1": lambda: quantize.quantize_1bit(dense, block=BLOCK, seed=seed),
        "sign": lambda: quantize.quantize_sign(dense, block=BLOCK),
        "rotate": lambda: rotate.rotate(dense, seed=seed, block=BLOCK),
        "topk": lambda: sparse.topk(dense, a["kept"]),
        "topk_sparse": lambda: sparse.topk(a["sparse"], a["kept"]),
        "shared_indices": lambda: sparse.shared_indices(size, a["indices"].size, seed),
        "accumulate_int8": lambda: accumulate.accumulate_int8(
            acc, a["levels"], a["scales"], weight, block=BLOCK
        ),
        "accumulate_float32": lambda: accumulate.accumulate_float32(acc, dense, weight),
        "accumulate_sparse": lambda: accumulate.accumulate_sparse(acc, a["indices"], a["values"], weight),
        "accumulate_rows": lambda: accumulate.accumulate_rows(rows_acc, a["rows"], a["row_values"], weight),
        "accumulate_levels": lambda: accumulate.accumulate_levels(sums, a["levels"]),
        "norm_clip": lambda: accumulate.norm_clip(dense, a["clip_norm"], out=out),
        "encode_fixed": lambda: masking.encode_fixed(dense, **rule),
        "mask_add": lambda: masking.mask_add(words, a["mask"], bits=24),
        "mask_add_32": lambda: masking.mask_add(words_32, a["mask"], bits=32),
    }
