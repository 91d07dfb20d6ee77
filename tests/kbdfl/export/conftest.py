"""Tiny models over made-up words, and their bundles."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from kbdfl.export.bundle import Bundle, load_bundle, write_bundle
from kbdfl.export.precision import PRECISIONS
from kbdfl.model import CifgConfig, init_params
from kbdfl.text import Vocabulary

CONFIG = CifgConfig(vocab=60, embed=8, hidden=12)


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """56 words: ba, be, ..., baba-like syllables, so that many share their first letters."""
    syllables = [c + v for c in "bdgk" for v in "aeiou"]
    words = [*syllables, *("".join(pair) for pair in itertools.product(syllables[:6], repeat=2))]
    return Vocabulary.of_words(words[: CONFIG.vocab - 4], "made up")


@pytest.fixture(scope="session")
def params() -> np.ndarray:
    """A model with logits far enough apart that a rounding does not swap two suggestions."""
    return 4 * init_params(CONFIG, seed=3, word_frequencies=np.arange(1.0, CONFIG.vocab - 3))


@pytest.fixture(scope="session", params=PRECISIONS)
def bundle(request, tmp_path_factory, vocabulary, params) -> Bundle:
    return made(tmp_path_factory.mktemp("bundle"), vocabulary, params, request.param)


def made(folder: Path, vocabulary: Vocabulary, params: np.ndarray, precision: str) -> Bundle:
    facts = {"round": 7, "data": "nothing"}
    write_bundle(
        folder, params=params, config=CONFIG, vocabulary=vocabulary, precision=precision, facts=facts
    )
    return load_bundle(folder)
