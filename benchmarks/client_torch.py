"""The client update in PyTorch eager: the same CIFG cell as a module, autograd, plain SGD."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Cifg(nn.Module):
    """Parameters as in `kbdfl.model.cifg`."""

    def __init__(self, params: dict[str, np.ndarray]) -> None:
        super().__init__()
        for name, value in params.items():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(value.copy())))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = (self.emb[x] @ self.wx + self.bg).transpose(0, 1)
        h, c = z.new_zeros(x.shape[0], self.wp.shape[1]), z.new_zeros(x.shape[0], self.wp.shape[0])
        outputs = []
        for gates in z:
            g, f, o = torch.addmm(gates, h, self.wh).chunk(3, 1)
            f = f.sigmoid()
            c = f * c + (1 - f) * g.tanh()
            h = (o.sigmoid() * c.tanh()) @ self.wp
            outputs.append(h)
        logits = torch.stack(outputs, 1) @ self.emb.T + self.bias
        return functional.cross_entropy(logits.flatten(0, 1), y.flatten())


def make(
    params: dict[str, np.ndarray], tokens: np.ndarray, learning_rate: float
) -> Callable[[], dict[str, torch.Tensor]]:
    """A function that performs one client update. tokens int (K, B, T + 1)."""
    model = Cifg(params)
    received = {name: torch.from_numpy(value.copy()) for name, value in params.items()}
    optimiser = torch.optim.SGD(model.parameters(), lr=learning_rate)
    batches = [
        (batch[:, :-1].contiguous(), batch[:, 1:].contiguous()) for batch in torch.from_numpy(tokens).long()
    ]

    def update() -> dict[str, torch.Tensor]:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(received[name])
        for x, y in batches:
            optimiser.zero_grad(set_to_none=True)
            model(x, y).backward()
            optimiser.step()
        with torch.no_grad():
            return {name: parameter - received[name] for name, parameter in model.named_parameters()}

    return update
