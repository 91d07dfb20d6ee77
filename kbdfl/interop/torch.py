"""The CIFG in PyTorch: the same parameters, loss, logits and gradients as the kernels', for research in torch.

A model comes from a checkpoint and goes back to its run:

    model, facts = load("runs/NAME/checkpoints/000200.safetensors")
    ...                                  # any training; the parameters are emb, wx, bg, wh, wp and bias
    hand_back("runs/NAME", model, data="what it was trained on")     # kbdfl export runs/NAME

Equations and shapes are those of `kbdfl/model/cifg.py`. Needs the extra `torch`.
"""

# Without PyTorch its classes have no types, and with it some of its methods have none.
# mypy: allow-subclassing-any, allow-untyped-calls
# And where there is no PyTorch pyright takes this very file for the module `torch`.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kbdfl.errors import ConfigError, ModelError
from kbdfl.export.run import read_run
from kbdfl.model import CifgConfig, init_params
from kbdfl.params import load_checkpoint, save_checkpoint
from kbdfl.text import IGNORED, PackedBatches

try:
    import torch.nn
    from torch.nn import functional
except ImportError:
    raise ConfigError("the model in PyTorch needs PyTorch: pip install 'kbdfl[torch]'") from None

NO_PROMISE = (
    "Trained further in PyTorch, outside of any round: nothing is claimed of the text that it saw there."
)


class State(NamedTuple):
    """What the model remembers between two words: r float32 (B, E), the last output; c float32 (B, H), the cells."""

    r: torch.Tensor
    c: torch.Tensor


class Batch(NamedTuple):
    """A packed batch: inputs, targets int64 (N,), a target -1 is not learned; sentences `active` by step."""

    inputs: torch.Tensor
    targets: torch.Tensor
    active: Sequence[int]


def batches(packed: PackedBatches, *, device: str = "cpu") -> Iterator[Batch]:
    """The batches of `kbdfl.text.pack` or `training_batches`, one by one."""
    row = step = 0
    for steps in packed.steps.tolist():
        active = packed.active[step : step + steps].tolist()
        step, now = step + steps, slice(row, row + sum(active))
        row = now.stop
        inputs, targets = (
            torch.from_numpy(part[now].astype(np.int64)).to(device)
            for part in (packed.inputs, packed.targets)
        )
        yield Batch(inputs, targets, active)


