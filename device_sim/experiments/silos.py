"""`silos`: eight organisations, each with its own language: what a joint model gives that none has alone.

An organisation is not a phone: it holds many users' messages and takes part in every round. The question is that of
EXAM, a joint model of twenty hospitals (Dayan et al. 2021, Nature Medicine 27), asked of next words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain

import numpy as np

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments.data import Data, Part, Selected
from kbdfl.device_sim.experiments.report import Columns
from kbdfl.device_sim.experiments.settings import Around, Central, Federated, Point, Setting, Trained
from kbdfl.device_sim.experiments.study import Study, Tried, best_by
from kbdfl.device_sim.experiments.topics import EVERYTHING, Regrouped, Topics, find_topics
from kbdfl.device_sim.population import Population, drawn_sentences
from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import DataError
from kbdfl.metrics import evaluation_set, recall
from kbdfl.task import RoundRule
from kbdfl.text import PackedBatches

# Under these names all of them train: none has the hash of a held-out one.
NAMES = tuple(f"organisation {number}" for number in range(1, 9))
SPLIT_SEED = 0  # the organisations are the same in all runs, as are the words that are asked
JOINT = "joint"
MESSAGES = 128  # of an organisation in a round, some 1,200 words: many short rounds learn more than few long
CANDIDATES = 1_000  # of the sampled softmax
JOINT_RATES = (0.015, 0.03, 0.06)
RATES_ALONE = (0.004, 0.006, 0.009)  # at 0.012 some seeds of some organisations come to nothing
EPOCHS_ALONE, BATCH_ALONE = 3.0, 16  # smaller batches than of all phones' text: there is less of it


def alone(name: str) -> str:
    """The method that is an organisation's own model."""
    return f"{name} alone"


@dataclass(frozen=True, slots=True, eq=False)
class Silos:
    """The organisations' messages, and what is asked of them: in each part words of every organisation's users."""

    source: Regrouped
    asked: dict[Part, list[PackedBatches]]

    def population(self, names: Sequence[str] = NAMES) -> Population:
        """A phone for each of these organisations, which forgets nothing."""
        return Population(Selected(self.source, tuple(names)), retention=EVERYTHING)


@lru_cache(maxsize=1)
def silos(data: Data) -> Silos:
    """The users grouped by the topic of their messages; found on training users, the others go to the nearest.

    An organisation holds what its users' phones keep. Raises DataError when one has no users of a part.
    """
    phones, vocabulary = data.population, data.held_out.vocabulary
    documents = [list(chain(*phones.log(user).sentences(vocabulary))) for user in phones.users]
    topics, found = find_topics(documents, len(NAMES), vocabulary_size=len(vocabulary), seed=SPLIT_SEED)
    logs: dict[str, list[Message]] = {name: [] for name in NAMES}
    for user, topic in zip(phones.users, found, strict=True):
        logs[NAMES[topic]] += phones.log(user).messages
    return Silos(Regrouped(logs), {part: _asked(part, topics) for part in (data.validation, data.held_out)})


def _asked(part: Part, topics: Topics) -> list[PackedBatches]:
    """For each organisation words of its users in this part, an eighth of the part's at most."""
    found = topics.nearest([list(chain(*part.log(user))) for user in part.users])
    asked = []
    for topic, name in enumerate(NAMES):
        users = [part.users[i] for i in np.flatnonzero(found == topic).tolist()]
        if not users:
            raise DataError(f"{name} of {len(NAMES)} has no users for validation or none held out")
        words = len(part.words.inputs) // len(NAMES)
        sentences = drawn_sentences(part.source, users, part.vocabulary, words=words, seed=SPLIT_SEED)
        asked.append(evaluation_set(sentences))
    return asked


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Judged(Trained):
    """A model that is asked by every organisation's users; an organisation counts as much as any other."""

    silos: Silos

    def ask(self, params: np.ndarray, part: Part) -> dict[str, float]:
        found = [recall(params, self.config, words) for words in self.silos.asked[part]]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    def details(self, part: Part) -> dict[str, float]:
        """Recall@1 by organisation."""
        (model,), asked = self.models, self.silos.asked[part]
        return {
            name: recall(model, self.config, words)["recall_top1"]
            for name, words in zip(NAMES, asked, strict=True)
        }


@dataclass(frozen=True, slots=True)
class Shared(Around):
    """One model of the organisations `names`; the validation users of these say where it should have stopped."""

    names: tuple[str, ...]

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        found = silos(data)
        theirs = replace(data, population=found.population(self.names))
        trained = self.inner.train(theirs, seed=seed, workers=workers)
        asked = [found.asked[data.validation][NAMES.index(name)] for name in self.names]

        def own_recall(point: Point) -> float:
            return float(
                np.mean([recall(point.params, trained.config, words)["recall_top1"] for words in asked])
            )

        best = max(trained.points, key=own_recall)
        return trained.known_as(_Judged, models=(best.params,), silos=found)


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """The joint model at every server rate, and every organisation's own at every rate of its own."""
    client = ClientRule(candidates=CANDIDATES, max_messages=MESSAGES)
    rule = RoundRule(cohort=len(NAMES), over_selection=1.0)
    joint: list[Setting] = []
    for rate in JOINT_RATES:
        algorithm = Algorithm(client=client, server=FedAdam(rate, rate / 10, rounds))
        joint.append(Shared(Federated(JOINT, f"server rate {rate:g}", algorithm, rounds, rule=rule), NAMES))
    epochs, rates = (0.5, RATES_ALONE[1:2]) if quick else (EPOCHS_ALONE, RATES_ALONE)
    return joint + [
        Shared(Central(alone(name), f"rate {rate:g}", rate, epochs, batch_size=BATCH_ALONE), (name,))
        for name in NAMES
        for rate in rates
    ]


def choose(tried: list[Tried]) -> dict[str, Tried]:
    """Every organisation's best on its own validation users, the joint model's on those of all."""
    own = {alone(name): name for name in NAMES}
    return best_by(tried, lambda one: one.details[own[one.method]] if one.method in own else one.recall_top1)


def _on_own(study: Study, method: str, name: str) -> float:
    """A method's recall@1 on one organisation's held-out users, the mean over seeds."""
    return float(np.mean([run.details[name] for run in study.of(method)]))


def figures(study: Study) -> dict[str, float]:
    """What the joint model's recall@1 is above that of single ones, as a share of theirs.

    Over their mean and over the best of them, each asked by all organisations' held-out users alike; and over each
    organisation's own model on its own users.
    """
    joint, single = study.mean(JOINT), [study.mean(alone(name)) for name in NAMES]
    own = [_on_own(study, alone(name), name) for name in NAMES]
    there = [_on_own(study, JOINT, name) for name in NAMES]
    return {
        "gain_over_mean": joint / float(np.mean(single)) - 1,
        "gain_over_best": joint / max(single) - 1,
        "gain_over_own": float(np.mean(there) / np.mean(own)) - 1,
        "organisations_that_gain": sum(a > b for a, b in zip(there, own, strict=True)),
    }


def columns(study: Study) -> Columns:
    """Each organisation's own model on its own held-out users, and the joint one there."""
    return {
        "on its own users": {alone(name): f"{100 * _on_own(study, alone(name), name):.2f}" for name in NAMES},
        "joint there": {alone(name): f"{100 * _on_own(study, JOINT, name):.2f}" for name in NAMES},
    }
