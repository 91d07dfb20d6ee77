"""What an experiment compares: settings, each of which trains a model from a seed on the same phones' text."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments.data import Data, Part
from kbdfl.device_sim.runtime import has_known_word
from kbdfl.device_sim.simulate import Simulation
from kbdfl.engines import ThreadEngine
from kbdfl.errors import DataError
from kbdfl.kernels.train import gradient, local_sgd
from kbdfl.metrics import recall
from kbdfl.model import CifgConfig, preset
from kbdfl.rng import stream
from kbdfl.run import Built, RunConfig, Settings, build_task
from kbdfl.task import RoundRule
from kbdfl.text import PackedBatches, pack, training_batches

POINTS = 5  # of a learning curve
_SHARDS = 2  # of a central step's batch: always so many, so that workers change no bit
_NO_WORDS = "the training users' logs hold no word to learn"


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What came of a setting and a seed.

    models  float32 (P,) each; more than one where every phone has its own, and recall is then their mean
    config  their shape
    tokens  targets that all of them learned from, counted as often as they were seen
    wall_s  seconds of the training, measurements on the way included
    curve   measurements on validation users on the way: tokens, recall_top1, recall_top3 and, if there are any, rounds
    """

    models: tuple[np.ndarray, ...]
    config: CifgConfig
    tokens: int
    wall_s: float
    curve: list[dict[str, float]] = field(default_factory=list)

    def recall(self, part: Part) -> dict[str, float]:
        """recall_top1 and recall_top3, the mean over the models."""
        found = [recall(model, self.config, part.words) for model in self.models]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


class Setting(Protocol):
    """A row of the table, `method`, with one `value` of what is tuned in it."""

    @property
    def method(self) -> str: ...

    @property
    def value(self) -> str: ...

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        """The same bytes for the same data and seed, whatever the number of workers."""


@dataclass(frozen=True, slots=True)
class Federated:
    """`kbdfl simulate` with this algorithm and these rounds; phones that take part do report."""

    method: str
    value: str
    algorithm: Algorithm
    rounds: int

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        settings = Settings(
            seed=seed, preset=data.preset, source=data.source, evaluate_every=-(-self.rounds // POINTS)
        )
        config = RunConfig(settings, self.algorithm, RoundRule(rounds=self.rounds, over_selection=1.0))
        simulation = Simulation(
            config, build_task(config), data.population, workers=workers, held_out=data.validation.words
        )
        rows: list[dict[str, Any]] = []
        simulation.rounds(rows.append)
        tokens = np.cumsum([row["tokens"] for row in rows])
        curve = [
            {"rounds": row["round"] + 1, "tokens": int(so_far)}
            | {name: row[name] for name in ("recall_top1", "recall_top3")}
            for row, so_far in zip(rows, tokens, strict=True)
            if row["recall_top1"] is not None
        ]
        c = simulation.coordinator
        return Trained((c.params,), preset(data.preset), int(tokens[-1]), rows[-1]["wall_s"], curve)


@dataclass(frozen=True, slots=True)
class Central:
    """One model on all phones' messages in one place, shuffled anew every epoch: what no server here may do.

    The server's FedAdam takes the gradient of each batch of `batch_size` messages in place of a cohort's mean delta;
    its rate falls over the whole training, and epsilon is small, as in Kingma and Ba 2015, arXiv 1412.6980.
    """

    method: str
    value: str
    learning_rate: float
    epochs: float
    batch_size: int = 64
    max_words: int = 30

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        started = time.perf_counter()
        built = _start(data, seed)
        sentences = [
            sentence[: self.max_words + 2]
            for user in data.population.users
            for sentence in data.population.log(user).sentences(built.vocabulary)
        ]
        if not sentences:
            raise DataError(_NO_WORDS)
        steps = max(1, round(self.epochs * len(sentences) / self.batch_size))
        rule = FedAdam(self.learning_rate, self.learning_rate / 10, steps, epsilon=1e-7)
        params, config = built.params, built.task.config
        state, tokens, curve = rule.init(params.size), 0, []
        with ThreadEngine(workers) as engine:
            for step, batch in enumerate(islice(self._batches(sentences, seed), steps)):
                shards = [pack([batch[first::_SHARDS]]) for first in range(min(_SHARDS, len(batch)))]
                found = list(engine.map(partial(_gradient_sum, params, config), shards))
                learned = sum(count for _, count in found)
                mean = sum(total for total, _ in found) / np.float32(max(learned, 1))
                params, state = rule.apply(params, -mean, state, round=step)
                tokens += learned
                if (step + 1) % -(-steps // POINTS) == 0 or step + 1 == steps:
                    curve.append({"tokens": tokens} | recall(params, config, data.validation.words))
        return Trained((params,), config, tokens, time.perf_counter() - started, curve)

    def _batches(self, sentences: Sequence[list[int]], seed: int) -> Iterator[list[list[int]]]:
        """Batches without end, epoch after epoch."""
        random = stream(seed, "central")
        while True:
            order = random.permutation(len(sentences))
            for start in range(0, len(order), self.batch_size):
                yield [sentences[i] for i in order[start : start + self.batch_size]]


@dataclass(frozen=True, slots=True)
class Alone:
    """Each phone's own model, from all of its own messages and nobody else's; a sample of `devices` phones.

    Of `client` its epochs, batch_size, max_words, learning_rate and clip_norm count.
    """

    method: str
    value: str
    client: ClientRule
    devices: int

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        started = time.perf_counter()
        built, random, rule = _start(data, seed), stream(seed, "alone"), self.client
        runs: list[PackedBatches] = []
        for index in random.permutation(len(data.population)):
            if len(runs) == self.devices:
                break
            sentences = data.population.log(data.population.users[index]).sentences(built.vocabulary)
            if has_known_word(sentences):
                runs.append(
                    training_batches(
                        sentences,
                        batch_size=rule.batch_size,
                        epochs=rule.epochs,
                        max_words=rule.max_words,
                        random=random,
                    )
                )
        if not runs:
            raise DataError(_NO_WORDS)
        config = built.task.config

        def train(batches: PackedBatches) -> tuple[np.ndarray, int]:
            delta, _, tokens, _ = local_sgd(
                built.params,
                **config.dims,
                **batches.arrays,
                learning_rate=rule.learning_rate,
                clip_norm=rule.clip_norm,
            )
            return built.params + delta, tokens

        with ThreadEngine(workers) as engine:
            models, tokens = zip(*engine.map(train, runs), strict=True)
        return Trained(models, config, sum(tokens), time.perf_counter() - started)


def _start(data: Data, seed: int) -> Built:
    """The vocabulary and the fresh model that a simulation of this seed begins with."""
    return build_task(RunConfig(Settings(seed=seed, preset=data.preset, source=data.source)))


def _gradient_sum(params: np.ndarray, config: CifgConfig, batch: PackedBatches) -> tuple[np.ndarray, int]:
    """The gradient of the loss summed over one batch's targets, float32 (P,), and how many these are."""
    found, _ = gradient(
        params, **config.dims, inputs=batch.inputs, targets=batch.targets, active=batch.active
    )
    return np.float32(batch.tokens) * found, batch.tokens
