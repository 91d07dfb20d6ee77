"""The race in pfl-research: its FederatedAveraging and SimulatedBackend with a torch model, on two processes.

Several processes are pfl's own way of using cores; phones are shared out by the words they train on. This process
starts the others and is one of them.
"""

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from cifg_torch import Cifg, first_loss, tensors
from common import (
    BATCH,
    BETA1,
    BETA2,
    CLIENT_RATE,
    CLIP,
    EPSILON,
    MESSAGES,
    Clock,
    Data,
    check,
    cohorts,
    pack,
    parsed,
    parser,
    random_of,
    server_rate,
)
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.context import LocalResultMetaData
from pfl.data import FederatedDataset
from pfl.data.dataset import Dataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel

WARM_UP = 2  # rounds that are taken back
RANK = "PFL_WORKER_RANK"


class Model(Cifg):
    """With the two methods that pfl asks for."""

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        return self(*batch)

    @torch.no_grad()
    def metrics(self, *batch: torch.Tensor) -> dict[str, Weighted]:
        return {"loss": Weighted(self(*batch).item(), 1)}


class FedAdam(torch.optim.Optimizer):
    """FedAdam as in the paper (Reddi et al. 2020, arXiv 2003.00295): no bias correction, v begins at epsilon^2."""

    def __init__(self, params: Iterator[torch.Tensor]) -> None:
        super().__init__(params, {"lr": 1.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for value in group["params"]:
                state = self.state[value]
                if not state:
                    state["m"] = torch.zeros_like(value)
                    state["v"] = torch.full_like(value, EPSILON**2)
                # pfl hands on the mean delta as a gradient, with its sign turned.
                state["m"].mul_(BETA1).sub_(value.grad, alpha=1 - BETA1)
                state["v"].mul_(BETA2).addcmul_(value.grad, value.grad, value=1 - BETA2)
                value.addcdiv_(state["m"], state["v"].sqrt().add_(EPSILON), value=group["lr"])


class Idle(PyTorchModel):
    """Leaves out the local run and nothing else."""

    def do_multiple_epochs_of(self, *_: Any, **__: Any) -> LocalResultMetaData:
        return LocalResultMetaData(num_steps=1)


class Messages(Dataset):
    """A phone's round in packed batches."""

    def __init__(self, batches: list[list[np.ndarray]], examples: int, user: int) -> None:
        super().__init__([], user_id=str(user))
        self._packed, self._examples = [tensors(pack(batch)) for batch in batches], examples

    def __len__(self) -> int:
        return self._examples

    @property
    def learned(self) -> int:
        """Words that it teaches."""
        return sum(int((targets >= 0).sum()) for _, targets, _ in self._packed)

    def iter(self, batch_size: int | None) -> Iterator[list[torch.Tensor]]:
        yield from self._packed


class Phones:
    """Makes a phone's messages when pfl asks for them; `words` counts those of this process."""

    def __init__(self, data: Data, options: argparse.Namespace) -> None:
        self._data, self._options = data, options
        self._drawn = (user for cohort in cohorts(data, options) for user in cohort)
        self.words, self._count = 0, 0

    def sample(self) -> int:
        return next(self._drawn)

    def make(self, user: int) -> Messages:
        if self._options.mode == "check":
            return Messages(self._data.check_batches(), 1, user)
        self._count += 1
        rank = int(os.environ.get(RANK, 0))
        batches, examples = self._data.draw(user, random_of(self._options.seed, rank, self._count, user))
        made = Messages(batches, examples, user)
        self.words += made.learned
        return made

    def weights(self) -> dict[int, int]:
        """About how many words a round of each phone has."""
        users, starts = self._data.users, self._data.messages.starts
        counts = np.diff(users)
        words = (starts[users[1:]] - starts[users[:-1]]) * np.minimum(1, MESSAGES / counts)
        return dict(enumerate(words.astype(int).tolist()))


class Rounds(TrainingProcessCallback):
    """The clock, on the first process, and the server's rate, on all."""

    def __init__(
        self, data: Data, options: argparse.Namespace, phones: Phones, central: torch.optim.Optimizer
    ) -> None:
        self._data, self._options, self._phones, self._central = data, options, phones, central
        self.clock = (
            None if options.mode == "check" or os.environ.get(RANK, "0") != "0" else Clock(data, options)
        )
        self.warm_up = 0 if options.mode == "check" else WARM_UP
        self._rate(0)

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        number = central_iteration + 1 - self.warm_up  # rounds that count
        if number == 0:
            with torch.no_grad():
                for name, value in model.pytorch_model.named_parameters():
                    value.copy_(torch.from_numpy(self._data.params[name]))
            self._central.state.clear()
            self._phones.words = 0
            if self.clock is not None:
                self.clock.start()
        last = torch.zeros(1)
        if number > 0 and self.clock is not None:
            last += self.clock.round(model.pytorch_model.arrays, clients=self._options.cohort, words=0)
        if torch.distributed.is_initialized():
            torch.distributed.broadcast(last, 0)
        self._rate(max(number, 0))
        return bool(last), Metrics()

    def _rate(self, number: int) -> None:
        self._central.param_groups[0]["lr"] = server_rate(self._data, self._options, number)


def run(options: argparse.Namespace) -> None:
    data = Data(options.data)
    torch.set_num_threads(options.threads)
    np.random.seed(options.seed)  # pfl's sampling; all processes have to agree
    module, phones = Model(data.params), Phones(data, options)
    if options.server == "fedavg":
        central: torch.optim.Optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    else:
        central = FedAdam(module.parameters())
    kind = Idle if options.mode == "noop" else PyTorchModel
    model = kind(module, lambda params, lr: torch.optim.SGD(params, lr=lr), central)
    rounds = Rounds(data, options, phones, central)
    training = FederatedDataset(phones.make, phones.sample, phones.weights())
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=options.rounds + rounds.warm_up,
            evaluation_frequency=10**9,
            train_cohort_size=options.cohort,
            val_cohort_size=0,
        ),
        SimulatedBackend(training, training, postprocessors=[WeightByDatapoints()]),
        model,
        NNTrainHyperParams(
            local_num_epochs=1,
            local_learning_rate=CLIENT_RATE,
            local_batch_size=BATCH,
            local_max_grad_norm=CLIP,
        ),
        NNEvalHyperParams(local_batch_size=BATCH),
        callbacks=[rounds],
        send_metrics_to_platform=False,
    )
    words = torch.tensor(phones.words)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(words)
    if options.mode == "check":
        check("pfl", data, loss=first_loss(data), params=module.arrays())
    elif rounds.clock is not None:
        rounds.clock.words = int(words)
        rounds.clock.report("pfl", ("pfl", "torch"), workers=options.processes, threads=options.threads)


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--processes", type=int, default=2)
    options_of.add_argument("--threads", type=int, default=1, help="of each process")
    options = parsed(options_of)
    if options.mode == "check":
        options.processes = 1
    if options.processes == 1 or RANK in os.environ:
        run(options)
        return
    # pfl looks for its peers as it is imported, so this process begins anew as well.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    given = os.environ | {"PFL_WORKER_ADDRESSES": ",".join([address] * options.processes)}
    command = [sys.executable, *sys.argv]
    for rank in range(1, options.processes):
        subprocess.Popen(command, env=given | {RANK: str(rank)})
    os.execve(sys.executable, command, given | {RANK: "0"})


if __name__ == "__main__":
    main()
