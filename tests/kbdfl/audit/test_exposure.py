"""Exposure of secrets: its null is known, and a model that knows a secret shows it."""

import numpy as np
import pytest

from kbdfl.audit.exposure import CHOICES, PLACES, chance_of, draw_canaries, exposure, null_limit
from kbdfl.errors import ConfigError
from kbdfl.model import CifgConfig, init_params
from kbdfl.rng import stream

MODEL = CifgConfig(vocab=100, embed=4, hidden=6)


def test_canaries_share_no_word_and_are_of_the_vocabulary():
    canaries = draw_canaries(100, count=5, seed=1)
    words = [word for one in canaries for word in (*one.prefix, *one.choices)]
    assert len(set(words)) == len(words)
    assert min(words) >= 4
    assert max(words) < 100
    assert all(set(one.secret) <= set(one.choices) for one in canaries)
    assert canaries[0].bits == PLACES * np.log2(CHOICES)


def test_a_model_that_learnt_the_secret_exposes_all_of_it():
    (canary,) = draw_canaries(100, count=1, seed=2)
    params = init_params(MODEL, seed=1)
    wanted = MODEL.spec.views(params)["bias"]
    wanted[list(canary.choices)] = -5
    wanted[list(dict.fromkeys(canary.secret))] = 5
    # Words of the secret alone are likely: it is among the 27 secrets that are made of them.
    assert exposure(params, MODEL, canary) >= canary.bits - np.log2(27)


def test_secrets_that_a_model_likes_alike_rank_at_their_mean():
    (canary,) = draw_canaries(100, count=1, seed=2)
    flat = np.zeros(MODEL.spec.size, np.float32)
    assert exposure(flat, MODEL, canary) == pytest.approx(1.0, abs=0.01)


def test_the_null_is_as_likely_as_it_says():
    random = stream(1, "null")
    exposures = -np.log2(random.random((2_000, 6)))
    limit = null_limit(6, confidence=0.95)
    assert (exposures.mean(1) > limit).mean() == pytest.approx(0.05, abs=0.015)
    assert chance_of([limit] * 6) == pytest.approx(0.05, abs=1e-6)
    assert chance_of([0.0, 0.0]) == 1.0


def test_more_canaries_than_words_are_refused():
    with pytest.raises(ConfigError, match="canaries must number"):
        draw_canaries(100, count=6, seed=1)
