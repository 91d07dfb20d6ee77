"""What an experiment compares: settings, each of which trains a model from a seed on the same phones' text."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments.data import Data, Part
from kbdfl.device_sim.runtime import has_known_word
from kbdfl.device_sim.simulate import Simulation
from kbdfl.engines import ThreadEngine
from kbdfl.errors import DataError
from kbdfl.kernels.train import gradient, local_sgd
from kbdfl.metrics import recall
from kbdfl.model import CifgConfig
from kbdfl.rng import stream
from kbdfl.run import Built, RunConfig, Settings, build_with
from kbdfl.task import RoundRule
from kbdfl.text import PackedBatches, pack, training_batches

POINTS = 5  # of a learning curve, unless a setting says otherwise
_SHARDS = 2  # of a central step's batch: always so many, so that workers change no bit
_NO_WORDS = "the training users' logs hold no word to learn"

Kind = TypeVar("Kind", bound="Trained")


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A model on its way: float32 (P,), after how many tokens, and, if it is federated, rounds and virtual hours.

    `trips` is how many phones had had the model and were done with it, whether their reports counted or not.
    """

    params: np.ndarray
    tokens: int
    rounds: int | None = None
    hours: float | None = None
    trips: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What came of a setting and a seed.

    models  float32 (P,) each; more than one where every phone has its own, and recall is then their mean
    config  their shape
    tokens  targets that all of them learned from, counted as often as they were seen
    wall_s  seconds of the training
    points  the model on its way, and the last of them at the end; none where every phone has its own
    counted of a simulation, how many reports of each phone were counted
    """

    models: tuple[np.ndarray, ...]
    config: CifgConfig
    tokens: int
    wall_s: float
    points: tuple[Point, ...] = ()
    counted: Mapping[str, int] = field(default_factory=dict)

    def known_as(self, kind: type[Kind], **more: Any) -> Kind:
        """The same as a `kind` of it, with what that knows besides."""
        return kind(**{field.name: getattr(self, field.name) for field in fields(Trained)} | more)

    def recall(self, part: Part) -> dict[str, float]:
        """recall_top1 and recall_top3, the mean over the models."""
        found = [self.ask(model, part) for model in self.models]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    def ask(self, params: np.ndarray, part: Part) -> dict[str, float]:
        """recall_top1 and recall_top3 of one model, float32 (P,): on the words that were drawn of these users."""
        return recall(params, self.config, part.words)

    def details(self, part: Part) -> dict[str, float]:
        """What else an experiment wants to know of its models on these users, by name."""
        return {}

    def curve(self, part: Part) -> list[dict[str, float]]:
        """Recall at each point: tokens, recall_top1, recall_top3 and, if it is federated, rounds, hours and trips."""
        return [
            {
                name: value
                for name in ("rounds", "hours", "trips", "tokens")
                if (value := getattr(point, name)) is not None
            }
            | self.ask(point.params, part)
            for point in self.points
        ]


class Setting(Protocol):
    """A row of the table, `method`, with one `value` of what is tuned in it."""

    @property
    def method(self) -> str: ...

    @property
    def value(self) -> str: ...

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        """The same bytes for the same data and seed, whatever the number of workers."""
        ...


@dataclass(frozen=True, slots=True)
class Around:
    """A setting around `inner`, in whose row of the table it stands."""

    inner: Setting

    @property
    def method(self) -> str:
        return self.inner.method

    @property
    def value(self) -> str:
        return self.inner.value


@dataclass(frozen=True, slots=True)
class Federated:
    """`kbdfl simulate` with this algorithm and these rounds of `rule`, on phones of these `speeds` and `availability`.

    `points` of its learning curve are kept, at even distances in rounds.
    """

    method: str
    value: str
    algorithm: Algorithm
    rounds: int
    points: int = POINTS
    rule: RoundRule = RoundRule(over_selection=1.0)
    speeds: str = "equal"
    availability: str = "always"

    def train(
        self,
        data: Data,
        *,
        seed: int,
        workers: int,
        start: np.ndarray | None = None,
        watch: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> Trained:
        """As `Setting.train`; `start` float32 (P,) is the model that the first round hands out, if not a fresh one.

        `watch` gets each round's metrics row.
        """
        started = time.perf_counter()
        settings = Settings(
            seed=seed,
            preset=data.preset,
            source=data.source,
            speeds=self.speeds,
            availability=self.availability,
            evaluate_every=self.rounds,
        )
        config = RunConfig(settings, self.algorithm, replace(self.rule, rounds=self.rounds))
        built = build_with(data.vocabulary, data.frequencies, config)
        if start is not None:
            built = replace(built, params=start)
        simulation = Simulation(
            config, built, data.population, workers=workers, held_out=data.validation.words
        )
        points, tokens, trips = [], 0, 0
        marks = {round(self.rounds * (i + 1) / self.points) for i in range(self.points)}

        def on_round(row: dict[str, Any]) -> None:
            nonlocal tokens, trips
            watch(row)
            tokens += row["tokens"]
            trips += row["reports"] + row["dropped"]
            done = row["round"] + 1
            if done in marks:
                params = simulation.coordinator.published
                points.append(Point(params, tokens, done, row["virtual_s"] / 3_600, trips))

        simulation.rounds(on_round)
        return Trained(
            (simulation.coordinator.published,),
            built.task.config,
            tokens,
            time.perf_counter() - started,
            tuple(points),
            simulation.counted,
        )


@dataclass(frozen=True, slots=True)
class Central:
    """One model on all phones' messages in one place, shuffled anew every epoch: what no server here may do.

    With `public` it is the public text's messages, with which a server may.

    The server's FedAdam takes the gradient of each batch of `batch_size` messages in place of a cohort's mean delta;
    its rate falls over the whole training, and epsilon is small, as in Kingma and Ba 2015, arXiv 1412.6980.
    """

    method: str
    value: str
    learning_rate: float
    epochs: float
    batch_size: int = 64
    max_words: int = 30
    public: bool = False

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        started = time.perf_counter()
        built = _start(data, seed)
        texts = data.public_text() if self.public else data.phones_text()
        sentences = [sentence[: self.max_words + 2] for sentence in texts]
        if not sentences:
            raise DataError(_NO_WORDS)
        steps = max(1, round(self.epochs * len(sentences) / self.batch_size))
        rule = FedAdam(self.learning_rate, self.learning_rate / 10, steps, epsilon=1e-7)
        params, config = built.params, built.task.config
        state, tokens, points = rule.init(params.size), 0, []
        with ThreadEngine(workers) as engine:
            for step, batch in enumerate(islice(self._batches(sentences, seed), steps)):
                shards = [pack([batch[first::_SHARDS]]) for first in range(min(_SHARDS, len(batch)))]
                found = list(engine.map(partial(_gradient_sum, params, config), shards))
                learned = sum(count for _, count in found)
                total = sum((total for total, _ in found), start=np.zeros_like(params))
                mean = total / np.float32(max(learned, 1))
                params, state = rule.apply(params, -mean, state, round=step)
                tokens += learned
                if (step + 1) % -(-steps // POINTS) == 0 or step + 1 == steps:
                    points.append(Point(params, tokens))
        return Trained((params,), config, tokens, time.perf_counter() - started, tuple(points))

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
    config = RunConfig(Settings(seed=seed, preset=data.preset, source=data.source))
    return build_with(data.vocabulary, data.frequencies, config)


def _gradient_sum(params: np.ndarray, config: CifgConfig, batch: PackedBatches) -> tuple[np.ndarray, int]:
    """The gradient of the loss summed over one batch's targets, float32 (P,), and how many these are."""
    found, _ = gradient(
        params, **config.dims, inputs=batch.inputs, targets=batch.targets, active=batch.active
    )
    return np.float32(batch.tokens) * found, batch.tokens
