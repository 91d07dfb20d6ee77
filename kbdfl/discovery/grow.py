"""A place for found words: the vocabulary grows, and the model's new rows begin where words as frequent are.

Old words keep their ids, new ones come behind them, the most typed first. A new word's output bias is what its
frequency asks for, and its row the mean of those of known words about as frequent, with a little noise so that new
words can part.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.model import CifgConfig
from kbdfl.model.cifg import SPECIAL_TOKENS
from kbdfl.rng import stream
from kbdfl.text import Vocabulary

ALIKE = 200  # known words whose rows a new one begins as the mean of
SPREAD = 0.1  # of the noise on a row, in standard deviations of known rows


@dataclass(frozen=True, slots=True, eq=False)
class Grown:
    """A model with more words: its parameters float32 (P,), shape and vocabulary, and how many words are new."""

    params: np.ndarray
    config: CifgConfig
    vocabulary: Vocabulary
    added: int


def word_share(votes: int, *, phones: int, words_a_phone: float) -> float:
    """How often a word is typed, as a share of all words, if `votes` of `phones` phones typed it at all.

    A phone that types M words has typed one of share p with 1 - (1 - p)^M, about 1 - exp(-p M).
    """
    voted = min(max(votes, 1), phones - 1) / phones
    return -log(1 - voted) / words_a_phone


def grow(
    params: np.ndarray,
    config: CifgConfig,
    vocabulary: Vocabulary,
    found: Mapping[str, int],
    *,
    phones: int,
    words_a_phone: float,
    seed: int,
) -> Grown:
    """The model `params` float32 (P,) with the words of `found`, word -> votes of `phones` phones.

    `words_a_phone` is about how many words a phone's log holds. Words that are known already are left as they are.
    Raises ConfigError for a vocabulary that is not the model's.
    """
    if len(vocabulary) != config.vocab:
        raise ConfigError(f"the model has {config.vocab} words, the vocabulary {len(vocabulary)}")
    if phones < 2 or not words_a_phone > 0:
        raise ConfigError(f"phones must be >= 2 and words_a_phone > 0, got {phones} and {words_a_phone}")
    known = set(vocabulary.tokens)
    new = sorted((word for word in found if word not in known), key=lambda word: (-found[word], word))
    source = f"{vocabulary.source}; {len(new)} words found by a private search" if new else vocabulary.source
    larger = Vocabulary.of_words([*vocabulary.tokens[SPECIAL_TOKENS:], *new], source)
    shape = replace(config, vocab=len(larger))
    grown = np.empty(shape.spec.size, np.float32)
    old, views = config.spec.views(params), shape.spec.views(grown)
    for name, view in views.items():
        view[: len(old[name])] = old[name]
    bias, rows = old["bias"][SPECIAL_TOKENS:].astype(np.float64), old["emb"][SPECIAL_TOKENS:]
    # A model that sees nothing of a context predicts word w with exp(bias_w) of the sum over all.
    norm = float(np.logaddexp.reduce(bias))
    random, spread = stream(seed, "grow"), SPREAD * float(rows.std())
    for place, word in enumerate(new, start=config.vocab):
        wanted = norm + log(word_share(found[word], phones=phones, words_a_phone=words_a_phone))
        wanted = float(np.clip(wanted, bias.min(), bias.max()))
        alike = np.argsort(np.abs(bias - wanted), kind="stable")[:ALIKE]
        views["bias"][place] = wanted
        views["emb"][place] = rows[alike].mean(0) + spread * random.standard_normal(config.embed)
    return Grown(grown, shape, larger, len(new))
