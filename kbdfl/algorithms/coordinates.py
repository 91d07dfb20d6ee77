"""Which coordinates of a model a round's reports hold: all, or the rows of some words and the whole LSTM.

Embedding rows and output biases belong to words. A round may draw the words whose rows are reported; their
rows and the LSTM between them are the vector of a model of fewer words. Server and phones draw from the same seed,
so the coordinates are the same for the whole cohort: reports can be summed unseen, and which rows are in them
says nothing of what one phone typed.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from kbdfl.algorithms.server import ServerRule, State
from kbdfl.algorithms.words import DrawnWords
from kbdfl.model.cifg import SPECIAL_TOKENS, CifgConfig

OF_WORDS = ("emb", "bias")  # the tensors with a row a word


def smaller(config: CifgConfig, words: int) -> CifgConfig:
    """`config` with the specials and at most `words` words; 0 = all of them."""
    most = config.vocab - SPECIAL_TOKENS
    return CifgConfig(SPECIAL_TOKENS + min(words or most, most), config.embed, config.hidden)


def take_rows(flat: np.ndarray, config: CifgConfig, rows: np.ndarray) -> np.ndarray:
    """The words `rows`, ascending, of `flat` (P,) as a smaller model's vector; `flat` itself if they are all."""
    if len(rows) == config.vocab:
        return flat
    views = config.spec.views(flat)
    return np.concatenate(
        [(view[rows] if name in OF_WORDS else view).ravel() for name, view in views.items()]
    )


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """The coordinates of `config`, the whole model, that a round's reports hold: those of `words` and the LSTM."""

    config: CifgConfig
    words: DrawnWords

    @property
    def whole(self) -> bool:
        """Whether they are all."""
        return len(self.words.rows) == self.config.vocab

    @property
    def model(self) -> CifgConfig:
        """The smaller model that they make."""
        return CifgConfig(len(self.words.rows), self.config.embed, self.config.hidden)

    @property
    def hash(self) -> str:
        """16 hex digits that name exactly these coordinates: the model's own spec hash if they are all."""
        if self.whole:
            return self.config.spec.hash
        named = self.config.spec.hash.encode() + self.words.rows.astype("<i4").tobytes()
        return hashlib.sha256(named).hexdigest()[:16]

    def take(self, flat: np.ndarray) -> np.ndarray:
        """These coordinates of `flat` float32 (P,); `flat` itself if they are all."""
        return take_rows(flat, self.config, self.words.rows)

    def put(self, flat: np.ndarray, part: np.ndarray) -> np.ndarray:
        """A copy of `flat` float32 (P,) with `part` at these coordinates; `part` itself if they are all."""
        if self.whole:
            return part
        whole = flat.copy()
        parts = self.model.spec.views(part)
        for name, view in self.config.spec.views(whole).items():
            view[self.words.rows if name in OF_WORDS else slice(None)] = parts[name]
        return whole

    def applied(
        self, rule: ServerRule, params: np.ndarray, mean_delta: np.ndarray, state: State, *, round: int
    ) -> tuple[np.ndarray, State]:
        """The model and the rule's state after a round with these coordinates; elsewhere both are what they were."""
        before, of_rule = self.take(params), {name: self.take(values) for name, values in state.items()}
        after, part = rule.apply(before, mean_delta, of_rule, round=round)
        if not self.whole:
            after = before + self.stretched(after - before)
        return self.put(params, after), {name: self.put(state[name], part[name]) for name in part}

    def stretched(self, step: np.ndarray) -> np.ndarray:
        """A server rule's `step` at these coordinates, 1/sqrt(q) as long in the rows of a word drawn with q.

        Adam goes so far on rows whose updates come 1/q as large, q as often. A rule that goes as far as the update
        says would need 1/q to make up for the rounds that did not draw the word, with that much more noise.
        """
        stretched, factor = step.copy(), np.exp(0.5 * self.words.log_weight)
        views = self.model.spec.views(stretched)
        views["emb"] *= factor[:, None]
        views["bias"] *= factor
        return stretched
