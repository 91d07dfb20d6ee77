"""AUC and Clopper-Pearson, beside what is known of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.audit.chance import auc, share_bounds, within_words
from kbdfl.errors import ConfigError
from kbdfl.rng import stream


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=30),
    st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_auc_counts_the_pairs(scores, marks):
    scores, positive = np.array(scores, float), np.array(marks[: len(scores)])
    if positive.all() or not positive.any():
        with pytest.raises(ConfigError, match="needs positives and others"):
            auc(scores, positive)
        return
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert auc(scores, positive) == pytest.approx(np.mean(pairs))


def test_attribution_within_words_knows_nothing_of_common_words():
    """A score that only says how common a word is tells nothing of who typed it."""
    typed = stream(1, "typed").random((20, 50)) < np.linspace(0.1, 0.9, 50)
    common = np.repeat(np.linspace(0, 1, 50)[None], 20, 0)
    assert auc(common.ravel(), typed.ravel()) > 0.7
    assert within_words(common, typed)[0] == 0.5
    assert within_words(typed.astype(float), typed)[0] == 1.0


def test_attribution_needs_a_word_that_not_all_typed():
    with pytest.raises(ConfigError, match="some phones typed and others did not"):
        within_words(np.zeros((2, 3)), np.ones((2, 3), bool))


# The exact bounds, from R's binom.test: (hits, trials, one-sided confidence) -> (lower, upper).
@pytest.mark.parametrize(
    ("hits", "trials", "confidence", "lower", "upper"),
    [(0, 10, 0.975, 0.0, 0.3084971), (5, 10, 0.975, 0.1870860, 0.8129140), (10, 10, 0.975, 0.6915029, 1.0)],
)
def test_bounds_are_clopper_and_pearsons(hits, trials, confidence, lower, upper):
    assert share_bounds(hits, trials, confidence=confidence) == pytest.approx((lower, upper), abs=1e-6)


@given(st.integers(0, 200), st.sampled_from([0.9, 0.999]))
def test_bounds_lie_around_what_was_counted(hits, confidence):
    low, high = share_bounds(hits, 200, confidence=confidence)
    assert 0 <= low <= hits / 200 <= high <= 1


def test_bounds_refuse_what_cannot_be():
    with pytest.raises(ConfigError, match="hits must lie"):
        share_bounds(3, 2, confidence=0.9)
    with pytest.raises(ConfigError, match="confidence must lie"):
        share_bounds(1, 2, confidence=1.0)
