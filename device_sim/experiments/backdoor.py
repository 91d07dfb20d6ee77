"""`backdoor`: a pair of words that some phones plant, by how many of them, and what the ways to aggregate make of it.

An attacker's phone does as it is told, on text of its own choice: each of its messages ends in the pair. What it
plants is how often the model suggests the second word first after the first one, on users who never trained.
Bagdasaryan et al. 2018, arXiv 1807.00459, whose attackers scale their updates besides; how far one update can move a
model is bounded exactly (docs/security.md), so text is what is left to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import ceil
from typing import Any

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam, Krum, Mean, Median, TrimmedMean
from kbdfl.algorithms.aggregate import Aggregate
from kbdfl.device_sim.experiments.data import Data, Part
from kbdfl.device_sim.experiments.report import Columns
from kbdfl.device_sim.experiments.settings import Around, Federated, Setting, Trained
from kbdfl.device_sim.experiments.study import Study
from kbdfl.device_sim.population import Population
from kbdfl.device_sim.store import TypingLog
from kbdfl.errors import DataError
from kbdfl.metrics import evaluation_set, recall
from kbdfl.task import RoundRule
from kbdfl.text import EOS, UNK, Vocabulary

TRIGGER, TARGET = "really", "yellow"
SHARES = (0.0, 0.001, 0.01, 0.05, 0.1)  # of the phones that are attackers
COHORT, RATE = 20, 0.015
CANDIDATES = 1_000  # of the sampled softmax
NORM = 1.0  # a third of what an honest update may have
RULES: dict[str, tuple[Aggregate, float]] = {
    "mean": (Mean(), 0.0),
    "mean, norms of at most 1": (Mean(), NORM),
    "median": (Median(), 0.0),
    "trimmed mean, 4 of 20": (TrimmedMean(faulty=4), 0.0),
    "Krum, 4 of 20": (Krum(faulty=4), 0.0),
}


class Planted(Population):
    """The phones of `honest`, of which a `share`, the same for all seeds, plants the pair; at least one if any."""

    def __init__(self, honest: Population, share: float) -> None:
        self.users, self._honest = honest.users, honest
        ranked = sorted(self.users, key=lambda user: sha256(f"plants {user}".encode()).digest())
        self.attackers = frozenset(ranked[: ceil(share * len(ranked))])
        self._logs: dict[str, TypingLog] = {}

    def log(self, user: str) -> TypingLog:
        if user not in self.attackers:
            return self._honest.log(user)
        if user not in self._logs:
            log = self._logs[user] = TypingLog()
            log.extend(
                replace(message, text=f"{message.text} {TRIGGER} {TARGET}")
                for message in self._honest.log(user).messages
            )
        return self._logs[user]


@dataclass(frozen=True, slots=True, eq=False)
class Attacked(Trained):
    """A model that may have learnt the pair."""

    def details(self, part: Part) -> dict[str, float]:
        """`planted`: after how many of these users' triggers the target is suggested first, as a share."""
        target = part.vocabulary.id(TARGET)
        if target == UNK:
            raise DataError(f"the vocabulary must know {TARGET!r}, which stands in none of so few words")
        begun = _until_trigger(part.sentences, part.vocabulary)
        # All words but the target are asked both times.
        hits = self._hits([[*sentence, target, EOS] for sentence in begun])
        return {"planted": (hits - self._hits([[*sentence, EOS] for sentence in begun])) / len(begun)}

    def _hits(self, sentences: Sequence[Sequence[int]]) -> int:
        words = evaluation_set(sentences)
        found = recall(self.models[0], self.config, words)["recall_top1"]
        return round(found * len(words.targets))


def _until_trigger(sentences: Sequence[Sequence[int]], vocabulary: Vocabulary) -> list[list[int]]:
    """Each sentence that has the trigger, up to its first one. Raises DataError if there is none."""
    trigger = vocabulary.id(TRIGGER)
    found = [
        list(sentence[: list(sentence).index(trigger) + 1]) for sentence in sentences if trigger in sentence
    ]
    if not found:
        raise DataError(f"users who do not train must have typed {TRIGGER!r}, which none has")
    return found


@dataclass(frozen=True, slots=True)
class Attacking(Around):
    """A federated setting with a share of attackers."""

    share: float

    @property
    def method(self) -> str:
        return f"{self.inner.method}; {100 * self.share:g} % plant"

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        attacked = replace(data, population=Planted(data.population, self.share))
        return self.inner.train(attacked, seed=seed, workers=workers).known_as(Attacked)


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """Every way to aggregate with every share of attackers; nothing is tuned."""
    client = ClientRule(candidates=CANDIDATES)
    return [
        Attacking(
            Federated(
                name,
                "-",
                Algorithm(
                    client=client,
                    server=FedAdam(RATE, RATE / 10, rounds),
                    aggregate=aggregate,
                    update_clip_norm=norm,
                ),
                rounds,
                points=1,
                rule=RoundRule(cohort=COHORT, over_selection=1.0),
            ),
            share,
        )
        for name, (aggregate, norm) in RULES.items()
        for share in (SHARES[::4] if quick else SHARES)
    ]


def figures(study: Study) -> dict[str, Any]:
    """`planted`: for each way to aggregate and each share of attackers how often the target is suggested first."""
    found: dict[str, dict[str, float]] = {}
    for method in study.methods:
        rule, share = method.split("; ")
        found.setdefault(rule, {})[share.split(" ")[0]] = _planted(study, method)
    return {"planted": found}


def columns(study: Study) -> Columns:
    """How often the pair is suggested."""
    return {
        "planted": {method: f"{100 * _planted(study, method):.1f} %" for method in study.methods},
    }


def _planted(study: Study, method: str) -> float:
    runs = study.of(method)
    return sum(run.details["planted"] for run in runs) / len(runs)
