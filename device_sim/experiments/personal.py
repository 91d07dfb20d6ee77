"""`personalise`: what a phone gains by making the shared model its own, on what its user writes later.

Phones train the shared model on their earlier messages alone, so that nobody's later messages have taught anything.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import chain, islice

import numpy as np

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments.data import Data, Part, Selected
from kbdfl.device_sim.experiments.settings import Federated, Setting, Trained
from kbdfl.device_sim.experiments.study import Study
from kbdfl.device_sim.experiments.warm_start import FromPublic, public_text
from kbdfl.device_sim.personal import Ditto, FineTune, OutputBias, Rule, personalise
from kbdfl.device_sim.population import Population
from kbdfl.device_sim.store import TypingLog
from kbdfl.device_sim.typing.records import Message
from kbdfl.device_sim.typing.sources import Source
from kbdfl.engines import ThreadEngine
from kbdfl.errors import DataError
from kbdfl.metrics import evaluation_set, recall

CANDIDATES = 1_000  # of the sampled softmax
SHARED_RATE, WARM_RATE = 0.015, 0.006  # of a fresh model, and of one that has learned from public text
EARLIER = 0.7  # of the messages that a phone keeps
FEWEST = 20  # messages of a user who is asked
SHARED = "shared model"
GRIDS: dict[str, tuple[FineTune | Ditto | OutputBias, ...]] = {
    "fine-tuned": tuple(FineTune(rate, 3) for rate in (0.05, 0.1, 0.2, 0.4)),
    "Ditto": tuple(Ditto(0.2, 5, pull) for pull in (0.01, 0.03, 0.1)),
    "private output bias": tuple(OutputBias(prior) for prior in (3.0, 10.0, 30.0)),
}


@dataclass(frozen=True, slots=True)
class Earlier:
    """A source without anyone's later messages."""

    source: Source

    @property
    def name(self) -> str:
        return self.source.name

    def users(self) -> Sequence[str]:
        return self.source.users()

    def messages(self, user: str, *, keystrokes: bool = False) -> list[Message]:
        """The earlier ones of those that a phone keeps."""
        log = TypingLog()
        log.extend(self.source.messages(user, keystrokes=keystrokes))
        return list(log.messages[: round(EARLIER * len(log))])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Personal(Trained):
    """A shared model that each user who is asked first makes their own."""

    setting: "Personal"
    data: Data
    seed: int
    workers: int

    def recall(self, part: Part) -> dict[str, float]:
        """On the users' later messages: the share of all their words together."""
        asked = _asked(self, part)
        words = [one.words for one in asked]
        return {
            name: float(np.average([one.own[name] for one in asked], weights=words)) for name in asked[0].own
        }

    def details(self, part: Part) -> dict[str, float]:
        """How many users were asked, and which share of them has a lower, and a higher, recall@1 than before."""
        asked = _asked(self, part)
        gains = np.array([one.own["recall_top1"] - one.shared["recall_top1"] for one in asked])
        return {"users": len(asked), "worse": float((gains < 0).mean()), "better": float((gains > 0).mean())}

    def answer(self, earlier: list[list[int]], later: list[list[int]]) -> "_Answer":
        """One user's phone learns from the earlier messages and is asked for the later ones."""
        (shared,), rule = self.models, self.setting.rule
        own = shared if rule is None else personalise(shared, self.config, earlier, rule, seed=self.seed)
        words = evaluation_set(later)
        before = recall(shared, self.config, words)
        after = before if own is shared else recall(own, self.config, words)
        return _Answer(before, after, len(words.inputs))


@dataclass(frozen=True, slots=True)
class _Answer:
    """Recall on one user's later `words`, by the shared model and by their own."""

    shared: dict[str, float]
    own: dict[str, float]
    words: int


@lru_cache(maxsize=1)
def _asked(personal: _Personal, part: Part) -> list[_Answer]:
    """Held-out users come first and training users, whose later messages taught nothing either, behind them."""
    data = personal.data
    users = chain(part.users, data.population.users if part is data.held_out else ())
    before = replace(part, source=Earlier(part.source))
    logs = ((before.log(user), part.log(user)) for user in users)
    halves = ((earlier, log[len(earlier) :]) for earlier, log in logs if len(log) >= FEWEST)
    chosen = list(islice((half for half in halves if all(half)), personal.setting.users))
    if not chosen:
        raise DataError(f"no user outside training has {FEWEST} messages, so none has earlier and later ones")
    with ThreadEngine(personal.workers) as engine:
        return list(engine.map(lambda half: personal.answer(*half), chosen))


@dataclass(frozen=True, slots=True)
class Personal:
    """The shared model, after so many `rounds`, made each user's own by `rule`; None: as it came."""

    method: str
    value: str
    rule: Rule | None
    rounds: int
    quick: bool

    @property
    def users(self) -> int:
        """How many are asked at most."""
        return 30 if self.quick else 150

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        """Tokens, seconds and learning curve are the shared model's."""
        trained = _shared(self.rounds, self.quick, data, seed, workers)
        return trained.known_as(_Personal, setting=self, data=data, seed=seed, workers=workers)


@lru_cache(maxsize=1)
def _shared(rounds: int, quick: bool, data: Data, seed: int, workers: int) -> Trained:
    """The model that phones learn from their earlier messages, after the public text if there is any."""
    phones = Selected(Earlier(data.held_out.source), tuple(data.population.users))
    rate = SHARED_RATE if data.public is None else WARM_RATE
    algorithm = Algorithm(client=ClientRule(candidates=CANDIDATES), server=FedAdam(rate, rate / 10, rounds))
    federated = Federated(SHARED, "", algorithm, rounds)
    shared: Setting = federated
    if data.public is not None:
        shared = FromPublic(SHARED, "", public_text(quick=quick), federated)
    return shared.train(replace(data, population=Population(phones)), seed=seed, workers=workers)


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """The shared model as it came, and each rule at all values of its grid."""
    return [
        Personal(SHARED, "as it came", None, rounds, quick),
        *(
            Personal(
                method,
                ", ".join(f"{name} {value:g}" for name, value in asdict(rule).items()),
                rule,
                rounds,
                quick,
            )
            for method, grid in GRIDS.items()
            for rule in grid
        ),
    ]


def figures(study: Study) -> dict[str, float]:
    """Recall@1 on later messages over the shared model's, minus 1: of every rule, and of that which is chosen.

    Chosen is the best on validation users; `users_worse` is the share of users with a lower recall@1 than before.
    """
    before = study.mean(SHARED)
    gains = {method: study.mean(method) / before - 1 for method in GRIDS}
    best = max(
        (one for one in study.tried if one.chosen and one.method in GRIDS), key=lambda one: one.recall_top1
    )
    worse = [run.details["worse"] for run in study.of(best.method)]
    named = {
        f"relative_gain_{method.lower().replace(' ', '_').replace('-', '_')}": gain
        for method, gain in gains.items()
    }
    return {"relative_gain": gains[best.method], **named, "users_worse": sum(worse) / len(worse)}
