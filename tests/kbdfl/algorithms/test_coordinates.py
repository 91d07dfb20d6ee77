"""A round's coordinates: what is taken comes back, what is not stays, sums agree."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.algorithms.coordinates import Coordinates, smaller
from kbdfl.algorithms.words import draw_words
from kbdfl.model import CifgConfig

CONFIG = CifgConfig(vocab=30, embed=3, hidden=5)
SEEDS = st.integers(0, 2**32 - 1)


def coordinates(count=10, seed=1):
    return Coordinates(CONFIG, draw_words(CONFIG.vocab, count=count, seed=seed))


def vector(seed, size=CONFIG.spec.size):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@given(SEEDS)
def test_what_is_put_is_taken_and_nothing_else_moves(seed):
    at, before = coordinates(seed=seed), vector(seed)
    kept, part = before.copy(), vector(seed + 1, at.model.spec.size)
    after = at.put(before, part)
    np.testing.assert_array_equal(at.take(after), part)
    np.testing.assert_array_equal(before, kept)
    views, old = CONFIG.spec.views(after), CONFIG.spec.views(before)
    others = np.setdiff1d(np.arange(CONFIG.vocab), at.words.rows)
    assert len(others) == 16
    for name in ("emb", "bias"):
        np.testing.assert_array_equal(views[name][others], old[name][others])
    for name in ("wx", "bg", "wh", "wp"):
        assert not np.array_equal(views[name], old[name])


@given(SEEDS)
def test_a_sum_of_parts_is_the_part_of_the_sum(seed):
    at, one, two = coordinates(seed=seed), vector(seed), vector(seed + 1)
    np.testing.assert_array_equal(at.take(one) + at.take(two), at.take(one + two))


def test_all_coordinates_are_the_vector_itself():
    at, flat = coordinates(count=0), vector(1)
    assert at.whole
    assert at.take(flat) is flat
    assert at.put(vector(2), flat) is flat
    assert at.model == CONFIG
    assert at.hash == CONFIG.spec.hash


def test_the_hash_names_the_words_and_the_shape():
    wider = Coordinates(CifgConfig(30, 4, 5), coordinates().words)
    hashes = {coordinates().hash, coordinates(seed=2).hash, coordinates(count=9).hash, wider.hash}
    assert len(hashes) == 4
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in hashes)
    assert coordinates().model.spec.hash not in hashes


def test_steps_are_stretched_by_the_root_of_the_chance():
    at = coordinates()
    step = vector(3, at.model.spec.size)
    before, q = step.copy(), np.exp(-at.words.log_weight.astype(float))
    stretched, plain = at.model.spec.views(at.stretched(step)), at.model.spec.views(step)
    assert q.min() < 0.5
    np.testing.assert_allclose(stretched["bias"], plain["bias"] / np.sqrt(q), rtol=1e-6)
    np.testing.assert_allclose(stretched["emb"], plain["emb"] / np.sqrt(q)[:, None], rtol=1e-6)
    np.testing.assert_array_equal(stretched["wx"], plain["wx"])
    np.testing.assert_array_equal(step, before)


def test_a_smaller_model_has_the_specials_and_at_most_all_words():
    assert smaller(CONFIG, 10).vocab == 14
    assert smaller(CONFIG, 0) == smaller(CONFIG, 26) == smaller(CONFIG, 10**6) == CONFIG
    assert smaller(CONFIG, 10) == coordinates().model
