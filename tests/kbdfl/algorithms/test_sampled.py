"""Sampled softmax: a smaller model whose training is, on average, that of the whole one."""

import numpy as np
import pytest

from kbdfl.algorithms.sampled import draw_candidates, put_back, renumber, take_rows
from kbdfl.kernels.train import gradient, local_sgd
from kbdfl.model import CifgConfig, init_params
from kbdfl.rng import stream
from kbdfl.text import IGNORED, pack

CONFIG = CifgConfig(vocab=60, embed=5, hidden=7)
BATCHES = pack([[[2, 10, 40, 41, 3], [2, 1, 55, 3], [2, 40, 3]]])
OWN = {1, 2, 10, 40, 41, 55}


def params():
    return init_params(CONFIG, seed=1) + 0.05 * stream(1, "noise").standard_normal(
        CONFIG.spec.size, np.float32
    )


def draw(count, seed=0):
    return draw_candidates(CONFIG, BATCHES, count=count, random=stream(seed, "candidates"))


def whole_gradient(parameters, config=CONFIG, batches=BATCHES):
    return gradient(
        parameters, **config.dims, inputs=batches.inputs, targets=batches.targets, active=batches.active
    )


def test_own_frequent_and_special_words_are_always_candidates():
    candidates = draw(20)
    assert set(range(4 + 10)) | OWN <= set(candidates.rows.tolist())
    assert len(set(candidates.rows.tolist())) == len(candidates.rows)
    assert (np.diff(candidates.rows) > 0).all()


def test_drawn_words_stand_for_those_that_were_not():
    candidates = draw(20)
    drawn = candidates.log_weight > 0
    rest = CONFIG.vocab - len(set(range(14)) | OWN)
    assert drawn.sum() == 10
    assert np.exp(candidates.log_weight[drawn]) == pytest.approx(rest / 10)
    assert not OWN & set(candidates.rows[drawn].tolist())


def test_renumbered_words_are_the_same_words():
    candidates = draw(20)
    small = renumber(BATCHES, CONFIG, candidates)
    assert (candidates.rows[small.inputs] == BATCHES.inputs).all()
    learned = BATCHES.targets != IGNORED
    assert (candidates.rows[small.targets[learned]] == BATCHES.targets[learned]).all()
    assert (small.targets[~learned] == IGNORED).all()


def test_with_every_word_a_candidate_training_is_exact():
    candidates = draw(60)
    assert len(candidates.rows) == CONFIG.vocab
    start, config = take_rows(params(), CONFIG, candidates)
    options = {"learning_rate": 1.0, "clip_norm": 1.0}
    small, *_ = local_sgd(start, **config.dims, **renumber(BATCHES, CONFIG, candidates).arrays, **options)
    whole, *_ = local_sgd(params(), **CONFIG.dims, **BATCHES.arrays, **options)
    np.testing.assert_allclose(put_back(small, CONFIG, candidates), whole, atol=1e-6)


def test_rows_of_other_words_do_not_move():
    candidates = draw(20)
    start, config = take_rows(params(), CONFIG, candidates)
    small, *_ = local_sgd(
        start, **config.dims, **renumber(BATCHES, CONFIG, candidates).arrays, learning_rate=1.0
    )
    moved = CONFIG.spec.views(put_back(small, CONFIG, candidates))
    others = np.setdiff1d(np.arange(CONFIG.vocab), candidates.rows)
    assert len(others)
    assert not moved["emb"][others].any()
    assert not moved["bias"][others].any()
    assert moved["wx"].any()


def test_the_mean_over_draws_is_the_gradient_of_the_exact_softmax():
    parameters = params()
    exact, _ = whole_gradient(parameters)
    mean = np.zeros(CONFIG.spec.size)
    draws = 400
    for seed in range(draws):
        candidates = draw(30, seed)
        start, config = take_rows(parameters, CONFIG, candidates)
        small, _ = whole_gradient(start, config, renumber(BATCHES, CONFIG, candidates))
        mean += put_back(small, CONFIG, candidates) / draws
    # The denominator is unbiased, its reciprocal nearly so: what is left is far below one draw's error.
    error = np.linalg.norm(mean - exact) / np.linalg.norm(exact)
    one = np.linalg.norm(put_back(small, CONFIG, candidates) - exact) / np.linalg.norm(exact)
    assert error < 0.02
    assert error < one / 4
