"""Words read from deltas that a test writes down."""

import numpy as np
import pytest

from kbdfl.audit.words import NEVER_MOVED, Recovery, evidence, read_words
from kbdfl.model import CifgConfig
from kbdfl.rng import stream

MODEL = CifgConfig(vocab=600, embed=16, hidden=4)


def moved(typed, *, seed=1):
    """A delta as a softmax makes it: all words down along one state, the typed ones up."""
    random = stream(seed, "deltas")
    flat = np.zeros(MODEL.spec.size, np.float32)
    views = MODEL.spec.views(flat)
    state = random.standard_normal(MODEL.embed)
    fall = -1e-3 * random.random(MODEL.vocab)
    views["bias"][:] = fall
    views["emb"][:] = fall[:, None] * state
    views["bias"][list(typed)] = 0.05
    views["emb"][list(typed)] = 0.05 * random.standard_normal((len(typed), MODEL.embed))
    views["bias"][:4] = views["emb"][:4] = 0
    return flat


def test_words_whose_bias_rose_are_read():
    assert read_words(moved([10, 300, 599]), MODEL) == {10, 300, 599}


def test_a_frequent_word_whose_bias_fell_is_read_by_its_row():
    flat = moved([])
    views = MODEL.spec.views(flat)
    views["emb"][40] *= 3
    assert read_words(flat, MODEL) == {40}


def test_nothing_is_read_where_nothing_moved():
    flat = np.zeros(MODEL.spec.size, np.float32)
    assert read_words(flat, MODEL) == frozenset()
    assert (evidence(flat, MODEL) == NEVER_MOVED).all()


def test_specials_are_never_read():
    flat = moved([10])
    MODEL.spec.views(flat)["bias"][:4] = 1.0
    assert not read_words(flat, MODEL) & {0, 1, 2, 3}


def test_noise_over_all_hides_what_is_below_it():
    flat = moved([10, 300])
    noisy = flat + stream(2, "noise").normal(0, 0.2, len(flat)).astype(np.float32)
    assert not {10, 300} & read_words(noisy, MODEL)
    assert len(read_words(noisy, MODEL)) < 30


def test_a_recovery_counts_every_word_of_every_phone():
    found = Recovery.of([{1, 2}, {3}], [{1, 4}, {3, 5}])
    assert (found.precision, found.recall, found.f1) == pytest.approx((2 / 3, 1 / 2, 4 / 7))


@pytest.mark.parametrize(("read", "typed"), [([set()], [{1}]), ([set()], [set()]), ([{1}], [{2}])])
def test_a_recovery_without_hits_is_all_zero(read, typed):
    assert Recovery.of(read, typed) == Recovery(0.0, 0.0, 0.0)