class Cifg(torch.nn.Module):
    """The model with parameters `params`, flat float32 (P,); without them fresh ones that follow from `seed`."""

    emb: torch.nn.Parameter
    wx: torch.nn.Parameter
    bg: torch.nn.Parameter
    wh: torch.nn.Parameter
    wp: torch.nn.Parameter
    bias: torch.nn.Parameter

    def __init__(self, config: CifgConfig, params: np.ndarray | None = None, *, seed: int = 1) -> None:
        super().__init__()
        self.config = config
        flat = init_params(config, seed=seed) if params is None else params
        for name, view in config.spec.views(flat).items():
            self.register_parameter(name, torch.nn.Parameter(torch.from_numpy(view.astype(np.float32))))

    def start(self, sentences: int) -> State:
        """The state before the first word of so many sentences."""
        return State(
            self.emb.new_zeros(sentences, self.config.embed),
            self.emb.new_zeros(sentences, self.config.hidden),
        )

    def forward(self, tokens: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """Logits (B, T, V) of the words after each of `tokens` int64 (B, T), and the state after the last.

        Sentences of different lengths may be padded at their ends with anything: no word sees a later one.
        """
        state = state or self.start(len(tokens))
        outputs = []
        # Split at once: the backward pass of one slice after another would fill as many full-sized gradients.
        for gates in self._gates(tokens).unbind(1):
            state = self._step(gates, state)
            outputs.append(state.r)
        return self._logits(torch.stack(outputs, 1)), state

    def packed(self, inputs: torch.Tensor, active: Sequence[int]) -> torch.Tensor:
        """Logits (N, V) of a packed batch, a row a token."""
        return self._logits(self._outputs(inputs, active))

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor, active: Sequence[int]) -> torch.Tensor:
        """Mean nats of a packed batch's learned targets, what the kernels descend; 0 where there are none."""
        learned = (targets != IGNORED).nonzero().squeeze(1)
        # Only rows that are learned meet the vocabulary, where most of the time goes.
        logits = self._logits(self._outputs(inputs, active)[learned])
        total = functional.cross_entropy(logits, targets[learned], reduction="sum")
        return total / max(len(learned), 1)

    @property
    def flat(self) -> np.ndarray:
        """All parameters in the order of the spec, a new float32 (P,)."""
        return self._joined(getattr(self, name) for name, _ in self.config.spec.entries)

    @property
    def flat_gradient(self) -> np.ndarray:
        """The gradients in that order, float32 (P,); zeros where none has been computed."""
        found = (getattr(self, name) for name, _ in self.config.spec.entries)
        return self._joined(torch.zeros_like(one) if one.grad is None else one.grad for one in found)

    @staticmethod
    def _joined(tensors: Iterable[torch.Tensor]) -> np.ndarray:
        return np.concatenate([one.detach().cpu().numpy().astype(np.float32).ravel() for one in tensors])

    def _gates(self, tokens: torch.Tensor) -> torch.Tensor:
        return functional.embedding(tokens, self.emb) @ self.wx + self.bg

    def _step(self, gates: torch.Tensor, state: State) -> State:
        g, f, o = (gates + state.r @ self.wh).chunk(3, -1)
        c = torch.lerp(g.tanh(), state.c, f.sigmoid())
        return State((o.sigmoid() * c.tanh()) @ self.wp, c)

    def _outputs(self, inputs: torch.Tensor, active: Sequence[int]) -> torch.Tensor:
        state, outputs = self.start(active[0]), []
        for count, gates in zip(active, self._gates(inputs).split(list(active)), strict=True):
            state = self._step(gates, State(state.r[:count], state.c[:count]))
            outputs.append(state.r)
        return torch.cat(outputs)

    def _logits(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs @ self.emb.T + self.bias


def local_sgd(
    model: Cifg, packed: PackedBatches, *, learning_rate: float, clip_norm: float = 0.0
) -> tuple[float, int]:
    """A phone's local run in torch, a step a batch: what `kbdfl.kernels.train.local_sgd` does, `model` is changed.

    `clip_norm` bounds the L2 norm of each step's gradient; 0 = it does not. Returns the sum of the losses (nats)
    and how many targets were learned from.
    """
    optimiser = torch.optim.SGD(model.parameters(), lr=learning_rate)
    total, tokens = 0.0, 0
    for batch in batches(packed, device=str(model.emb.device)):
        learned = int((batch.targets != IGNORED).sum())
        if learned == 0:
            continue
        optimiser.zero_grad()
        loss = model.loss(*batch)
        loss.backward()
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimiser.step()
        total += learned * loss.item()
        tokens += learned
    return total, tokens


def load(path: Path | str) -> tuple[Cifg, dict[str, Any]]:
    """The model of a checkpoint, and what that says of it. Raises ModelError."""
    flat, spec, facts = load_checkpoint(Path(path))
    try:
        config = CifgConfig(**{name: int(value) for name, value in facts["config"].items()})
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError):
        raise ModelError(f"{path} does not say the config (vocab, embed, hidden) of its model") from None
    if config.spec != spec:
        raise ModelError(f"{path} says {config}, and its tensors are of other shapes")
    return Cifg(config, flat), facts


def save(path: Path | str, model: Cifg, facts: dict[str, Any]) -> None:
    """Write a checkpoint with `facts`, JSON values as `load` gives them. Raises ModelError if it is not finite."""
    flat = model.flat
    if not np.isfinite(flat).all():
        raise ModelError("a model must be finite, got a NaN or an infinity")
    save_checkpoint(Path(path), flat, model.config.spec, facts | {"config": model.config.dims})


def hand_back(run: Path | str, model: Cifg, *, data: str) -> Path:
    """Write `model` as the newest checkpoint of the run folder `run`, for export and `kbdfl evaluate`.

    `data` says what it was trained on in torch: it stands in the bundle's manifest beside what the run says, and what
    the run promises of privacy no longer does. Returns the checkpoint's path. Raises ModelError when the run has a
    model of another shape.
    """
    newest = read_run(Path(run))
    if newest.config != model.config:
        raise ModelError(f"the model of {run} is {newest.config}, not {model.config}")
    _, _, facts = load_checkpoint(newest.checkpoint)
    version = int(newest.checkpoint.stem)
    more = {
        "version": version + 1,
        "rounds": facts.get("rounds", facts.get("version", version)),
        "data": f"{facts.get('data', 'unstated')}; then in PyTorch: {data}",
        "privacy": NO_PROMISE,
    }
    path = newest.checkpoint.with_name(f"{version + 1:06d}.safetensors")
    save(path, model, facts | more)
    return path
