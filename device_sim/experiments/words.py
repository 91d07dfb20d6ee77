"""`words`: some frequent words are kept from the model; phones that type them help to find them, and the model grows.

Every tenth of the words that are frequent in public is taken out of the vocabulary. A search (`kbdfl.discovery`)
among the training phones looks for words that the model lacks, and the model goes on with what was found. Sums of
votes are played as they are under secure aggregation: the phones' noise is added at once, for Skellam noise of many
is Skellam noise.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments.data import Data, Part
from kbdfl.device_sim.experiments.report import Columns
from kbdfl.device_sim.experiments.settings import Federated, Setting, Trained
from kbdfl.device_sim.experiments.study import Study
from kbdfl.discovery import Search, SearchPlan, Voter, grow
from kbdfl.errors import DataError
from kbdfl.model.cifg import SPECIAL_TOKENS
from kbdfl.privacy.mechanisms import skellam
from kbdfl.rng import stream
from kbdfl.text import Vocabulary

FREQUENT, WITHHELD = 2_000, 10  # words of the public list that count as frequent; one in so many is kept back
MANY = 100  # users who type a word that a search should find
FEW = 20  # fewer than these, and a word that was found is none of many phones
NOISES = (1.0, 2.0)
DELTA = 1e-6
CANDIDATES, RATE = 1_000, 0.015
ALL, WITHOUT = "all words", "without a tenth"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Found(Trained):
    """A model with a vocabulary of its own; `facts` are of the search that it grew by, if it did."""

    vocabulary: Vocabulary
    facts: Mapping[str, float] = field(default_factory=dict)
    just_grown: np.ndarray | None = None

    def ask(self, params: np.ndarray, part: Part) -> dict[str, float]:
        return Trained.ask(self, params, part.known_to(self.vocabulary))

    def details(self, part: Part) -> dict[str, float]:
        """Of the search: words found, precision and recall, epsilon; and recall@1 before more rounds."""
        if self.just_grown is None:
            return {}
        return {**self.facts, "just_grown_top1": self.ask(self.just_grown, part)["recall_top1"]}


@dataclass(frozen=True, slots=True)
class Lacking:
    """Phones train a model that knows all words, or all but a tenth of the frequent ones; for `rounds` and `more`."""

    method: str
    value: str
    rounds: int
    more: int

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        """As `Setting.train`."""
        words = data.vocabulary.tokens[SPECIAL_TOKENS:]
        kept = words if self.method == ALL else without(words, seed=seed)
        own = knowing(data, kept)
        trained = federated(self.method, self.rounds + self.more).train(own, seed=seed, workers=workers)
        return trained.known_as(Found, vocabulary=own.vocabulary)


@dataclass(frozen=True, slots=True)
class Searching:
    """The same, without a tenth, for `rounds`; a search with this noise; `more` rounds of the model that grew."""

    noise: float
    rounds: int
    more: int

    @property
    def method(self) -> str:
        return f"found with noise {self.noise:g}"

    @property
    def value(self) -> str:
        return "-"

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        """As `Setting.train`."""
        started = time.perf_counter()
        words = data.vocabulary.tokens[SPECIAL_TOKENS:]
        own = knowing(data, without(words, seed=seed))
        begun = federated(self.method, self.rounds).train(own, seed=seed, workers=workers)
        phones = data.population.users
        plan = SearchPlan(noise_multiplier=self.noise, phones=max(1, 9 * len(phones) // 10))
        texts = {user: [message.text for message in data.population.log(user).messages] for user in phones}
        found = search(texts, own.vocabulary, plan)
        grown = grow(
            begun.models[0],
            begun.config,
            own.vocabulary,
            found,
            phones=len(phones),
            words_a_phone=_words_a_phone(texts, own.vocabulary),
            seed=seed,
        )
        later = replace(
            knowing(data, grown.vocabulary.tokens[SPECIAL_TOKENS:]),
            vocabulary=grown.vocabulary,
        )
        more = federated(self.method, self.more)
        trained = more.train(later, seed=seed, workers=workers, start=grown.params)
        facts = judged(found, texts, own.vocabulary, set(words) - set(own.vocabulary.tokens))
        facts |= {"epsilon": plan.epsilon(DELTA), "search_rounds": plan.rounds}
        facts["epsilon_ten_times_the_phones"] = replace(plan, noise_multiplier=10 * self.noise).epsilon(DELTA)
        whole = replace(trained, tokens=begun.tokens + trained.tokens, wall_s=time.perf_counter() - started)
        return whole.known_as(Found, vocabulary=grown.vocabulary, facts=facts, just_grown=grown.params)


def search(texts: Mapping[str, list[str]], vocabulary: Vocabulary, plan: SearchPlan) -> dict[str, int]:
    """The words that a search among these phones finds, word -> votes; `texts` are each one's messages."""
    voters = [Voter(messages, vocabulary, plan) for messages in texts.values()]
    looking = Search(plan)
    while (question := looking.question) is not None:
        total = skellam(plan.share * len(voters), question.places)
        for voter in voters:
            total[voter.places(question)] += 1
        looking.close(total, phones=len(voters))
    return looking.found


