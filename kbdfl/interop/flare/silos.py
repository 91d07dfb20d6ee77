"""What each organisation has in its own folder, what all of them share, and what one does when it is asked.

FOLDER/shared.json          the settings below; FOLDER/tokenizer.json, FOLDER/frequencies.npy: the vocabulary
FOLDER/organisation-1/      log.jsonl, its users' messages; validation.npz and held_out.npz, words to ask for

The organisations, the learner and the settings are those of `kbdfl experiment silos`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.config import from_table
from kbdfl.device_sim.experiments import silos as experiment
from kbdfl.device_sim.experiments.data import Data, Part, open_data
from kbdfl.device_sim.experiments.settings import POINTS, Central
from kbdfl.device_sim.experiments.topics import EVERYTHING, Regrouped
from kbdfl.device_sim.population import Population
from kbdfl.device_sim.typing.records import read_messages, write_messages
from kbdfl.errors import ConfigError, DataError
from kbdfl.interop.learner import Learned, Learner
from kbdfl.metrics import recall
from kbdfl.params import write_atomically
from kbdfl.run import Built, RunConfig, Settings, build_with
from kbdfl.task import RoundRule
from kbdfl.text import PackedBatches, Vocabulary

PARTS = ("validation", "held_out")
QUICK_ROUNDS = 40
SITES = {name.replace(" ", "-"): name for name in experiment.NAMES}  # FLARE's names have no space


@dataclass(frozen=True, slots=True)
class Shared:
    """What all organisations and the server know.

    logs, preset, seed  where the text came from, the model, and the seed of its start and of all draws
    rounds              of the joint model, each with every organisation
    joint_rates         of the server, tried one after another
    rates_alone         that each organisation tries for a model of its own,
    epochs_alone        over so many passes over its messages
    """

    logs: str = "chat"
    preset: str = "small"
    seed: int = 0
    rounds: int = 300
    joint_rates: tuple[float, ...] = experiment.JOINT_RATES
    rates_alone: tuple[float, ...] = experiment.RATES_ALONE
    epochs_alone: float = experiment.EPOCHS_ALONE

    def __post_init__(self) -> None:
        if self.rounds < POINTS:
            raise ConfigError(
                f"rounds must be >= {POINTS}, after each fifth of which is measured, got {self.rounds}"
            )
        for name in ("joint_rates", "rates_alone"):
            if not getattr(self, name):
                raise ConfigError(f"{name} must hold a rate, got none")
        if not 0 < self.epochs_alone < float("inf"):
            raise ConfigError(f"epochs_alone must be > 0 and finite, got {self.epochs_alone}")

    def config(self, rate: float) -> RunConfig:
        """The joint training at a server rate, as `kbdfl experiment silos` does it."""
        client = ClientRule(candidates=experiment.CANDIDATES, max_messages=experiment.MESSAGES)
        return RunConfig(
            Settings(seed=self.seed, preset=self.preset, source=self.logs, evaluate_every=self.rounds),
            Algorithm(client=client, server=FedAdam(rate, rate / 10, self.rounds)),
            RoundRule(cohort=len(SITES), over_selection=1.0, rounds=self.rounds),
        )


def quickly(shared: Shared) -> Shared:
    """The same as a first look: as `kbdfl experiment silos --quick`, and with one rate of the server."""
    return replace(
        shared,
        rounds=min(shared.rounds, QUICK_ROUNDS),
        joint_rates=experiment.JOINT_RATES[1:2],
        rates_alone=experiment.RATES_ALONE[1:2],
        epochs_alone=0.5,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """The model that everybody starts from, and what the organisations and the server are told."""

    shared: Shared
    vocabulary: Vocabulary
    frequencies: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> "Beginning":
        """What `write_silos` wrote. Raises DataError where there is nothing of it."""
        try:
            document = json.loads((folder / "shared.json").read_bytes())
            frequencies = np.load(folder / "frequencies.npy", allow_pickle=False)
            joint, alone = (tuple(document.pop(name)) for name in ("joint_rates", "rates_alone"))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"{folder} is no folder of organisations: {' '.join(str(error).split())}"
            ) from None
        shared = replace(
            from_table(Shared, document, where="shared.json"), joint_rates=joint, rates_alone=alone
        )
        return cls(shared, Vocabulary.load(folder / "tokenizer.json"), frequencies)

    def built(self, rate: float) -> Built:
        """The joint task at a server rate."""
        return build_with(self.vocabulary, self.frequencies, self.shared.config(rate))


def write_silos(folder: Path, shared: Shared, *, words: int) -> None:
    """Make the folder, with about `words` held-out words of all organisations together.

    Raises ConfigError where the folder is taken, DataError where the text has too few users.
    """
    if (folder / "shared.json").exists():
        raise ConfigError(f"there are organisations in {folder} already; choose another folder")
    data = open_data(shared.logs, preset_name=shared.preset, seed=shared.seed, words=words)
    found = experiment.silos(data)
    for number, (site, name) in enumerate(SITES.items()):
        own = folder / site
        own.mkdir(parents=True, exist_ok=True)
        write_messages(own / "log.jsonl", found.source.messages(name))
        for part, users in zip(PARTS, (data.validation, data.held_out), strict=True):
            asked = found.asked[users][number]
            np.savez(
                own / f"{part}.npz",
                inputs=asked.inputs,
                targets=asked.targets,
                active=asked.active,
                steps=asked.steps,
            )
    data.vocabulary.save(folder / "tokenizer.json")
    np.save(folder / "frequencies.npy", data.frequencies)
    write_atomically(folder / "shared.json", json.dumps(asdict(shared), indent=1).encode())


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """An organisation's own model float32 (P,), the rate it chose, and recall@1 on its own validation words."""

    params: np.ndarray
    rate: float
    recall_top1: float


