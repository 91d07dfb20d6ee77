"""The race in Flower: its simulation engine on Ray, a ClientApp with a torch model, its FedAdam or FedAvg.

Each of two Ray actors trains one phone at a time with one thread. There is a supernode for every phone; phones of a
round are drawn by Flower.
"""

import argparse
import contextlib
import logging
import os
import random
from collections.abc import Iterable

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}  # read when they are imported

import numpy as np
from cifg_torch import first_loss
from common import (
    BETA1,
    BETA2,
    CLIENT_RATE,
    EPSILON,
    Clock,
    Data,
    Params,
    check,
    parsed,
    parser,
    server_rate,
)
from flower_phone import client_app
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg
from flwr.simulation import run_simulation

WARM_UP = 3  # rounds that are taken back: actors start, import torch and read the data


class Reached(Exception):
    """The race is over before the last round."""


class Counted:
    """A strategy that notes a round's phones and words, takes rounds back that warm up, and lets the rate fall."""

    def prepare(self, data: Data, options: argparse.Namespace, warm_up: int) -> None:
        """Before the first round."""
        self.data, self.options, self.warm_up = data, options, warm_up
        self.clients = self.words = 0
        if options.server == "fedadam":
            self.v_t = {name: np.full_like(value, EPSILON**2) for name, value in data.params.items()}

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        if failed := [reply for reply in replies if reply.has_error()]:
            raise RuntimeError(f"a phone failed: {failed[0].error}")
        self.clients = len(replies)
        self.words = sum(int(reply.content["metrics"]["words"]) for reply in replies)
        if server_round <= self.warm_up:
            return record(self.data.params), None
        if self.options.server == "fedadam":
            self.eta = server_rate(self.data, self.options, server_round - self.warm_up - 1)
            # Flower corrects the bias of both moments; here as in the paper, and for all contestants, nobody does.
            self.eta *= (1 - BETA1 ** (server_round + 1)) / (1 - BETA2 ** (server_round + 1)) ** 0.5
        arrays, metrics = super().aggregate_train(server_round, replies)
        # With numpy 2 its rate makes float64 of them, which would travel as such.
        return record({name: array.numpy().astype(np.float32) for name, array in arrays.items()}), metrics


class Averaged(Counted, FedAvg):
    """FedAvg."""


class Adaptive(Counted, FedAdam):
    """FedAdam."""


def record(params: Params) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in params.items()})


def server_of(data: Data, options: argparse.Namespace, supernodes: int) -> tuple[ServerApp, dict]:
    """The server, and where it leaves its clock and its last model."""
    app, left = ServerApp(), {}
    checking = options.mode == "check"
    warm_up = 0 if checking else WARM_UP

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        random.seed(options.seed)  # draws the phones
        rates = {"eta_l": CLIENT_RATE, "beta_1": BETA1, "beta_2": BETA2, "tau": EPSILON}
        kind, more = (Averaged, {}) if options.server == "fedavg" else (Adaptive, rates)
        strategy = kind(
            fraction_train=options.cohort / supernodes,
            fraction_evaluate=0.0,
            min_train_nodes=options.cohort,
            min_available_nodes=supernodes,
            **more,
        )
        strategy.prepare(data, options, warm_up)
        clock = left["clock"] = None if checking else Clock(data, options)

        def round_over(number: int, arrays: ArrayRecord) -> None:
            """Flower asks for a measurement after every round, and with number 0 before the first."""
            left["params"] = lambda: {name: array.numpy() for name, array in arrays.items()}
            if clock is None or number < warm_up:
                return
            if number == warm_up:
                clock.start()
            elif clock.round(left["params"], clients=strategy.clients, words=strategy.words):
                raise Reached

        config = {"data": str(options.data.resolve()), "mode": options.mode, "seed": options.seed}
        with contextlib.suppress(Reached):
            strategy.start(
                grid=grid,
                initial_arrays=record(data.params),
                train_config=ConfigRecord(config),
                num_rounds=options.rounds + warm_up,
                evaluate_fn=round_over,
            )

    return app, left


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--actors", type=int, default=2, help="of Ray, one thread each")
    options = parsed(options_of)
    data = Data(options.data)
    supernodes = 1 if options.mode == "check" else len(data)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    server, left = server_of(data, options, supernodes)
    run_simulation(
        server_app=server,
        client_app=client_app,
        num_supernodes=supernodes,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": options.actors, "include_dashboard": False, "log_to_driver": False},
        },
    )
    if options.mode == "check":
        check("flower", data, loss=first_loss(data), params=left["params"]())
    else:
        left["clock"].report("flower", ("flwr", "ray", "torch"), actors=options.actors)


if __name__ == "__main__":
    main()
