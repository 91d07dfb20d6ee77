"""When a word shows in the strip, and what that is worth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.evaluation.keystrokes import SLOTS, Completion, Tally


def naive(words, target, better):
    """Filter the ranking by each prefix in turn, as the strip does."""
    for letters in range(len(words[target])):
        rivals = [b for b in better if words[b].startswith(words[target][:letters])]
        if len(rivals) < SLOTS:
            return letters
    return len(words[target])


@given(
    st.lists(st.text("abé\U0001f600", min_size=1, max_size=5), min_size=1, max_size=40, unique=True),
    st.data(),
)
def test_a_word_shows_when_fewer_than_three_better_words_share_its_letters(words, data):
    ranking = data.draw(st.permutations(range(len(words))))
    completion = Completion(words)
    for place, target in enumerate(ranking):
        better = np.array(ranking[:place], np.int64)
        assert completion.letters(target, better) == naive(words, target, better)


def test_a_word_inside_three_better_ones_is_typed_in_full():
    words = ["here", "hers", "herd", "her", "a"]
    completion = Completion(words)
    assert completion.letters(3, np.array([0, 1, 2])) == 3
    assert completion.letters(3, np.array([0, 1, 4])) == 1
    assert completion.letters(3, np.array([0, 1])) == 0


def test_scores_count_every_word_and_every_key():
    tally = Tally()
    tally.ranked(5, rank=0, letters=0)  # one key for six characters
    tally.ranked(2, rank=3, letters=1)
    tally.unknown(4)
    scores = tally.scores()
    assert (scores.recall_top1, scores.recall_top3) == (1 / 3, 1 / 3)
    assert scores.mrr == pytest.approx((1 + 1 / 4) / 3)
    assert scores.kspc == (1 + 2 + 5) / (6 + 3 + 5)
    assert scores.ksr == 1 - scores.kspc


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99), st.integers(0, 9)), max_size=20), st.data())
def test_the_total_does_not_depend_on_the_order(answers, data):
    tallies = []
    for length, rank, letters in answers:
        tally = Tally()
        tally.ranked(length, rank=rank, letters=min(letters, length))
        tally.unknown(length)
        tallies.append(tally)
    assert Tally.total(tallies) == Tally.total(data.draw(st.permutations(tallies)))
    assert Tally.total(tallies).words == 2 * len(answers)
