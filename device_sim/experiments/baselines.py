"""A counting baseline as a row of any experiment: the back-off trigram (`kbdfl.ngram`), which sees every message."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from kbdfl.device_sim.experiments.data import Data, Part
from kbdfl.device_sim.experiments.settings import Trained
from kbdfl.model import CifgConfig, preset
from kbdfl.ngram import Trigram
from kbdfl.text import SPECIALS, Vocabulary


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Counted(Trained):
    """A trigram in place of models, asked for the same words."""

    trigram: Trigram

    def recall(self, part: Part) -> dict[str, float]:
        """recall_top1 and recall_top3; a word outside the vocabulary is a miss."""
        found = self.trigram.recall(_words(part.sentences, part.vocabulary))
        return {f"recall_{name}": share for name, share in found.items()}


@dataclass(frozen=True, slots=True)
class BackOff:
    """The trigram of the training users' pooled messages, over the models' vocabulary.

    With `public` it counts the public text as well, and a training user's message so often that their words are at
    least `public` times as many as the public ones.
    """

    method: str
    value: str
    public: float | None = None

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        """Nothing is drawn, so all seeds come to the same and are counted once."""
        return _counted(data, self.public)


@lru_cache(maxsize=8)
def _counted(data: Data, public: float | None) -> _Counted:
    started, vocabulary = time.perf_counter(), data.vocabulary
    texts = list(_words(data.phones_text(), vocabulary))
    if public is not None:
        own, others = sum(map(len, texts)), list(_words(data.public_text(), vocabulary))
        times = ceil(public * sum(map(len, others)) / max(own, 1))
        texts = others + texts * max(times, 1)
    trigram = Trigram.train(texts, words=vocabulary.tokens[len(SPECIALS) :])
    shape = preset(data.preset)
    return _Counted(
        models=(),
        config=CifgConfig(len(vocabulary), shape.embed, shape.hidden),
        tokens=sum(map(len, texts)),
        wall_s=time.perf_counter() - started,
        trigram=trigram,
    )


def _words(sentences: Iterable[Sequence[int]], vocabulary: Vocabulary) -> Iterable[list[str]]:
    """The words between the first and the last token, an unknown one as `<unk>`, which no trigram knows."""
    tokens = vocabulary.tokens
    return ([tokens[token] for token in sentence[1:-1]] for sentence in sentences)
