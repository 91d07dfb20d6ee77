"""How far an exported graph is from the parameters it was made of."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from kbdfl.errors import DataError
from kbdfl.export.bundle import Bundle
from kbdfl.export.runtime import Stepper, open_session
from kbdfl.kernels import reference
from kbdfl.model import CifgConfig


def agreement(
    bundle: Bundle, params: np.ndarray, config: CifgConfig, sentences: Iterable[Sequence[int]]
) -> float:
    """The largest absolute difference of logits between bundle and trained model over whole sentences.

    params float32 (P,); sentences of ids as `Vocabulary.encode` gives them. The trained model is the plain
    numpy transcription of its equations in float64, so the figure is the exported graph's rounding.
    """
    views = {name: view.astype(np.float64) for name, view in config.spec.views(params).items()}
    stepper = Stepper(open_session(bundle), bundle)
    worst = 0.0
    for tokens in _inputs(sentences):
        expected = reference.logits(views, np.array(tokens), np.ones(len(tokens), np.int32))
        stepper.begin()
        for place, token in enumerate(tokens):
            if place:
                stepper.step(token)
            worst = max(worst, float(np.abs(expected[place] - stepper.logits[0]).max()))
    return worst


def _inputs(sentences: Iterable[Sequence[int]]) -> Iterator[Sequence[int]]:
    """All but the closing `<eos>`, which is never an input."""
    found = False
    for sentence in sentences:
        if len(sentence) > 1:
            found = True
            yield sentence[:-1]
    if not found:
        raise DataError("an agreement must be measured on at least one sentence, got none")
