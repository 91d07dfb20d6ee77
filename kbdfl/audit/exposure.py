"""How far a model gives away a secret that it was trained on: exposure (Carlini et al. 2019, arXiv 1802.08232).

A canary is a sentence with a secret drawn at random from a space R. Of all sentences that differ in the secret alone,
the model likes the one that it saw at some rank: exposure = log2 |R| - log2 rank. A model that never saw the secret
ranks it anywhere, so P(exposure >= x) = 2^-x: the null is known exactly, and no second model is needed for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, lgamma, log, log2

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.kernels.score import score
from kbdfl.model import CifgConfig
from kbdfl.model.cifg import SPECIAL_TOKENS
from kbdfl.rng import stream
from kbdfl.text import BOS, EOS, pack

CHOICES, PLACES = 16, 3  # words that a place of the secret may hold, and places: 12 bits
PREFIX = 2  # words before the secret
_BATCH = 1_024


@dataclass(frozen=True, slots=True)
class Canary:
    """Token ids: a `prefix`, the `secret` that follows it, and the `choices` that each of its places had."""

    prefix: tuple[int, ...]
    secret: tuple[int, ...]
    choices: tuple[int, ...]

    @property
    def sentence(self) -> list[int]:
        """As a phone types it: <bos>, the words, <eos>."""
        return [BOS, *self.prefix, *self.secret, EOS]

    @property
    def bits(self) -> float:
        """log2 |R|."""
        return len(self.secret) * log2(len(self.choices))


def draw_canaries(vocab: int, *, count: int, seed: int) -> list[Canary]:
    """`count` canaries of words from a vocabulary of `vocab` tokens, no word in two of them. Raises ConfigError."""
    needed = count * (PREFIX + CHOICES)
    if not 0 < needed <= vocab - SPECIAL_TOKENS:
        raise ConfigError(
            f"canaries must number 1 to {(vocab - SPECIAL_TOKENS) // (PREFIX + CHOICES)}, got {count}"
        )
    random = stream(seed, "canaries")
    words = (SPECIAL_TOKENS + random.permutation(vocab - SPECIAL_TOKENS)[:needed]).tolist()
    found = []
    for start in range(0, needed, PREFIX + CHOICES):
        prefix, choices = words[start : start + PREFIX], words[start + PREFIX : start + PREFIX + CHOICES]
        secret = [choices[i] for i in random.integers(CHOICES, size=PLACES)]
        found.append(Canary(tuple(prefix), tuple(secret), tuple(choices)))
    return found


def exposure(params: np.ndarray, config: CifgConfig, canary: Canary) -> float:
    """Bits, from 0 to `canary.bits`; `params` float32 (P,). Secrets that the model likes alike rank at their mean."""
    secrets = list(product(canary.choices, repeat=len(canary.secret)))
    loss = _losses(
        params, config, [[BOS, *canary.prefix, *secret, EOS] for secret in secrets], len(canary.secret)
    )
    own = loss[secrets.index(canary.secret)]
    rank = int((loss < own).sum()) + (int((loss == own).sum()) + 1) / 2
    return canary.bits - log2(rank)


def _losses(params: np.ndarray, config: CifgConfig, sentences: Sequence[list[int]], last: int) -> np.ndarray:
    """Nats of the `last` words of each sentence, float64 (n,); all sentences are of one length."""
    found = []
    for start in range(0, len(sentences), _BATCH):
        batch = sentences[start : start + _BATCH]
        loss, _ = score(params, **config.dims, **pack([batch]).arrays, first_word=SPECIAL_TOKENS)
        found.append(loss.reshape(-1, len(batch))[-last:].sum(0, dtype=np.float64))
    return np.concatenate(found)


def chance_of(exposures: Sequence[float]) -> float:
    """How likely secrets that were never seen have exposures whose sum is this large (Fisher 1925).

    An exposure x has P = 2^-x under the null, so ln 2 times the sum of m of them follows Gamma(m, 1).
    """
    total = log(2) * sum(exposures)
    if total <= 0:
        return 1.0
    terms = (exp(k * log(total) - lgamma(k + 1) - total) for k in range(len(exposures)))
    return min(1.0, sum(terms))


def null_limit(count: int, *, confidence: float) -> float:
    """The mean exposure of `count` secrets that were never seen stays below this with probability `confidence`."""
    low, high = 0.0, 64.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chance_of([middle] * count) > 1 - confidence else (low, middle)
    return high
