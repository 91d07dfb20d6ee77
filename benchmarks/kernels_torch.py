"""The codec's kernels in PyTorch eager, on one thread: operations in place wherever there are some."""

from collections.abc import Callable

import numpy as np
import torch


def make(arrays: dict[str, np.ndarray], random: np.random.Generator) -> dict[str, Callable[[], object]]:
    """A function a job, all on the arrays of `kbdfl.cli.bench.jobs.draw`."""
    torch.set_num_threads(1)
    a = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in arrays.items()
    }
    a |= {name: a[name].view(torch.int32) for name in ("words", "mask")}  # uint32 has hardly any operations
    dice = torch.Generator().manual_seed(int(random.integers(2**63)))
    size, block, weight = a["dense"].numel(), a["block"], a["weight"]
    blocks = a["dense"].view(-1, block)
    wide, noise = torch.empty_like(blocks), torch.empty_like(blocks)
    acc, sums = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.int32)
    rows_acc = torch.zeros(a["table"].shape, dtype=torch.float64)
    words, words_32 = a["words"].clone(), a["words"].clone()
    out = torch.empty(size)
    places = torch.arange(8, dtype=torch.uint8)

    def levels(last: int) -> tuple[torch.Tensor, torch.Tensor]:
        torch.abs(blocks, out=wide)
        scales = wide.amax(1, keepdim=True).div_(last)
        torch.div(blocks, scales.clamp_min(1e-30), out=wide)
        wide.add_(noise.uniform_(generator=dice)).floor_()
        return wide.to(torch.int8), scales[:, 0]

    def pack4() -> object:
        quantised, scales = levels(7)
        nibbles = quantised.view(torch.uint8).view(-1, 2)
        return nibbles[:, 0] & 15 | nibbles[:, 1] << 4, scales

    def pack1() -> object:
        torch.abs(blocks, out=wide)
        scales = wide.amax(1, keepdim=True)
        minus = noise.uniform_(-1, 1, generator=dice).mul_(scales).gt(blocks)
        return (minus.view(torch.uint8).view(-1, 8) << places).sum(1, dtype=torch.uint8), scales[:, 0]

    def sign() -> object:
        absolutes = torch.abs(blocks, out=wide).sum(1)
        squares = torch.mul(blocks, blocks, out=wide).sum(1)
        minus = (a["dense"] < 0).view(torch.uint8).view(-1, 8)
        return (minus << places).sum(1, dtype=torch.uint8), squares.div_(absolutes.clamp_min(1e-30))

    def rotate() -> object:
        """Random signs, then the Hadamard matrix of a block by strides, into two buffers in turn."""
        signs = noise.bernoulli_(0.5, generator=dice).mul_(2).sub_(1)
        now, then = torch.mul(blocks, signs, out=wide), noise
        stride = 1
        while stride < block:
            pairs, turned = now.view(-1, 2, stride), then.view(-1, 2, stride)
            torch.add(pairs[:, 0], pairs[:, 1], out=turned[:, 0])
            torch.sub(pairs[:, 0], pairs[:, 1], out=turned[:, 1])
            now, then = then, now
            stride *= 2
        return now.mul_(block**-0.5).view(-1)

    def topk(x: torch.Tensor) -> object:
        indices = torch.topk(x.abs(), a["kept"], sorted=False).indices.sort().values
        return indices.int(), x[indices]

    def accumulate_int8() -> object:
        steps = (a["scales"] * weight)[:, None].expand(-1, block)
        return acc.view(-1, block).addcmul_(a["levels"].view(-1, block).float(), steps)

    def shared_indices() -> object:
        return torch.randperm(size, generator=dice)[: a["indices"].numel()].sort().values.int()

    def norm_clip() -> object:
        factor = min(1.0, a["clip_norm"] / torch.linalg.vector_norm(a["dense"]).item())
        return torch.mul(a["dense"], factor, out=out)

    def encode_fixed() -> object:
        limit, steps, bits = a["limit"], a["steps"], a["bits"]
        torch.mul(a["dense"], steps / limit, out=out).clamp_(-steps, steps)
        out.add_(noise.uniform_(generator=dice).view(-1)).floor_()
        return out.to(torch.int32).bitwise_and_(2**bits - 1)

    return {
        "quantize_int8": lambda: levels(127),
        "pack4": pack4,
        "pack1": pack1,
        "sign": sign,
        "rotate": rotate,
        "topk": lambda: topk(a["dense"]),
        "topk_sparse": lambda: topk(a["sparse"]),
        "shared_indices": shared_indices,
        "accumulate_int8": accumulate_int8,
        "accumulate_float32": lambda: acc.add_(a["dense"], alpha=weight),
        "accumulate_sparse": lambda: acc.index_add_(0, a["indices"], a["values"].double(), alpha=weight),
        "accumulate_rows": lambda: rows_acc.index_add_(0, a["rows"], a["row_values"].double(), alpha=weight),
        "accumulate_levels": lambda: sums.add_(a["levels"]),
        "norm_clip": norm_clip,
        "encode_fixed": encode_fixed,
        "mask_add": lambda: words.add_(a["mask"]).bitwise_and_(2**24 - 1),
        "mask_add_32": lambda: words_32.add_(a["mask"]),
    }
