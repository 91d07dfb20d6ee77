"""The codec's kernels in numpy: whole-array operations into buffers that are allocated once."""

from collections.abc import Callable

import numpy as np


def make(arrays: dict[str, np.ndarray], random: np.random.Generator) -> dict[str, Callable[[], object]]:
    """A function a job, all on the arrays of `kbdfl.cli.bench.jobs.draw`."""
    a = arrays
    size, block, weight = a["dense"].size, a["block"], np.float32(a["weight"])
    kept, shared = a["kept"], a["indices"].size
    blocks = a["dense"].reshape(-1, block)
    wide, noise, magnitudes = np.empty_like(blocks), np.empty_like(blocks), np.empty(size, np.float32)
    acc, sums = np.zeros(size), np.zeros(size, np.int32)
    rows_acc = np.zeros(a["table"].shape)
    words, words_32 = a["words"].copy(), a["words"].copy()
    out = np.empty(size, np.float32)

    def levels(last: int) -> tuple[np.ndarray, np.ndarray]:
        np.abs(blocks, out=wide)
        scales = wide.max(1, keepdims=True) / np.float32(last)
        np.divide(blocks, scales, out=wide, where=scales > 0)
        random.random(out=noise, dtype=np.float32)
        np.add(wide, noise, out=wide)
        np.floor(wide, out=wide)
        return wide.astype(np.int8), scales[:, 0]

    def pack4() -> object:
        quantised, scales = levels(7)
        nibbles = quantised.view(np.uint8).ravel()
        return nibbles[::2] & 15 | nibbles[1::2] << 4, scales

    def pack1() -> object:
        np.abs(blocks, out=wide)
        scales = wide.max(1, keepdims=True)
        random.random(out=noise, dtype=np.float32)
        np.subtract(noise, np.float32(0.5), out=noise)
        np.multiply(noise, 2 * scales, out=noise)
        return np.packbits(noise.ravel() > a["dense"], bitorder="little"), scales[:, 0]

    def sign() -> object:
        np.abs(blocks, out=wide)
        absolutes = wide.sum(1)
        scales = np.einsum("ij,ij->i", blocks, blocks) / np.maximum(absolutes, np.float32(1e-30))
        return np.packbits(a["dense"] < 0, bitorder="little"), scales

    def rotate() -> object:
        """Random signs, then the Hadamard matrix of a block by strides, into two buffers in turn."""
        signs = random.integers(0, 2, size, np.int8) * np.int8(2) - np.int8(1)
        np.multiply(blocks, signs.reshape(-1, block), out=wide)
        now, then = wide, noise
        stride = 1
        while stride < block:
            pairs, turned = now.reshape(-1, 2, stride), then.reshape(-1, 2, stride)
            np.add(pairs[:, 0], pairs[:, 1], out=turned[:, 0])
            np.subtract(pairs[:, 0], pairs[:, 1], out=turned[:, 1])
            now, then = then, now
            stride *= 2
        return np.multiply(now, np.float32(block**-0.5), out=now).ravel()

    def topk(values: np.ndarray) -> np.ndarray:
        """Partitioning the values alone is twice as quick as np.argpartition; ties are cut from the right."""
        found = magnitudes[: values.size]
        np.abs(values, out=found)
        threshold = np.partition(found, found.size - kept)[found.size - kept]
        indices = np.flatnonzero(found >= threshold)
        ties = np.flatnonzero(found[indices] == threshold)
        return np.delete(indices, ties[ties.size - (indices.size - kept) :])

    def topk_dense() -> object:
        indices = topk(a["dense"])
        return indices.astype(np.int32), a["dense"][indices]

    def topk_sparse() -> object:
        """np.partition is many times slower where most values are equal: leave the zeros out first."""
        nonzero = np.flatnonzero(a["sparse"])
        indices = nonzero[topk(a["sparse"][nonzero])]
        return indices.astype(np.int32), a["sparse"][indices]

    def accumulate_int8() -> object:
        steps = (a["scales"] * weight)[:, None]
        np.multiply(a["levels"].reshape(-1, block), steps, out=wide)
        return np.add(acc, wide.ravel(), out=acc)

    def accumulate_float32() -> object:
        np.multiply(a["dense"], weight, out=out)
        return np.add(acc, out, out=acc)

    def accumulate_sparse() -> object:
        acc[a["indices"]] += weight * a["values"]
        return acc

    def accumulate_rows() -> object:
        rows_acc[a["rows"]] += weight * a["row_values"]
        return rows_acc

    def shared_indices() -> object:
        indices = random.choice(size, shared, replace=False, shuffle=False)
        indices.sort()
        return indices.astype(np.int32)

    def norm_clip() -> object:
        factor = min(1.0, a["clip_norm"] / np.linalg.norm(a["dense"]))
        return np.multiply(a["dense"], np.float32(factor), out=out)

    def mask_add() -> object:
        np.add(words, a["mask"], out=words)
        return np.bitwise_and(words, np.uint32(2**24 - 1), out=words)

    def encode_fixed() -> object:
        limit, steps, bits = a["limit"], a["steps"], a["bits"]
        np.multiply(a["dense"], np.float32(steps / limit), out=out)
        np.clip(out, -steps, steps, out=out)
        random.random(out=noise, dtype=np.float32)
        np.add(out, noise.ravel(), out=out)
        np.floor(out, out=out)
        return out.astype(np.int32).view(np.uint32) & np.uint32(2**bits - 1)

    return {
        "quantize_int8": lambda: levels(127),
        "pack4": pack4,
        "pack1": pack1,
        "sign": sign,
        "rotate": rotate,
        "topk": topk_dense,
        "topk_sparse": topk_sparse,
        "shared_indices": shared_indices,
        "accumulate_int8": accumulate_int8,
        "accumulate_float32": accumulate_float32,
        "accumulate_sparse": accumulate_sparse,
        "accumulate_rows": accumulate_rows,
        "accumulate_levels": lambda: np.add(sums, a["levels"], out=sums),
        "norm_clip": norm_clip,
        "encode_fixed": encode_fixed,
        "mask_add": mask_add,
        "mask_add_32": lambda: np.add(words_32, a["mask"], out=words_32),
    }
