"""Secrets that some phones type again and again, and what a model that learns from them gives away of these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kbdfl.algorithms.client import ClientRule
from kbdfl.audit.exposure import chance_of, draw_canaries, exposure, null_limit
from kbdfl.audit.mechanism import Mechanism
from kbdfl.errors import ConfigError
from kbdfl.kernels.train import Workspace, local_sgd
from kbdfl.model import CifgConfig
from kbdfl.rng import stream
from kbdfl.text import training_batches

CONFIDENCE = 0.999  # that secrets which were never seen stay below the null's limit
POWER_BITS = 10.0  # exposure that a training without protection must reach for the test to mean anything


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """A small training with secrets in it.

    canaries    phones that type nothing but their secret, `copies` times, and take part in every round
    others      phones beside them in a round, drawn anew from those there are
    rounds      of federated averaging
    client      local training
    """

    canaries: int = 8
    copies: int = 200
    others: int = 30
    rounds: int = 60
    client: ClientRule = ClientRule(learning_rate=3.0)

    def __post_init__(self) -> None:
        for name in ("canaries", "copies", "others", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")

    @property
    def cohort(self) -> int:
        """Phones of a round."""
        return self.canaries + self.others


@dataclass(frozen=True, slots=True, eq=False)
class Exposed:
    """What a training gave away: bits of each secret, of `bits` that it has; and the model, float32 (P,)."""

    exposures: tuple[float, ...]
    bits: float
    params: np.ndarray

    @property
    def mean(self) -> float:
        """Bits."""
        return float(np.mean(self.exposures))

    @property
    def chance(self) -> float:
        """How likely secrets that were never seen look as exposed."""
        return chance_of(self.exposures)

    @property
    def limit(self) -> float:
        """The mean that secrets which were never seen stay below with CONFIDENCE."""
        return null_limit(len(self.exposures), confidence=CONFIDENCE)


Release = Callable[[np.ndarray, int], np.ndarray]


def plain_mean(updates: np.ndarray, round: int) -> np.ndarray:
    """The mean of `updates` float32 (n, P), with no protection."""
    return updates.mean(0, dtype=np.float64)


def protected(mechanism: Mechanism) -> Release:
    """What `mechanism` releases."""
    return lambda updates, round: mechanism.release(updates, round=round)


def plant(
    logs: Sequence[Sequence[Sequence[int]]],
    params: np.ndarray,
    config: CifgConfig,
    *,
    plan: CanaryPlan,
    release: Release,
    seed: int,
) -> Exposed:
    """Train from `params` float32 (P,) on `logs`, the others' token ids, and on secrets; then rank these."""
    canaries = draw_canaries(config.vocab, count=plan.canaries, seed=seed)
    random, workspace = stream(seed, "audit", "canary"), Workspace()
    for number in range(plan.rounds):
        chosen = random.choice(len(logs), plan.others, replace=len(logs) < plan.others)
        typed = [[canary.sentence] * plan.copies for canary in canaries] + [logs[i] for i in chosen]
        updates = [_local_update(one, params, config, plan.client, random, workspace) for one in typed]
        params = (params + release(np.array(updates), number)).astype(np.float32)
    return Exposed(tuple(exposure(params, config, canary) for canary in canaries), canaries[0].bits, params)


def local_updates(
    logs: Sequence[Sequence[Sequence[int]]],
    params: np.ndarray,
    config: CifgConfig,
    client: ClientRule,
    *,
    seed: int,
) -> list[np.ndarray]:
    """What training from `params` float32 (P,) changes on each of these phones, float32 (P,)."""
    random, workspace = stream(seed, "audit", "updates"), Workspace()
    return [_local_update(log, params, config, client, random, workspace) for log in logs]


def _local_update(
    sentences: Sequence[Sequence[int]],
    params: np.ndarray,
    config: CifgConfig,
    client: ClientRule,
    random: np.random.Generator,
    workspace: Workspace,
) -> np.ndarray:
    """What a phone's training changes, float32 (P,), on at most `client.max_messages` of its messages."""
    if len(sentences) > client.max_messages:
        sentences = [sentences[i] for i in random.choice(len(sentences), client.max_messages, replace=False)]
    batches = training_batches(
        sentences,
        batch_size=client.batch_size,
        epochs=client.epochs,
        max_words=client.max_words,
        random=random,
    )
    delta, *_ = local_sgd(
        params,
        **config.dims,
        **batches.arrays,
        learning_rate=client.learning_rate,
        clip_norm=client.clip_norm,
        workspace=workspace,
    )
    return delta
