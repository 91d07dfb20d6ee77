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

from kbdfl.device_sim.runtime import has_known_word
from kbdfl.errors import ConfigError
from kbdfl.kernels import reference
from kbdfl.kernels.score import score
from kbdfl.kernels.train import local_sgd
from kbdfl.model import CifgConfig
from kbdfl.model.cifg import SPECIAL_TOKENS
from kbdfl.rng import stream
from kbdfl.text import IGNORED, PackedBatches, pack, training_batches

CHECKED = 0.1  # of a phone's messages, the newest, check what the others taught
BATCH_SIZE, MAX_WORDS, CLIP_NORM = 16, 30, 1.0  # as the shared model is trained


class Rule(Protocol):
    """A way to make a model one's own, in `epochs` passes over the phone's messages."""

    @property
    def epochs(self) -> int: ...

    def tuned(self, shared: np.ndarray, config: CifgConfig, batches: PackedBatches) -> np.ndarray:
        """The phone's own parameters float32 (P,), from the shared ones, which stay as they are."""


@dataclass(frozen=True, slots=True)
class FineTune:
    """`epochs` passes of SGD from the shared model."""

    learning_rate: float = 0.1
    epochs: int = 3

    def __post_init__(self) -> None:
        _check(self)

    def tuned(self, shared: np.ndarray, config: CifgConfig, batches: PackedBatches) -> np.ndarray:
        """Float32 (P,)."""
        return _sgd(shared, config, batches, learning_rate=self.learning_rate, pull=0.0)


@dataclass(frozen=True, slots=True)
class Ditto:
    """SGD on the phone's own loss + pull/2 |v - w|^2, v its own model and w the shared one (equation 1, algorithm 1).

    In the paper w goes on learning from all phones meanwhile; here it has been learnt and stays as it is.
    """

    learning_rate: float = 0.3
    epochs: int = 5
    pull: float = 0.1

    def __post_init__(self) -> None:
        _check(self)

    def tuned(self, shared: np.ndarray, config: CifgConfig, batches: PackedBatches) -> np.ndarray:
        """Float32 (P,)."""
        return _sgd(shared, config, batches, learning_rate=self.learning_rate, pull=self.pull)


@dataclass(frozen=True, slots=True)
class OutputBias:
    """SGD on the output bias (V,) alone, with the same `pull`: what a phone keeps beside the shared model is V floats.

    The loss is convex in it. Without the pull the words that the user did not write would fall for ever.
    """

    learning_rate: float = 3.0
    epochs: int = 3
    pull: float = 0.003

    def __post_init__(self) -> None:
        _check(self)

    def tuned(self, shared: np.ndarray, config: CifgConfig, batches: PackedBatches) -> np.ndarray:
        """Float32 (P,), the shared ones but for the bias."""
        own = shared.copy()
        views = config.spec.views(own)
        bias, start = views["bias"], views["bias"].copy()
        rate, pull = np.float32(self.learning_rate), np.float32(self.pull)
        row = step = 0
        for steps in batches.steps:
            active = batches.active[step : step + steps]
            rows = slice(row, row + int(active.sum()))
            row, step = rows.stop, step + steps
            learned = batches.targets[rows] != IGNORED
            if not learned.any():
                continue
            outputs = reference.forward(views, batches.inputs[rows], active)["r"][learned]
            expected = np.exp(reference.log_softmax(outputs @ views["emb"].T + bias)).mean(0)
            typed = np.bincount(batches.targets[rows][learned], minlength=config.vocab) / learned.sum()
            bias -= rate * (expected - typed.astype(np.float32) + pull * (bias - start))
        return own


def personalise(
    shared: np.ndarray, config: CifgConfig, sentences: Sequence[Sequence[int]], rule: Rule, *, seed: int
) -> np.ndarray:
    """The phone's own parameters float32 (P,), learned by `rule` from its messages' token ids, oldest first.

    The newest tenth of the messages is kept apart at first. If what the others taught makes it no likelier, the
    phone keeps the shared model, `shared` itself; else it learns from all of them.
    """
    cut = len(sentences) - max(1, round(CHECKED * len(sentences)))
    older, newest = sentences[:cut], sentences[cut:]
    if not (has_known_word(older) and has_known_word(newest)):
        return shared
    check = pack([newest])

    def learned(taught: Sequence[Sequence[int]]) -> np.ndarray:
        batches = training_batches(
            taught,
            batch_size=BATCH_SIZE,
            epochs=rule.epochs,
            max_words=MAX_WORDS,
            random=stream(seed, "personal"),
        )
        return rule.tuned(shared, config, batches)

    if _loss(learned(older), config, check) < _loss(shared, config, check):
        return learned(sentences)
    return shared


def _sgd(
    shared: np.ndarray, config: CifgConfig, batches: PackedBatches, *, learning_rate: float, pull: float
) -> np.ndarray:
    delta, _, _, _ = local_sgd(
        shared,
        **config.dims,
        **batches.arrays,
        learning_rate=learning_rate,
        clip_norm=CLIP_NORM,
        proximal=pull,
    )
    return shared + delta


def _loss(params: np.ndarray, config: CifgConfig, batches: PackedBatches) -> float:
    """Nats over all words that are known."""
    losses, _ = score(params, **config.dims, **batches.arrays, first_word=SPECIAL_TOKENS)
    return float(losses.sum())


def _check(rule: FineTune | Ditto | OutputBias) -> None:
    """Raises ConfigError."""
    if rule.epochs < 1:
        raise ConfigError(f"epochs must be >= 1, got {rule.epochs}")
    if not 0 < rule.learning_rate < float("inf"):
        raise ConfigError(f"learning_rate must be > 0 and finite, got {rule.learning_rate}")
    pull = getattr(rule, "pull", 0.0)
    if not 0 <= pull < float("inf"):
        raise ConfigError(f"pull must be >= 0 and finite, got {pull}")