def judged(
    found: Mapping[str, int], texts: Mapping[str, list[str]], vocabulary: Vocabulary, withheld: set[str]
) -> dict[str, float]:
    """How good a search was, by the logs that nobody but this function reads.

    `precision` is the share of found words that at least FEW users typed and the model lacked, `recall` the share
    found of the `withheld` words that at least MANY typed. Raises DataError when there is no such word.
    """
    users = Counter(word for messages in texts.values() for word in set(_words(messages, vocabulary)))
    wanted = {word for word in withheld if users[word] >= MANY}
    if not wanted:
        raise DataError(f"no word that was withheld is typed by {MANY} of these {len(texts)} users")
    lacking = set(vocabulary.tokens)
    right = [word for word in found if users[word] >= FEW and word not in lacking]
    return {
        "found": len(found),
        "of_the_withheld": len(withheld & set(found)),
        "wanted": len(wanted),
        "precision": len(right) / len(found) if found else 0.0,
        "recall": len(wanted & set(found)) / len(wanted),
        "users": len(texts),
    }


def without(words: tuple[str, ...], *, seed: int) -> list[str]:
    """`words`, the most frequent first, but for one in WITHHELD of the first FREQUENT, drawn under `seed`."""
    frequent = min(FREQUENT, len(words))
    kept_back = stream(seed, "withheld").permutation(frequent)[: frequent // WITHHELD]
    return [word for place, word in enumerate(words) if place not in set(kept_back.tolist())]


def knowing(data: Data, words: list[str] | tuple[str, ...]) -> Data:
    """The same phones and the same questions, for a model that knows `words`."""
    vocabulary = Vocabulary.of_words(list(words), data.vocabulary.source)
    known = dict(zip(data.vocabulary.tokens[SPECIAL_TOKENS:], data.frequencies.tolist(), strict=True))
    # A word that was found has no public frequency. A model that goes on does not look at it.
    frequencies = np.array([known.get(word, min(known.values())) for word in words])
    return replace(
        data,
        vocabulary=vocabulary,
        frequencies=frequencies,
        validation=data.validation.known_to(vocabulary),
        held_out=data.held_out.known_to(vocabulary),
    )


def federated(method: str, rounds: int) -> Federated:
    """The training that all rows share."""
    algorithm = Algorithm(client=ClientRule(candidates=CANDIDATES), server=FedAdam(RATE, RATE / 10, rounds))
    return Federated(method, "-", algorithm, rounds, points=1)


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """A model with all words, one without a tenth, and one that finds them half-way; all for as many rounds."""
    first = max(1, rounds // 2)
    return [
        Lacking(ALL, "-", first, rounds - first or 1),
        Lacking(WITHOUT, "-", first, rounds - first or 1),
        *(Searching(noise, first, rounds - first or 1) for noise in (NOISES[:1] if quick else NOISES)),
    ]


def figures(study: Study) -> dict[str, Any]:
    """Of each search, the means over seeds of what `Found.details` says."""
    return {
        "searches": {
            method: {name: _mean(study, method, name) for name in study.of(method)[0].details}
            for method in study.methods
            if study.of(method)[0].details
        },
        "recall_gained": {
            method: study.mean(method) - study.mean(WITHOUT) for method in study.methods if method != WITHOUT
        },
    }


def columns(study: Study) -> Columns:
    """Words found, how many were right, and how many of those that many type."""
    searched = [method for method in study.methods if study.of(method)[0].details]
    forms = {
        "found": ("found", "{:.0f}"),
        "precision": ("precision", "{:.1%}"),
        "recall": (f"recall of words that {MANY} users type", "{:.1%}"),
        "epsilon": (f"epsilon at {DELTA:g}", "{:.1f}"),
        "just_grown_top1": ("top-1 as it grew", "{:.2%}"),
    }
    return {
        title: {method: form.format(_mean(study, method, name)) for method in searched}
        for name, (title, form) in forms.items()
    }


def _mean(study: Study, method: str, name: str) -> float:
    return float(np.mean([run.details[name] for run in study.of(method)]))


def _words(messages: list[str], vocabulary: Vocabulary) -> Iterator[str]:
    for text in messages:
        yield from vocabulary.split(text)


def _words_a_phone(texts: Mapping[str, list[str]], vocabulary: Vocabulary) -> float:
    """The mean length of a log in words: a figure that reports carry, or a guess."""
    return float(np.mean([sum(1 for _ in _words(messages, vocabulary)) for messages in texts.values()]))
