"""`heterogeneity`: FedAvg, FedProx and SCAFFOLD where phones differ in text and in speed.

Twice on the same messages: as their users wrote them, and dealt anew so that a phone holds messages of one topic. Slow
phones miss the deadline; FedProx takes the part of their work that they can do in time (Li et al. 2018, arXiv
1812.06127, section 5.2), the others drop them. All softmaxes are exact, for SCAFFOLD needs that.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from kbdfl.algorithms import Algorithm, ClientRule, FedAvg
from kbdfl.device_sim.experiments.data import Data, Selected
from kbdfl.device_sim.experiments.settings import Around, Federated, Setting, Trained
from kbdfl.device_sim.experiments.study import Study
from kbdfl.device_sim.experiments.topics import EVERYTHING, Regrouped, find_topics
from kbdfl.device_sim.population import Population
from kbdfl.errors import DataError
from kbdfl.rng import stream
from kbdfl.task import RoundRule
from kbdfl.text import Vocabulary

PHONES = 100  # so few that each takes part several times, or SCAFFOLD would correct nobody's steps
FEWEST = 50  # messages of a phone that takes part
TOPICS = 10
SPLIT_SEED = 0  # phones and their messages are the same in all runs
REGIMES = ("natural users", "by topic")
RULES = ("fedavg", "fedprox", "scaffold")
RATES = (5.0, 10.0, 20.0)  # of the local steps of FedAvg and SCAFFOLD, with gradients clipped to norm 1
PROXIMAL = (0.0, 0.001, 0.01)  # FedProx's mu, at the middle one of these rates
ROUNDS = RoundRule(cohort=10, over_selection=1.0, min_reports=1, deadline_s=4.0)


def natural(data: Data) -> Population:
    """PHONES phones of those with FEWEST messages or more, drawn at random. Raises DataError when they are too few."""
    users = [user for user in data.population.users if len(data.population.log(user)) >= FEWEST]
    if len(users) < ROUNDS.cohort:
        raise DataError(
            f"at least {ROUNDS.cohort} training users must have {FEWEST} messages, got {len(users)}"
        )
    drawn = stream(SPLIT_SEED, "heterogeneity").permutation(len(users))[:PHONES]
    return Population(Selected(data.held_out.source, tuple(users[i] for i in drawn)))


def by_topic(phones: Population, vocabulary: Vocabulary) -> Population:
    """The same messages on as many phones of the same sizes, dealt topic by topic: hardly a phone holds two topics."""
    messages = [message for user in phones.users for message in phones.log(user).messages]
    sentences = vocabulary.encode_many(message.text for message in messages)
    _, topics = find_topics(sentences, TOPICS, vocabulary_size=len(vocabulary), seed=SPLIT_SEED)
    random = stream(SPLIT_SEED, "phones by topic")
    order = np.lexsort((random.random(len(messages)), topics))
    ends = np.cumsum([len(phones.log(user)) for user in phones.users])
    dealt = np.split(order, ends[:-1])
    logs = {user: [messages[i] for i in mine] for user, mine in zip(phones.users, dealt, strict=True)}
    return Population(Regrouped(logs), retention=EVERYTHING)


@lru_cache(maxsize=1)
def _phones(data: Data) -> dict[str, Population]:
    found = natural(data)
    return dict(zip(REGIMES, (found, by_topic(found, data.held_out.vocabulary)), strict=True))


@dataclass(frozen=True, slots=True)
class Split(Around):
    """A federated setting on the phones of one regime."""

    regime: str

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        phones = _phones(data)[self.regime]
        return self.inner.train(replace(data, population=phones), seed=seed, workers=workers)


def method(rule: str, regime: str) -> str:
    """The row of a table."""
    return f"{rule}, {regime}"


def grid(rule: str, rounds: int) -> list[tuple[str, ClientRule]]:
    """The values that are tried of a rule; every rate falls to a tenth over the rounds."""

    def client(rate: float, **options: Any) -> ClientRule:
        return ClientRule(learning_rate=rate, final_learning_rate=rate / 10, decay_rounds=rounds, **options)

    if rule == "fedprox":
        return [(f"mu {mu:g}", client(RATES[1], proximal=mu, partial_work=True)) for mu in PROXIMAL]
    option = 2 if rule == "scaffold" else 0
    return [(f"client rate {rate:g}", client(rate, scaffold=option)) for rate in RATES]


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """Every rule at every value of its grid, on both kinds of phones."""
    return [
        Split(
            Federated(
                method(rule, regime),
                value,
                Algorithm(client=client, server=FedAvg()),
                rounds,
                rule=ROUNDS,
                speeds="heavy-tailed",
            ),
            regime,
        )
        for regime in REGIMES
        for rule in RULES
        for value, client in grid(rule, rounds)
    ]


def figures(study: Study) -> dict[str, float]:
    """Points of recall@1 above FedAvg on the same phones, and what each rule loses from one kind to the other."""
    mean = {(rule, regime): 100 * study.mean(method(rule, regime)) for rule in RULES for regime in REGIMES}
    users, topics = REGIMES
    above = {
        f"{rule}_over_fedavg_{regime.replace(' ', '_')}": mean[rule, regime] - mean["fedavg", regime]
        for regime in REGIMES
        for rule in RULES
        if rule != "fedavg"
    }
    return above | {f"{rule}_lost_by_topic": mean[rule, users] - mean[rule, topics] for rule in RULES}
