"""Sampled softmax on the phone: its own words and the round's candidates, trained as a smaller model.

Jean et al. 2015, "On using very large target vocabulary for neural machine translation", arXiv 1412.2007: only some
output words are computed. A candidate that was drawn with probability q stands for 1/q words, so log(1/q) is
added to its logit, which keeps the softmax's denominator unbiased. The phone's own words are all there, drawn
or not, and stand for themselves.
"""

from dataclasses import dataclass

import numpy as np

from kbdfl.algorithms.coordinates import OF_WORDS, Coordinates, take_rows
from kbdfl.algorithms.words import DrawnWords
from kbdfl.model import CifgConfig
from kbdfl.text import IGNORED, UNK, PackedBatches


@dataclass(frozen=True, slots=True, eq=False)
class Submodel:
    """What one phone trains.

    coordinates  of its report
    rows         int64 (L,), the words that train, ascending
    log_weight   float32 (L,), what is added to their output biases while they do
    batches      in these words' ids
    """

    coordinates: Coordinates
    rows: np.ndarray
    log_weight: np.ndarray
    batches: PackedBatches

    @property
    def config(self) -> CifgConfig:
        """Its shape: L words."""
        whole = self.coordinates.config
        return CifgConfig(len(self.rows), whole.embed, whole.hidden)

    def take(self, params: np.ndarray) -> np.ndarray:
        """What to train of `params` float32 (P,), which stay as they are; `params` itself if it is all of them.

        Of a partial model, which has no rows but these, it is all that is trained.
        """
        if len(params) == self.config.spec.size < self.coordinates.config.spec.size:
            taken = params.copy()
        else:
            taken = take_rows(params, self.coordinates.config, self.rows)
        if taken is not params:  # over all words the softmax is exact: nobody stands for others
            self.config.spec.views(taken)["bias"][:] += self.log_weight
        return taken

    def report(self, delta: np.ndarray) -> np.ndarray:
        """Its change, float32, at the round's coordinates: zero for words that did not train."""
        if self.coordinates.whole and len(self.rows) == self.coordinates.config.vocab:
            return delta
        reported = np.zeros(self.coordinates.config.vocab, bool)
        reported[self.coordinates.words.rows] = True
        here = reported[self.rows]
        there = (np.cumsum(reported) - 1)[self.rows[here]]
        trained, out = self.config.spec.views(delta), np.zeros(self.coordinates.model.spec.size, np.float32)
        for name, view in self.coordinates.model.spec.views(out).items():
            if name in OF_WORDS:
                view[there] = trained[name][here]
            else:
                view[:] = trained[name]
        return out


def partial(coordinates: Coordinates, batches: PackedBatches) -> Submodel:
    """The words of `coordinates` alone: others count as unknown, and are not learned."""
    there = np.zeros(coordinates.config.vocab, bool)
    there[coordinates.words.rows] = True
    inputs = np.where(there[batches.inputs], batches.inputs, np.int32(UNK))
    known = (batches.targets != IGNORED) & there[batches.targets]
    targets = np.where(known, batches.targets, np.int32(IGNORED))
    seen = PackedBatches(inputs, targets, batches.active, batches.steps)
    return submodel(coordinates, coordinates.words, seen)


def submodel(coordinates: Coordinates, candidates: DrawnWords, batches: PackedBatches) -> Submodel:
    """The candidates and the words of `batches`, to be reported at `coordinates`."""
    vocab = coordinates.config.vocab
    trained, weight = np.zeros(vocab, bool), np.zeros(vocab, np.float32)
    trained[batches.inputs] = True
    trained[batches.targets[batches.targets != IGNORED]] = True
    weight[candidates.rows] = candidates.log_weight
    weight[trained] = 0  # its own words
    trained[candidates.rows] = True
    rows = np.flatnonzero(trained)
    ids = (np.cumsum(trained) - 1).astype(np.int32)
    targets = np.where(batches.targets == IGNORED, np.int32(IGNORED), ids[batches.targets])
    renumbered = PackedBatches(ids[batches.inputs], targets, batches.active, batches.steps)
    return Submodel(coordinates, rows, weight[rows], renumbered)
