"""`personalise`: what a phone gains by training the shared model a little more on its own earlier messages.

Local fine-tuning, the plainest personalisation (Wang et al. 2019, arXiv 1910.10252): nothing of it leaves the phone.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import islice

import numpy as np

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments.data import Data, Part
from kbdfl.device_sim.experiments.settings import Federated, Setting, Trained
from kbdfl.device_sim.experiments.study import Study
from kbdfl.engines import ThreadEngine
from kbdfl.errors import DataError
from kbdfl.kernels.train import local_sgd
from kbdfl.metrics import evaluation_set, recall
from kbdfl.rng import stream
from kbdfl.text import training_batches

CANDIDATES = 1_000  # of the sampled softmax
SHARED_RATE = 0.015
RATES = (0.03, 0.1, 0.3, 1.0)
EPOCHS = 3
EARLIER = 0.7  # of a user's messages
FEWEST = 20  # messages of a user who is asked


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Tuned(Trained):
    """A shared model that each user who is asked first trains on their own earlier messages; epochs 0: as it came."""

    setting: "FineTuned"
    seed: int
    workers: int

    def recall(self, part: Part) -> dict[str, float]:
        """On the users' later messages: the share of all their words together."""

        def ask(sentences: list[list[int]]) -> tuple[dict[str, float], int]:
            cut = round(EARLIER * len(sentences))
            later = evaluation_set(sentences[cut:])
            return recall(self._tuned(sentences[:cut]), self.config, later), len(later.inputs)

        logs = (part.log(user) for user in part.users)
        chosen = list(islice((log for log in logs if len(log) >= FEWEST), self.setting.users))
        if not chosen:
            raise DataError(
                f"no user outside training has {FEWEST} messages, so none has earlier and later ones"
            )
        with ThreadEngine(self.workers) as engine:
            found, words = zip(*engine.map(ask, chosen), strict=True)
        return {name: float(np.average([one[name] for one in found], weights=words)) for name in found[0]}

    def _tuned(self, earlier: list[list[int]]) -> np.ndarray:
        (shared,), epochs = self.models, self.setting.epochs
        if not epochs:
            return shared
        rule = ClientRule()
        batches = training_batches(
            earlier,
            batch_size=rule.batch_size,
            epochs=epochs,
            max_words=rule.max_words,
            random=stream(self.seed, "personal"),
        )
        delta, _, _, _ = local_sgd(
            shared,
            **self.config.dims,
            **batches.arrays,
            learning_rate=self.setting.learning_rate,
            clip_norm=rule.clip_norm,
        )
        return shared + delta


@dataclass(frozen=True, slots=True)
class FineTuned:
    """`shared` is trained first, once for all settings that have it in common; then each user's phone fine-tunes."""

    method: str
    value: str
    shared: Federated
    learning_rate: float
    epochs: int
    users: int

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        trained = _shared(self.shared, data, seed, workers)
        kept = {field.name: getattr(trained, field.name) for field in fields(Trained)}
        return _Tuned(**kept, setting=self, seed=seed, workers=workers)


@lru_cache(maxsize=1)
def _shared(setting: Federated, data: Data, seed: int, workers: int) -> Trained:
    return setting.train(data, seed=seed, workers=workers)


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """The shared model as it comes, and fine-tuned at every rate."""
    algorithm = Algorithm(
        client=ClientRule(candidates=CANDIDATES), server=FedAdam(SHARED_RATE, SHARED_RATE / 10, rounds)
    )
    shared, users = Federated("shared", "", algorithm, rounds), 30 if quick else 150
    return [
        FineTuned("shared model", f"server rate {SHARED_RATE:g}", shared, 1.0, 0, users),
        *(
            FineTuned("fine-tuned", f"{EPOCHS} epochs, rate {rate:g}", shared, rate, EPOCHS, users)
            for rate in RATES
        ),
    ]


def figures(study: Study) -> dict[str, float]:
    """How much recall@1 on later messages gains by fine-tuning, as a share of the shared model's."""
    return {"relative_gain": study.mean("fine-tuned") / study.mean("shared model") - 1}
