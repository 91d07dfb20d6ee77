"""Sampled softmax: a smaller model whose training is, on average, that of the whole one."""

import numpy as np
import pytest

from kbdfl.algorithms.coordinates import Coordinates
from kbdfl.algorithms.sampled import submodel
from kbdfl.algorithms.words import draw_words
from kbdfl.kernels.train import gradient, local_sgd
from kbdfl.model import CifgConfig, init_params
from kbdfl.rng import stream
from kbdfl.text import IGNORED, pack

CONFIG = CifgConfig(vocab=60, embed=5, hidden=7)
BATCHES = pack([[[2, 10, 40, 41, 3], [2, 1, 55, 3], [2, 40, 3]]])
OWN = {1, 2, 10, 40, 41, 55}
ALL = Coordinates(CONFIG, draw_words(60, count=0, seed=0))


def params():
    return init_params(CONFIG, seed=1) + 0.05 * stream(1, "noise").standard_normal(
        CONFIG.spec.size, np.float32
    )


def part_of(*, candidates=20, seed=0, at=ALL):
    return submodel(at, draw_words(60, count=candidates, seed=seed), BATCHES)


def whole_gradient(parameters, config=CONFIG, batches=BATCHES):
    return gradient(
        parameters, **config.dims, inputs=batches.inputs, targets=batches.targets, active=batches.active
    )


def trained(part, start=None, **options):
    start = params() if start is None else start
    delta, *_ = local_sgd(
        part.take(start), **part.config.dims, **part.batches.arrays, learning_rate=1.0, **options
    )
    return delta


def test_the_candidates_and_the_phones_own_words_train():
    candidates = draw_words(60, count=20, seed=0)
    part = part_of()
    assert set(part.rows.tolist()) == set(candidates.rows.tolist()) | OWN
    assert (np.diff(part.rows) > 0).all()
    assert part.config == CifgConfig(len(part.rows), 5, 7)


def test_own_words_stand_for_themselves_whether_drawn_or_not():
    drawn_too = 0
    for seed in range(30):
        candidates, part = draw_words(60, count=20, seed=seed), part_of(seed=seed)
        weight = dict(zip(part.rows.tolist(), part.log_weight.tolist(), strict=True))
        drawn = dict(zip(candidates.rows.tolist(), candidates.log_weight.tolist(), strict=True))
        drawn_too += sum(drawn.get(word, 0) > 0 for word in OWN)
        assert weight == drawn | dict.fromkeys(OWN, 0.0)
    assert drawn_too


def test_renumbered_words_are_the_same_words():
    part = part_of()
    assert (part.rows[part.batches.inputs] == BATCHES.inputs).all()
    learned = BATCHES.targets != IGNORED
    assert (part.rows[part.batches.targets[learned]] == BATCHES.targets[learned]).all()
    assert (part.batches.targets[~learned] == IGNORED).all()


@pytest.mark.parametrize("candidates", [0, 56, 1_000])
def test_with_every_word_a_candidate_training_is_exact_to_the_bit(candidates):
    part, start = part_of(candidates=candidates), params()
    assert part.take(start) is start
    whole, *_ = local_sgd(params(), **CONFIG.dims, **BATCHES.arrays, learning_rate=1.0, clip_norm=1.0)
    np.testing.assert_array_equal(part.report(trained(part, clip_norm=1.0)), whole)


def test_received_parameters_stay_as_they_are():
    start, kept = params(), params()
    trained(part_of(), start)
    np.testing.assert_array_equal(start, kept)


def test_rows_of_words_that_did_not_train_are_reported_as_unmoved():
    part = part_of()
    moved = CONFIG.spec.views(part.report(trained(part)))
    others = np.setdiff1d(np.arange(CONFIG.vocab), part.rows)
    assert len(others)
    assert not moved["emb"][others].any()
    assert not moved["bias"][others].any()
    assert moved["emb"][part.rows[4:]].any(axis=1).all()
    assert moved["wx"].any()


@pytest.mark.parametrize("candidates", [0, 20])
@pytest.mark.parametrize("seed", range(3))
def test_a_report_of_some_words_rows_is_that_part_of_the_whole_report(candidates, seed):
    at = Coordinates(CONFIG, draw_words(60, count=15, seed=seed))
    whole, some = part_of(candidates=candidates), part_of(candidates=candidates, at=at)
    report = some.report(trained(some))
    assert report.shape == (at.model.spec.size,)
    np.testing.assert_array_equal(report, at.take(whole.report(trained(whole))))


def test_the_mean_over_draws_is_the_gradient_of_the_exact_softmax():
    parameters = params()
    exact, _ = whole_gradient(parameters)
    mean = np.zeros(CONFIG.spec.size)
    draws = 400
    for seed in range(draws):
        part = part_of(candidates=30, seed=seed)
        small, _ = whole_gradient(part.take(parameters), part.config, part.batches)
        mean += part.report(small) / draws
    # The denominator is unbiased, its reciprocal nearly so: what is left is far below one draw's error.
    error = np.linalg.norm(mean - exact) / np.linalg.norm(exact)
    one = np.linalg.norm(part.report(small) - exact) / np.linalg.norm(exact)
    assert error < 0.02
    assert error < one / 4
