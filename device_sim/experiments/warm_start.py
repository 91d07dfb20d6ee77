"""`warm-start`: public text first, then the phones: what users who are new gain over counting the same phones' words.

The order of federated keyboards in production (Xu et al. 2023, arXiv 2305.18465): a model learned from public text
costs no privacy, and phones teach it what their users write. All rows know the same words, the public text's most
frequent ones, so no list of words is taken from phones.
"""

from dataclasses import dataclass
from functools import lru_cache

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments.baselines import BackOff
from kbdfl.device_sim.experiments.data import Data, Part
from kbdfl.device_sim.experiments.settings import Around, Central, Federated, Setting, Trained
from kbdfl.device_sim.experiments.study import Study, Tried, by_recall
from kbdfl.kernels.score import score
from kbdfl.model.cifg import SPECIAL_TOKENS

CANDIDATES = 1_000  # of the sampled softmax
SHARES = {"as often as it was typed": 0.0, "as much as the public text": 1.0, "four times as much": 4.0}
PUBLIC_RATE, PUBLIC_EPOCHS = 0.003, 2.0
WARM_RATES = (0.003, 0.006, 0.012)
COLD_RATES = (0.0075, 0.015, 0.03)


@dataclass(frozen=True, slots=True, eq=False)
class _Scored(Trained):
    """A model whose loss is measured too."""

    def details(self, part: Part) -> dict[str, float]:
        """Nats a known word."""
        (model,), words = self.models, part.words
        losses, _ = score(model, **self.config.dims, **words.arrays, first_word=SPECIAL_TOKENS)
        return {"nats": float(losses.sum()) / max(words.tokens, 1)}


@dataclass(frozen=True, slots=True)
class Scored(Around):
    """A setting whose model's loss chooses (`choose`)."""

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        """As `Setting.train`."""
        return self.inner.train(data, seed=seed, workers=workers).known_as(_Scored)


@dataclass(frozen=True, slots=True)
class FromPublic:
    """The model that `central` learned from public text, once for all settings; then `federated`, if any, goes on.

    If there are phones in it, tokens, seconds and learning curve are theirs alone.
    """

    method: str
    value: str
    central: Central
    federated: Federated | None = None

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        """As `Setting.train`."""
        public = on_public_text(self.central, data, seed, workers)
        if self.federated is None:
            return public
        return self.federated.train(data, seed=seed, workers=workers, start=public.models[0])


@lru_cache(maxsize=1)
def on_public_text(central: Central, data: Data, seed: int, workers: int) -> Trained:
    """What `central` learns, kept until another one is asked for."""
    return central.train(data, seed=seed, workers=workers)


def public_text(*, quick: bool) -> Central:
    """How a model learns from public text."""
    return Central("", "", PUBLIC_RATE, 0.1 if quick else PUBLIC_EPOCHS, public=True)


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """Two trigrams, the public model, and federated training without it and from it."""
    client, central = ClientRule(candidates=CANDIDATES), public_text(quick=quick)

    def federated(method: str, rate: float) -> Federated:
        server = FedAdam(rate, rate / 10, rounds)
        return Federated(method, f"server rate {rate:g}", Algorithm(client=client, server=server), rounds)

    return [
        BackOff("trigram", "of the training users"),
        *(
            BackOff("trigram, public text too", f"phones' text {name}", share)
            for name, share in SHARES.items()
        ),
        FromPublic("public model", f"{central.epochs:g} epochs, rate {PUBLIC_RATE:g}", central),
        *(Scored(federated("federated", rate)) for rate in COLD_RATES),
        *(
            Scored(FromPublic(warm.method, warm.value, central, warm))
            for warm in (federated("warm-started", rate) for rate in WARM_RATES)
        ),
    ]


def choose(tried: list[Tried]) -> dict[str, Tried]:
    """Of federated training the value with the least loss on validation users, of the others that with the best recall.

    These users may be a dozen, and some write what training users wrote: recall@1 then rewards what is known by heart.
    """
    best = by_recall(tried)
    for one in tried:
        if one.details and one.details["nats"] < best[one.method].details["nats"]:
            best[one.method] = one
    return best


def figures(study: Study) -> dict[str, float]:
    """Recall@1 on held-out users over that of the training users' trigram, minus 1; and over the other rows."""
    warm = study.mean("warm-started")
    return {
        "relative_gain": warm / study.mean("trigram") - 1,
        "over_trigram_with_public_text": warm / study.mean("trigram, public text too") - 1,
        "over_public_model": warm / study.mean("public model") - 1,
        "over_federated": warm / study.mean("federated") - 1,
    }
