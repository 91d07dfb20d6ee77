"""A tiny model over made-up words, its bundles, and logs with unknown words."""

import numpy as np
import pytest

from kbdfl.export.bundle import load_bundle, write_bundle
from kbdfl.model import CifgConfig, init_params
from kbdfl.text import Vocabulary

CONFIG = CifgConfig(vocab=44, embed=8, hidden=12)


@pytest.fixture(scope="session")
def vocabulary():
    return Vocabulary.of_words([f"w{i}" for i in range(CONFIG.vocab - 4)], "made up")


@pytest.fixture(scope="session")
def params():
    return 3 * init_params(CONFIG, seed=5, word_frequencies=1 / np.arange(1.0, CONFIG.vocab - 3))


@pytest.fixture(scope="session")
def bundles(tmp_path_factory, vocabulary, params):
    made = {}
    for precision in ("float32", "int8"):
        folder = tmp_path_factory.mktemp(precision)
        write_bundle(
            folder, params=params, config=CONFIG, vocabulary=vocabulary, precision=precision, facts={}
        )
        made[precision] = load_bundle(folder)
    return made


@pytest.fixture(scope="session")
def logs():
    """Nine users; a tenth of their words are unknown, some messages end in unknown words or are empty."""
    random = np.random.default_rng(11)
    words = [f"w{i}" for i in range(44)]  # four of them unknown
    return {
        f"user{u}": [
            " ".join(random.choice(words, random.integers(0, 9))) for _ in range(random.integers(1, 12))
        ]
        for u in range(9)
    }