class Site:
    """One organisation: it sees its own folder below `folder` and what is shared, nothing of the others."""

    def __init__(self, folder: Path, site: str) -> None:
        if site not in SITES:
            raise ConfigError(f"a site must be one of {', '.join(SITES)}, got {site!r}"[:200])
        self._beginning = Beginning.read(folder)
        own, self._name = folder / site, SITES[site]
        log = Regrouped({self._name: list(read_messages(own / "log.jsonl", keys=False))})
        self._population = Population(log, retention=EVERYTHING)
        self._asked = {part: _words(own / f"{part}.npz") for part in PARTS}
        # Which of the server's rates it is makes no difference here.
        self._learner = Learner(self._beginning.built(self._beginning.shared.joint_rates[0]))
        self.spec = self._learner.built.task.config.spec

    @cached_property
    def _sentences(self) -> Sequence[Sequence[int]]:
        return self._population.log(self._name).sentences(self._beginning.vocabulary)

    def learn(self, params: np.ndarray, *, round: int) -> Learned:
        """Its part of a joint round."""
        return self._learner.learn(self._name, self._sentences, params, round=round)

    def alone(self) -> Alone:
        """A model of its own, at the rate and the point of the training that its own validation words like best."""
        shared, tried = self._beginning.shared, []
        for rate in shared.rates_alone:
            setting = Central(self._name, f"{rate:g}", rate, shared.epochs_alone, experiment.BATCH_ALONE)
            trained = setting.train(self._data(), seed=shared.seed, workers=1)
            tried += [
                Alone(one.params, rate, self.ask(one.params, "validation")["recall_top1"])
                for one in trained.points
            ]
        return max(tried, key=lambda one: one.recall_top1)

    def ask(self, params: np.ndarray, part: str) -> dict[str, float]:
        """recall_top1 and recall_top3 of a model, float32 (P,), on its own users' words."""
        return recall(params, self._learner.built.task.config, self._asked[part])

    def _data(self) -> Data:
        beginning, shared = self._beginning, self._beginning.shared
        source = Regrouped({})
        validation, held_out = (
            Part((), (), self._asked[part], source, beginning.vocabulary, shared.seed) for part in PARTS
        )
        return Data(
            source=shared.logs,
            preset=shared.preset,
            population=self._population,
            validation=validation,
            held_out=held_out,
            vocabulary=beginning.vocabulary,
            frequencies=beginning.frequencies,
        )


def _words(path: Path) -> PackedBatches:
    with np.load(path, allow_pickle=False) as file:
        return PackedBatches(**{name: file[name] for name in file.files})
