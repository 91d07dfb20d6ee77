"""A Flower app (https://flower.ai): phones that train with the device runtime, a server with Flower's own strategies.

`write_app` makes the folder that `flwr run` takes. Its simulation engine plays a phone in each supernode; the server
measures recall on users who never train and leaves a run folder with its bundle. Needs the extra `flower`.
"""

# Without Flower its classes and decorators have no types.
# mypy: allow-subclassing-any, allow-untyped-decorators

import logging
import os
import shlex
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kbdfl._version import __version__
from kbdfl.algorithms import FedAdam
from kbdfl.config import from_table, write_toml
from kbdfl.errors import ConfigError, DataError, KbdflError
from kbdfl.interop.learner import Phones, Plan, flat, named
from kbdfl.interop.record import Record
from kbdfl.params import ParamSpec, write_atomically

# Of the shell that starts `flwr run`, for Flower and Ray read them before they import this module. Nothing is sent to
# their makers and nothing installed, and Ray does not warn of its own plans. It would listen on every address of the
# machine, but for the last switch, which is meant for other systems and read on all.
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
for _name, _value in ENVIRONMENT.items():  # where this module is the first to import Flower
    os.environ.setdefault(_name, _value)

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp import strategy as strategies
except ImportError:
    raise ConfigError("the Flower app needs Flower: pip install 'kbdfl[flower]'") from None

OUT = "out"  # in the app's configuration, beside the fields of the plan: the folder of the run
NO_PART = 0  # the code of a phone that trained nothing

client_app = ClientApp()
server_app = ServerApp()


def write_app(folder: Path, plan: Plan, *, out: Path) -> None:
    """Make the app's `folder`, of one file, whose run goes to the folder `out`. Raises ConfigError if it is taken."""
    path = folder / "pyproject.toml"
    if path.exists():
        raise ConfigError(f"there is a {path} already; choose another folder")
    config = {name.replace("_", "-"): value for name, value in asdict(plan).items()}
    components = {"serverapp": f"{__name__}:server_app", "clientapp": f"{__name__}:client_app"}
    document = {
        # Without dependencies, for Flower would install them anew: kbdfl is there already.
        "project": {
            "name": "kbdfl-keyboard",
            "version": __version__,
            "description": "Federated learning for a phone keyboard",
            "license": "Apache-2.0",
            "dependencies": [],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "kbdfl",
                    "components": components,
                    "config": config | {OUT: str(out.resolve())},
                }
            }
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write_toml(document).encode())


def command(folder: Path, plan: Plan) -> str:
    """What a shell runs the app in `folder` with."""
    switches = "".join(f"export {name}={value}\n" for name, value in ENVIRONMENT.items())
    federation = f"num-supernodes={plan.devices} client-resources-num-cpus=1"
    return f"{switches}flwr run {shlex.quote(str(folder))} --stream --federation-config {shlex.quote(federation)}"


def plan_of(config: dict[str, Any]) -> Plan:
    """The plan that Flower's run configuration describes. Raises ConfigError."""
    table = {name.replace("-", "_"): value for name, value in config.items() if name != OUT}
    return from_table(Plan, table, where="the run's configuration")


@cache
def _phones(plan: Plan) -> Phones:
    """The phones of a run, kept by a process for all that it plays."""
    return Phones(plan)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """A phone's part of a round."""
    content, number = message.content, int(context.node_config["partition-id"])
    try:
        phones = _phones(plan_of(context.run_config))
        spec = phones.learner.built.task.config.spec
        params = _flat(content.array_records["arrays"], spec)
        # Flower counts rounds from 1.
        learned = phones.learn(
            number, params, round=int(_number(content.config_records["config"], "server-round")) - 1
        )
    except KbdflError as error:
        return Message(Error(NO_PART, str(error)), reply_to=message)
    metrics = MetricRecord({
        "num-examples": phones.learner.built.task.algorithm.weight(learned.examples),
        "tokens": learned.tokens,
        "train-loss": learned.train_loss,
    })  # fmt: skip
    return Message(
        RecordDict({"arrays": _record(params + learned.delta, spec), "metrics": metrics}),
        reply_to=message,
    )


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    """The rounds, and the run folder that they leave."""
    plan = plan_of(context.run_config)
    connected = len(list(grid.get_node_ids()))
    if connected != plan.devices:
        raise ConfigError(
            f"devices must be the number of supernodes, {connected} (--federation-config 'num-supernodes=...'), "
            f"got {plan.devices}"
        )
    record = Record(Path(str(context.run_config[OUT])), plan)
    spec = record.built.task.config.spec
    strategy = (Averaging if plan.server == "fedavg" else Adaptive)(plan, record)
    result = strategy.start(
        grid=grid,
        initial_arrays=_record(record.built.params, spec),
        train_config=ConfigRecord(),
        num_rounds=plan.rounds,
    )
    if not result.arrays:
        raise DataError("no phone took part in any round")
    said = record.finish(_flat(result.arrays, spec))
    found = said["recall_top1"], said["recall_top3"], record.folder.path
    logging.getLogger("flwr").info("recall %.4f / %.4f, run and bundle in %s", *found)


