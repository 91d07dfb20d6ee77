"""A draw of words: a function of its seed, frequent words always in it, chances that are what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.algorithms.words import chances, draw_words
from kbdfl.model.cifg import SPECIAL_TOKENS

SEEDS = st.integers(0, 2**64 - 1)


@st.composite
def sizes(draw):
    words = draw(st.integers(2, 400))
    return words, draw(st.integers(1, words - 1))


@given(sizes())
def test_chances_fall_with_the_rank_and_add_up_to_the_count(size):
    words, count = size
    q = chances(words, count)
    assert q.sum() == pytest.approx(count)
    assert (np.diff(q) <= 0).all()
    assert q[-1] > 0
    assert q[0] <= 1
    rare = q < 1
    rank = np.arange(1, words + 1)
    np.testing.assert_allclose((q * rank)[rare], (q * rank)[-1])


@given(sizes(), SEEDS)
def test_a_draw_has_the_specials_the_frequent_words_and_its_exact_size(size, seed):
    words, count = size
    drawn = draw_words(words + SPECIAL_TOKENS, count=count, seed=seed)
    assert len(drawn.rows) == SPECIAL_TOKENS + count
    assert (np.diff(drawn.rows) > 0).all()
    assert drawn.rows[-1] < words + SPECIAL_TOKENS
    certain = SPECIAL_TOKENS + int((chances(words, count) == 1).sum())
    np.testing.assert_array_equal(drawn.rows[:certain], np.arange(certain))
    assert not drawn.log_weight[:certain].any()
    assert (drawn.log_weight[certain:] > 0).all()


@pytest.mark.parametrize("count", [0, 96, 97, 10**6])
def test_a_draw_of_as_many_as_there_are_is_all(count):
    drawn = draw_words(100, count=count, seed=1)
    np.testing.assert_array_equal(drawn.rows, np.arange(100))
    assert not drawn.log_weight.any()


def test_a_draw_follows_from_its_seed_alone():
    one = draw_words(1_000, count=50, seed=1)
    draw_words.cache_clear()
    again, other = draw_words(1_000, count=50, seed=1), draw_words(1_000, count=50, seed=2)
    assert again is not one
    np.testing.assert_array_equal(one.rows, again.rows)
    np.testing.assert_array_equal(one.log_weight, again.log_weight)
    assert not np.array_equal(one.rows, other.rows)


def test_each_word_is_drawn_as_often_as_its_chance_says():
    """Over 4,000 seeds: every word within five standard errors."""
    draws, vocab = 4_000, 60 + SPECIAL_TOKENS
    times = np.zeros(vocab)
    for seed in range(draws):
        times[draw_words(vocab, count=20, seed=seed).rows] += 1
    q = chances(60, 20)
    error = np.sqrt(q * (1 - q) / draws)
    assert (np.abs(times[SPECIAL_TOKENS:] / draws - q) <= 5 * error + 1e-12).all()


def test_a_sum_over_the_drawn_is_on_average_the_sum_over_all():
    """The denominator of a sampled softmax: each drawn word counts 1/q times."""
    scores = np.exp(np.random.default_rng(1).standard_normal(200))
    sums = []
    for seed in range(2_000):
        drawn = draw_words(200, count=60, seed=seed)
        sums.append((scores[drawn.rows] * np.exp(drawn.log_weight)).sum())
    assert np.mean(sums) == pytest.approx(scores.sum(), abs=5 * np.std(sums) / 2_000**0.5)
    assert np.std(sums) < 0.3 * scores.sum()


def test_what_is_drawn_cannot_be_changed():
    drawn = draw_words(100, count=10, seed=1)
    with pytest.raises(ValueError, match="read-only"):
        drawn.rows[0] = 5
