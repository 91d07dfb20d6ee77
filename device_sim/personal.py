"""The phone's own model: the shared one, moved a little towards what its user writes. None of it leaves the phone.

Three ways, each a frozen rule, for `personalise`:

    FineTune    a few epochs more (Wang et al. 2019, arXiv 1910.10252)
    Ditto       the same with a pull back to the shared model (Li et al. 2020, arXiv 2012.04221)
    OutputBias  the shared model with a private output bias: how often the user writes each word (partial
                personalisation: Arivazhagan et al. 2019, arXiv 1912.00818; Pillutla et al. 2022, arXiv 2204.03809)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kbdfl.algorithms import ClientRule
from kbdfl.device_sim.runtime import has_known_word
from kbdfl.errors import ConfigError
from kbdfl.kernels.score import score
from kbdfl.kernels.train import gradient, local_sgd
from kbdfl.model import CifgConfig
from kbdfl.model.cifg import SPECIAL_TOKENS
from kbdfl.rng import stream
from kbdfl.text import pack, training_batches

CHECKED = 0.1  # of a phone's messages, the newest, check what the others taught
SHARED = ClientRule()  # as the shared model is trained, but for the rate and the epochs

Sentences = Sequence[Sequence[int]]


class Rule(Protocol):
    """A way to make a model one's own."""

    def tuned(self, shared: np.ndarray, config: CifgConfig, sentences: Sentences, *, seed: int) -> np.ndarray:
        """The phone's own parameters float32 (P,), from the shared ones, which stay as they are."""
        ...


@dataclass(frozen=True, slots=True)
class FineTune:
    """`epochs` passes of SGD from the shared model."""

    learning_rate: float = 0.1
    epochs: int = 3

    def __post_init__(self) -> None:
        _check_sgd(self)

    def tuned(self, shared: np.ndarray, config: CifgConfig, sentences: Sentences, *, seed: int) -> np.ndarray:
        """As `Rule.tuned`."""
        return _sgd(shared, config, sentences, self, seed=seed)


@dataclass(frozen=True, slots=True)
class Ditto:
    """SGD on the phone's own loss + pull/2 |v - w|^2, v its own model and w the shared one (equation 1, algorithm 1).

    In the paper w goes on learning from all phones meanwhile; here it has been learnt and stays as it is.
    """

    learning_rate: float = 0.1
    epochs: int = 10
    pull: float = 0.1

    def __post_init__(self) -> None:
        _check_sgd(self)
        if not 0 <= self.pull < float("inf"):
            raise ConfigError(f"pull must be >= 0 and finite, got {self.pull}")

    def tuned(self, shared: np.ndarray, config: CifgConfig, sentences: Sentences, *, seed: int) -> np.ndarray:
        """As `Rule.tuned`."""
        return _sgd(shared, config, sentences, self, seed=seed, pull=self.pull)


@dataclass(frozen=True, slots=True)
class OutputBias:
    """A private output bias: what a phone keeps beside the shared model is V floats.

    One step of iterative scaling, the dynamic marginals of Kneser, Peters and Klakow 1997, "Language model adaptation
    using dynamic marginals", Eurospeech:

        bias_w <- bias_w + log((typed_w + prior) / (expected_w + prior))

    The user typed the word w typed_w times; the shared model, given the words before, expected it expected_w times.
    There is no rate and no second pass, and the `prior` holds back who has typed little.
    """

    prior: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.prior < float("inf"):
            raise ConfigError(f"prior must be > 0 and finite, got {self.prior}")

    def tuned(self, shared: np.ndarray, config: CifgConfig, sentences: Sentences, *, seed: int) -> np.ndarray:
        """As `Rule.tuned`; nothing is drawn."""
        typed, surplus = np.zeros(config.vocab), np.zeros(config.vocab)
        for start in range(0, len(sentences), SHARED.batch_size):
            some = sentences[start : start + SHARED.batch_size]
            batch = pack([[sentence[: SHARED.max_words + 2] for sentence in some]])
            targets = batch.targets[batch.targets >= SPECIAL_TOKENS]
            if len(targets):
                slope, _ = gradient(
                    shared, **config.dims, inputs=batch.inputs, targets=batch.targets, active=batch.active
                )
                # The loss falls with the bias as fast as a word was typed more often than expected.
                surplus -= len(targets) * config.spec.views(slope)["bias"].astype(np.float64)
                typed += np.bincount(targets, minlength=config.vocab)
        expected = np.maximum(typed - surplus, 0)
        own = shared.copy()
        words = config.spec.views(own)["bias"][SPECIAL_TOKENS:]
        words += np.log((typed + self.prior) / (expected + self.prior))[SPECIAL_TOKENS:].astype(np.float32)
        return own


def personalise(
    shared: np.ndarray, config: CifgConfig, sentences: Sentences, rule: Rule, *, seed: int
) -> np.ndarray:
    """The phone's own parameters float32 (P,), learned by `rule` from its messages' token ids, oldest first.

    The newest tenth of the messages is kept apart at first. If what the others taught makes it no likelier, the
    phone keeps the shared model, `shared` itself; else it learns from all of them.
    """
    cut = len(sentences) - max(1, round(CHECKED * len(sentences)))
    older, newest = sentences[:cut], sentences[cut:]
    if not (has_known_word(older) and has_known_word(newest)):
        return shared
    own = rule.tuned(shared, config, older, seed=seed)
    if _loss(own, config, newest) < _loss(shared, config, newest):
        return rule.tuned(shared, config, sentences, seed=seed)
    return shared


def _sgd(
    shared: np.ndarray,
    config: CifgConfig,
    sentences: Sentences,
    rule: FineTune | Ditto,
    *,
    seed: int,
    pull: float = 0.0,
) -> np.ndarray:
    batches = training_batches(
        sentences,
        batch_size=SHARED.batch_size,
        epochs=rule.epochs,
        max_words=SHARED.max_words,
        random=stream(seed, "personal"),
    )
    delta, _, _, _ = local_sgd(
        shared,
        **config.dims,
        **batches.arrays,
        learning_rate=rule.learning_rate,
        clip_norm=SHARED.clip_norm,
        proximal=pull,
    )
    return shared + delta


def _loss(params: np.ndarray, config: CifgConfig, sentences: Sentences) -> float:
    """Nats of all known words together."""
    losses, _ = score(params, **config.dims, **pack([sentences]).arrays, first_word=SPECIAL_TOKENS)
    return float(losses.sum())


def _check_sgd(rule: FineTune | Ditto) -> None:
    """Raises ConfigError."""
    if rule.epochs < 1:
        raise ConfigError(f"epochs must be >= 1, got {rule.epochs}")
    if not 0 < rule.learning_rate < float("inf"):
        raise ConfigError(f"learning_rate must be > 0 and finite, got {rule.learning_rate}")