class _Noting(strategies.FedAvg):
    """What both strategies do besides: every round is noted, and models stay float32."""

    plan: Plan
    record: Record

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As Flower's, and what was sent is kept."""
        self._sent = _flat(arrays, self.record.built.task.config.spec)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As Flower's, with the rate of this round."""
        replies, spec = list(replies), self.record.built.task.config.spec
        self.begin(self.plan.rule.rate(server_round - 1), server_round)
        arrays, metrics = super().aggregate_train(server_round, replies)
        params = self._sent
        if arrays is not None:
            # Flower computes in float64 where numpy does, and would send that.
            params = self.end(self.plan.rule.rate(server_round - 1), _flat(arrays, spec))
        heard = [reply.content.metric_records["metrics"] for reply in replies if not reply.has_error()]
        tokens = [int(_number(one, "tokens")) for one in heard]
        losses = [_number(one, "train-loss") for one in heard]
        self.record.round(
            params,
            reports=len(heard),
            dropped=len(replies) - len(heard),
            examples=sum(int(_number(one, "num-examples")) for one in heard),
            tokens=sum(tokens),
            loss=float(np.average(losses, weights=tokens)) if heard else None,
        )
        return None if arrays is None else _record(params, spec), metrics

    def begin(self, rate: float, server_round: int) -> None:
        """Before the replies of a round are aggregated."""

    def end(self, rate: float, aggregated: np.ndarray) -> np.ndarray:
        """The new model, float32 (P,), from what came of the aggregation."""
        return aggregated


def _cohort(plan: Plan) -> dict[str, Any]:
    """How Flower draws a cohort: so many of all, and no phone measures anything."""
    return {
        "fraction_train": plan.cohort / plan.devices,
        "min_train_nodes": plan.cohort,
        "min_available_nodes": plan.devices,
        "fraction_evaluate": 0.0,
    }


class Averaging(_Noting):
    """Flower's FedAvg; a rate other than 1 makes a longer or a shorter step of the mean."""

    def __init__(self, plan: Plan, record: Record) -> None:
        super().__init__(**_cohort(plan))
        self.plan, self.record = plan, record

    def end(self, rate: float, aggregated: np.ndarray) -> np.ndarray:
        """x + rate (mean - x)."""
        return self._sent + np.float32(rate) * (aggregated - self._sent)


class Adaptive(_Noting, strategies.FedAdam):
    """Flower's FedAdam as `kbdfl.algorithms.FedAdam`: v begins at epsilon squared, and biases are not corrected."""

    def __init__(self, plan: Plan, record: Record) -> None:
        rule = plan.rule
        if not isinstance(rule, FedAdam):
            raise ConfigError(f"server must be fedadam here, got {plan.server}")
        super().__init__(
            **_cohort(plan),
            eta=rule.learning_rate,
            eta_l=plan.learning_rate,
            beta_1=rule.beta1,
            beta_2=rule.beta2,
            tau=rule.epsilon,
        )
        self.plan, self.record = plan, record
        start = record.built.task.config.spec.views(record.built.params)
        self.v_t = {name: np.full_like(view, rule.epsilon**2) for name, view in start.items()}

    def begin(self, rate: float, server_round: int) -> None:
        """The rate of this round; Flower will multiply it by the correction that is divided by here."""
        power = server_round + 1.0
        self.eta = rate * (1 - self.beta_1**power) / (1 - self.beta_2**power) ** 0.5


def _record(params: np.ndarray, spec: ParamSpec) -> ArrayRecord:
    return ArrayRecord({name: Array(view) for name, view in named(params, spec).items()})


def _number(record: ConfigRecord | MetricRecord, name: str) -> float:
    """What a record says of `name`. Raises DataError if it is no number."""
    value = record[name]
    if not isinstance(value, int | float):
        raise DataError(f"{name} must be a number, got {value!r:.80}")
    return value


def _flat(arrays: ArrayRecord, spec: ParamSpec) -> np.ndarray:
    return flat({name: array.numpy() for name, array in arrays.items()}, spec)
