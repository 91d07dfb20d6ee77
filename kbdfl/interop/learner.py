"""One phone's part of a round inside another framework: its own log, the device runtime and the kernels.

The framework carries models; here a model comes in as a flat vector and goes out as one. In between is what a phone
does in kbdfl's own rounds, seeds and checks included, so a round of plain averaging ends in the same model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam, FedAvg
from kbdfl.assignment import Assignment
from kbdfl.device_sim.population import Population, open_logs
from kbdfl.device_sim.runtime import check_model, prepare, train
from kbdfl.errors import ConfigError, ModelError
from kbdfl.kernels.train import Workspace
from kbdfl.params import ParamSpec, digest
from kbdfl.rng import seed_of
from kbdfl.run import Built, RunConfig, Settings, build_task
from kbdfl.task import RoundRule
from kbdfl.transform import decode_chain
from kbdfl.wire import decode_report


@dataclass(frozen=True, slots=True)
class Learned:
    """What came of a phone's round.

    delta       float32 (P,), from the model that it received to where its training ended
    examples    messages that it trained on, its weight in a mean
    tokens      targets that it learned from
    train_loss  nats a token
    """

    delta: np.ndarray
    examples: int
    tokens: int
    train_loss: float


def named(params: np.ndarray, spec: ParamSpec) -> dict[str, np.ndarray]:
    """A flat vector (P,) as the arrays by name that other frameworks carry."""
    return {name: np.ascontiguousarray(view) for name, view in spec.views(params).items()}


def flat(arrays: Mapping[str, np.ndarray] | None, spec: ParamSpec) -> np.ndarray:
    """The inverse of `named`, float32 whatever came back. Raises ModelError for other names or shapes, or no arrays."""
    if arrays is None or {name: array.shape for name, array in arrays.items()} != dict(spec.entries):
        shapes = ", ".join(f"{name} {shape}" for name, shape in spec.entries)
        raise ModelError(f"a model must have the arrays {shapes}, got {sorted(arrays or ())}"[:300])
    return np.concatenate([np.asarray(arrays[name], np.float32).ravel() for name, _ in spec.entries])


SERVERS = ("fedavg", "fedadam")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a framework's run does, by the names of its configuration.

    source, preset, seed, devices    as in `kbdfl.run.Settings`, but that devices are always so many
    rounds, cohort                   of every round so many phones
    server                           `fedadam`, whose rate falls to a tenth over the rounds, or `fedavg`
    server_rate                      of the server; 0 = 0.03 of FedAdam, 1 of FedAvg
    learning_rate, candidates, max_messages  of the phones, as in `kbdfl.algorithms.ClientRule`
    evaluate_every, evaluate_words   as in `Settings`
    """

    source: str = "personas"
    preset: str = "small"
    seed: int = 1
    devices: int = 100
    rounds: int = 50
    cohort: int = 10
    server: str = "fedadam"
    server_rate: float = 0.0
    learning_rate: float = 3.0
    candidates: int = 0
    max_messages: int = 200
    evaluate_every: int = 10
    evaluate_words: int = 20_000

    def __post_init__(self) -> None:
        if self.server not in SERVERS:
            raise ConfigError(f"server must be one of {', '.join(SERVERS)}, got {self.server!r}"[:200])
        if self.devices < 1:
            raise ConfigError(f"devices must be >= 1, got {self.devices}")
        if not 1 <= self.cohort <= self.devices:
            raise ConfigError(f"cohort must lie in [1, devices = {self.devices}], got {self.cohort}")
        self.config()  # refuses the rest

    @property
    def rule(self) -> FedAvg | FedAdam:
        """The server's rule."""
        if self.server == "fedavg":
            return FedAvg(self.server_rate or 1.0)
        rate = self.server_rate or 0.03
        return FedAdam(rate, rate / 10, self.rounds)

    def config(self) -> RunConfig:
        """The same run in kbdfl's own terms: what its folder's config.toml holds."""
        client = ClientRule(
            learning_rate=self.learning_rate, candidates=self.candidates, max_messages=self.max_messages
        )
        return RunConfig(
            Settings(
                seed=self.seed,
                preset=self.preset,
                source=self.source,
                devices=self.devices,
                evaluate_every=self.evaluate_every,
                evaluate_words=self.evaluate_words,
            ),
            # The frameworks carry float32, so nothing is gained by rounding an update.
            Algorithm(client=client, server=self.rule, upload="float32"),
            RoundRule(cohort=self.cohort, rounds=self.rounds, over_selection=1.0),
        )


class Phones:
    """The phones of a run, each with its own log; what they type follows from the plan."""

    def __init__(self, plan: Plan) -> None:
        source = open_logs(plan.source, seed=plan.seed, devices=plan.devices)
        self.population = Population(source, devices=plan.devices)
        self.learner = Learner(build_task(plan.config()))

    def learn(self, number: int, params: np.ndarray, *, round: int) -> Learned:
        """Phone `number`'s part of a round. Raises KbdflError when it takes no part."""
        user = self.population.users[number]
        sentences = self.population.log(user).sentences(self.learner.built.vocabulary)
        return self.learner.learn(user, sentences, params, round=round)


class Learner:
    """Trains phones of one task, one at a time, in the same scratch memory."""

    def __init__(self, built: Built) -> None:
        self.built = built
        self._workspace = Workspace()

    def learn(
        self, device: str, sentences: Sequence[Sequence[int]], params: np.ndarray, *, round: int
    ) -> Learned:
        """What `device` learns from its `sentences`, beginning with `params` float32 (P,), in round `round` from 0.

        Raises Declined (over its budget, diverged), DataError (no word to learn) or ModelError.
        """
        task = self.built.task
        whole = Assignment.of_round(task, round, version=round, published=params, sha256=digest(params))
        assignment = replace(whole, seed=seed_of(task.seed, "round", round, "device", device))
        check_model(assignment, params, self.built.vocabulary)
        run = prepare(assignment, sentences)
        frame = train(assignment, params, run, device=device, workspace=self._workspace)
        report = decode_report(frame, max_bytes=assignment.max_report_bytes)
        delta = decode_chain(task.algorithm.transforms, report.update, params.size, assignment.draws)
        return Learned(delta, report.examples, report.tokens, report.train_loss)
