"""A tiny model, packed batches and the helpers of gradcheck.py."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kbdfl.model import CifgConfig, init_params
from kbdfl.rng import stream
from kbdfl.text import BOS, EOS, pack

TINY = CifgConfig(vocab=11, embed=3, hidden=5)


@pytest.fixture(scope="session")
def gradcheck():
    spec = importlib.util.spec_from_file_location("gradcheck", Path(__file__).parents[1] / "gradcheck.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny():
    return TINY


@pytest.fixture(scope="session")
def draw_params():
    """Parameters that leave no gate and no bias at its initial value."""

    def draw(config, seed=1, scale=0.4):
        noise = scale * stream(seed, "test params").standard_normal(config.spec.size)
        params = init_params(config, seed=seed) + noise.astype(np.float32)
        config.spec.views(params)["bias"][:4] = noise[:4]  # a special token's -20 would hide its gradient
        return params

    return draw


@pytest.fixture(scope="session")
def draw_sentences():
    """Sentences of the given numbers of words; some words are unknown, so their targets are not learned."""

    def draw(config, lengths, seed=1):
        random = stream(seed, "test sentences")
        return [
            [BOS, *random.choice([1, *range(4, config.vocab)], n).tolist(), EOS] if n else [BOS, EOS]
            for n in lengths
        ]

    return draw


@pytest.fixture(scope="session")
def dims():
    """The keyword arguments that tell a kernel a model's shape."""
    return lambda config: {"vocab": config.vocab, "embed": config.embed, "hidden": config.hidden}


@pytest.fixture(scope="session")
def rows():
    """The keyword arguments that hand a kernel packed batches."""

    def of(batches):
        packed = pack(batches)
        names = ("inputs", "targets", "active", "steps")
        return {name: getattr(packed, name) for name in names}

    return of
