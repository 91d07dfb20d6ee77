"""A search finds the words that many phones type, whole sums or masked ones, and opens nothing too small."""

from math import lgamma, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.discovery import Question, Search, SearchPlan, Voter
from kbdfl.discovery.plan import LETTERS, can_be_found, least_unlikely
from kbdfl.errors import ConfigError
from kbdfl.secagg import Terms
from kbdfl.secagg.rehearsal import rehearse
from kbdfl.text import Vocabulary

KNOWN = Vocabulary.of_words(["the", "mill", "is", "old"], "the words of a test")
PLAN = SearchPlan(votes=3, longest=7, prefixes=20, least_votes=6, noise_multiplier=0.2, phones=40)
TEXTS = [["the millrace is old", "weir weir"], ["the weir's sluice", "weir"], ["weir sluice"], ["old mill"]]


def played(texts, plan=PLAN, *, copies=10):
    """What a search finds among so many phones with each of these messages."""
    voters = [Voter(messages, KNOWN, plan) for messages in texts for _ in range(copies)]
    search = Search(plan)
    while search.question is not None:
        total = np.sum([voter.vote(search.question) for voter in voters], axis=0)
        search.close(total, phones=len(voters))
    return search.found


def test_words_that_many_phones_type_are_found_with_their_votes():
    found = played(TEXTS)
    assert found.keys() == {"weir", "sluice", "weir's"}  # millrace has eight letters
    assert abs(found["weir"] - 30) <= 5
    assert abs(found["sluice"] - 20) <= 5


def test_words_of_few_phones_and_known_words_are_not_found():
    plan = SearchPlan(votes=3, longest=8, prefixes=20, least_votes=15, noise_multiplier=0.2, phones=40)
    assert played(TEXTS, plan).keys() == {"weir", "sluice"}


@pytest.mark.parametrize("block", [1, 2])
def test_blocks_of_any_length_find_the_same(block):
    plan = SearchPlan(
        votes=3, block=block, longest=7, prefixes=20, least_votes=6, noise_multiplier=0.2, phones=40
    )
    assert played(TEXTS, plan).keys() == {"weir", "sluice", "weir's"}


def test_a_phone_votes_for_the_words_that_it_typed_most():
    voter = Voter(["b b b a a c", "zz the", "d d d d"], KNOWN, PLAN)
    assert voter.words == ("d", "b", "a")
    assert Voter(["the <#> ünder 12345678"], KNOWN, PLAN).words == ()


def test_a_vote_is_no_longer_than_what_is_claimed():
    voter, question = Voter(["ab ac ad ba"], KNOWN, PLAN), Question(0, ("",), 2)
    assert len(voter.places(question)) <= PLAN.votes


def test_a_phone_answers_a_round_once():
    voter, question = Voter(["weir"], KNOWN, PLAN), Question(0, ("",), 2)
    voter.places(question)
    with pytest.raises(ConfigError, match="answers rounds in order"):
        voter.places(question)
    with pytest.raises(ConfigError, match="answers rounds in order"):
        voter.places(Question(PLAN.rounds, ("",), 2))


def test_a_sum_of_too_few_phones_is_not_opened():
    search = Search(PLAN)
    total = np.full(search.question.places, 100)
    with pytest.raises(ConfigError, match="at least 40 phones"):
        search.close(total, phones=39)
    with pytest.raises(ConfigError, match="places"):
        search.close(total[:-1], phones=40)
    assert search.found == {}


@given(st.text(alphabet=LETTERS, min_size=1, max_size=9), st.integers(1, 3))
def test_a_word_stands_where_its_letters_say_in_every_round(word, block):
    plan = SearchPlan(block=block, longest=9, prefixes=2)
    prefix = ""
    for number in range(plan.rounds):
        question = Question(number, ("not it", prefix), block)
        place = question.place(word)
        if len(prefix) > len(word):
            break
        assert place is not None
        prefix = question.prefix_at(place)
        assert prefix.rstrip("\0") == word[: (number + 1) * block]
        if "\0" in prefix:
            return
    raise AssertionError("the word never ended")


def test_noise_alone_brings_next_to_nothing_above_the_threshold():
    plan = SearchPlan(votes=100, noise_multiplier=1.0, phones=40, least_votes=1)
    search = Search(plan)
    votes = [Voter([], KNOWN, plan).vote(search.question) for _ in range(40)]
    assert np.std(np.sum(votes, axis=0)) == pytest.approx(plan.variance**0.5, rel=0.1)
    search.close(np.sum(votes, axis=0), phones=40)
    followed = 0 if search.question is None else len(search.question.prefixes)
    assert followed + len(search.found) <= 3


@pytest.mark.parametrize(("variance", "chance"), [(0.1, 1e-5), (3.0, 1e-7), (100.0, 1e-6)])
def test_a_threshold_is_where_the_tail_of_the_noise_ends(variance, chance):
    """Beside Skellam's exact tail, summed over two Poisson counts."""
    t, most = least_unlikely(variance, chance=chance), 400
    log_pmf = (
        -variance / 2 + np.arange(most) * log(variance / 2) - np.array([lgamma(k + 1) for k in range(most)])
    )
    pmf = np.exp(log_pmf)
    below = np.cumsum(pmf)
    above = [(pmf[at:] * below[: most - at]).sum() for at in (t - 2, t - 1, t)]  # P(X - Y >= at), at > 0
    assert above[2] <= 1.1 * chance
    assert above[0] > chance


def test_epsilon_falls_with_noise_and_rises_with_rounds():
    assert SearchPlan(noise_multiplier=2.0).epsilon(1e-6) < SearchPlan().epsilon(1e-6)
    assert SearchPlan(longest=6).epsilon(1e-6) < SearchPlan().epsilon(1e-6)


def test_masked_votes_add_up_to_the_same():
    """A whole session of secure aggregation over the first round's votes."""
    phones = [Voter(TEXTS[number % 4], KNOWN, PLAN) for number in range(40)]
    question = Search(PLAN).question
    votes = [phone.vote(question) for phone in phones]
    bound = int(max(np.abs(vote).max() for vote in votes))
    terms = Terms(
        session=bytes(16), task="words", round=0, model_sha256=bytes(32), issued_s=1_000, devices=40,
        words=question.places, levels=bound, noise_bound=0,
    )  # fmt: skip
    run = rehearse(terms, lambda place: votes[place], devices=40)
    assert np.array_equal(run.total.levels, np.sum(votes, axis=0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"votes": 0}, "votes must be >= 1"),
        ({"block": 4}, "block must lie"),
        ({"prefixes": 1 << 20}, "prefixes must be at most"),
        ({"noise_multiplier": 0.0}, "noise_multiplier must lie"),
        ({"errors": 1.0}, "errors must lie"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        SearchPlan(**wrong)


def test_only_words_of_known_letters_can_be_found():
    assert can_be_found("don't", 12)
    assert not can_be_found("", 12)
    assert not can_be_found("naïve", 12)
    assert not can_be_found("abc", 2)
