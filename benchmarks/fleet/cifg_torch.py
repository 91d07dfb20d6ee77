"""kbdfl's model in PyTorch eager, on packed batches: what the contestants that train with torch have in common."""

from collections.abc import Iterable

import numpy as np
import torch
from common import CLIENT_RATE, CLIP, Data, Packed, Params, pack
from torch import nn
from torch.nn import functional


class Cifg(nn.Module):
    """Parameters as in `kbdfl.model.cifg`."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        for name, value in params.items():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(value.copy())))

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """Mean loss of the learned targets; the batch is `common.Packed`."""
        alive = active.tolist()
        z = torch.addmm(self.bg, functional.embedding(inputs, self.emb), self.wx)
        r = z.new_zeros(alive[0], self.wp.shape[1])
        c, outputs = z.new_zeros(alive[0], self.wp.shape[0]), []
        # Split at once: the backward pass of one slice after another would fill as many full-sized gradients.
        for count, gates in zip(alive, z.split(alive), strict=True):
            if count < len(r):
                r, c = r[:count], c[:count]
            g, f, o = torch.addmm(gates, r, self.wh).chunk(3, 1)
            c = torch.lerp(g.tanh(), c, f.sigmoid())
            r = (o.sigmoid() * c.tanh()) @ self.wp
            outputs.append(r)
        learned = (targets >= 0).nonzero().squeeze(1)
        # Only rows that are learned meet the vocabulary, where most of the time goes.
        logits = torch.addmm(self.bias, torch.cat(outputs)[learned], self.emb.T)
        return functional.cross_entropy(logits, targets[learned])

    def arrays(self) -> Params:
        """The parameters as numpy arrays that share their memory."""
        return {name: value.detach().numpy() for name, value in self.named_parameters()}


def tensors(batch: Packed) -> list[torch.Tensor]:
    """A batch as `Cifg` takes it."""
    return [torch.from_numpy(part.astype(np.int64)) for part in batch]


def local_run(model: Cifg, batches: Iterable[Packed]) -> None:
    """SGD with the gradient's norm clipped, a step a batch."""
    optimiser = torch.optim.SGD(model.parameters(), lr=CLIENT_RATE)
    for batch in batches:
        optimiser.zero_grad()
        model(*tensors(batch)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()


def first_loss(data: Data) -> float:
    """The loss that `--mode check` compares."""
    with torch.no_grad():
        return Cifg(data.params)(*tensors(pack(data.check_batches()[0]))).item()
