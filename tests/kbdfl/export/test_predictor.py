"""Suggestions: the next word, the rest of a word, and one model step a committed word."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.errors import ConfigError
from kbdfl.export.predictor import Predictor, Suggestion, as_typed, typed
from kbdfl.export.runtime import OUTPUTS, open_session


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor(bundle)


class Counting:
    """A session that counts its steps."""

    def __init__(self, session):
        self.session, self.steps = session, 0

    def run(self, *arguments):
        self.steps += 1
        return self.session.run(*arguments)


def counted(bundle):
    predictor = Predictor(bundle)
    predictor._session = Counting(predictor._session)
    return predictor, predictor._session


def probabilities(bundle, text):
    """Word -> probability after `text`, straight from the graph and without any cache."""
    session, config = open_session(bundle), bundle.config
    r, c = np.zeros((1, config.embed), np.float32), np.zeros((1, config.hidden), np.float32)
    for token in bundle.vocabulary.encode(text)[:-1]:
        feeds = {"token": np.array([token]), "state_r": r, "state_c": c}
        _, _, logits, r, c = session.run(OUTPUTS, feeds)
    weights = np.exp(logits[0, 4:].astype(np.float64) - logits[0, 4:].max())
    return dict(zip(bundle.vocabulary.tokens[4:], weights / weights.sum(), strict=True))


@pytest.mark.parametrize(
    ("text", "words", "prefix"),
    [
        ("", [], ""),
        ("see", [], "see"),
        ("see ", ["see"], ""),
        ("See YOU", ["see"], "you"),
        ("see you.", ["see", "you"], ""),
        ("i don'", ["i"], "don'"),
        ("i don’t", ["i"], "don't"),
        ("  ", [], ""),
        ("<EMAIL>", ["<email>"], ""),
        ("é", [], "é"),
        ("e\u0301", [], "é"),
        ("x", [], "x"),
    ],
)
def test_typed_parts_committed_words_from_the_letters_in_progress(vocabulary, text, words, prefix):
    assert typed(vocabulary, text) == (words, prefix)


@pytest.mark.parametrize(
    ("text", "partial"),
    [
        ("", ""),
        ("See YO", "YO"),
        ("See you.", ""),
        ("I don’", "don’"),
        ("to the \ufb01", "\ufb01"),
        ("CAFE\u0301", "CAFE\u0301"),
        ("a \u0130\u0130", "\u0130\u0130"),
        ("<EMAIL>", ""),
    ],
)
def test_the_word_in_progress_is_cut_as_it_stands_in_the_text(vocabulary, text, partial):
    assert as_typed(vocabulary, text) == partial


@pytest.mark.parametrize("text", [", ", "ba ", "ba be ku ", "ba unknown ku "])
@pytest.mark.parametrize("k", [1, 3, 5, 56, 99])
def test_next_words_are_the_likeliest_of_the_graph_with_their_probabilities(bundle, predictor, text, k):
    expected = probabilities(bundle, text)
    suggestions = predictor.suggest(text, k=k)
    assert [s.word for s in suggestions] == sorted(expected, key=expected.get, reverse=True)[:k]
    for s in suggestions:
        assert s.probability == pytest.approx(expected[s.word], rel=1e-4)


def test_probabilities_of_all_words_sum_to_one(predictor):
    assert math.fsum(s.probability for s in predictor.suggest("ba ", k=56)) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("letters", ["b", "ba", "bab", "g", "ko"])
def test_completions_begin_with_the_typed_letters_in_order_of_likelihood(bundle, predictor, letters):
    expected = probabilities(bundle, "de ")
    matching = [word for word in expected if word.startswith(letters.lower())]
    words = [s.word for s in predictor.suggest("de " + letters, k=len(matching))]
    assert words == sorted(matching, key=expected.get, reverse=True)
    capital = predictor.suggest("de " + letters.capitalize(), k=len(matching))
    assert [s.word for s in capital] == [word.capitalize() for word in words]


def test_a_slip_is_forgiven_after_the_words_that_match(predictor):
    whole = [s.word for s in predictor.suggest("ku", k=5)]
    assert whole[0] == "ku"
    assert all(word.startswith("k") for word in whole)
    assert len(set(whole)) == 5


@pytest.mark.parametrize(
    ("text", "literal"), [("x", "x"), ("日本", "日本"), ("de 99", "99"), ("de Xy", "Xy")]
)
def test_letters_that_begin_no_word_are_kept_as_typed(predictor, text, literal):
    assert predictor.suggest(text) == [Suggestion(literal, 0.0)]


def test_a_word_that_is_not_known_comes_before_the_words_that_nearly_match(predictor):
    kept, *rest = predictor.suggest("de BaX", k=4)
    assert kept == Suggestion("BaX", 0.0)
    assert len(rest) == 3
    assert all(s.word.startswith("Ba") and s.probability > 0 for s in rest)
    assert predictor.suggest("de bax", k=1) == [Suggestion("bax", 0.0)]


def test_a_sentence_begins_with_a_capital(predictor):
    small = [s.word for s in predictor.suggest("ba ")]
    assert [s.word for s in predictor.suggest("ba. ")] == [word.capitalize() for word in small]


@pytest.mark.parametrize("text", ["", "ba ", "ba b", "k"])
def test_blocked_words_are_never_suggested_and_the_others_keep_their_order(bundle, predictor, text):
    everything = predictor.suggest(text, k=56)
    first = everything[0].word
    blocking = Predictor(bundle, blocked=[first.upper() + "!"])
    rest = everything[1:]
    for k in (1, 3, 56):
        assert blocking.suggest(text, k=k) == rest[:k]
    blocking.unblock(first)
    assert blocking.suggest(text, k=56) == everything
    blocking.block(first, rest[0].word)
    assert blocking.suggest(text, k=3) == rest[1:4]


def test_blocking_a_word_keeps_it_as_context(bundle, predictor):
    assert Predictor(bundle, blocked=["ku"]).suggest("ku ", k=55) == [
        s for s in predictor.suggest("ku ", k=56) if s.word != "ku"
    ]


def test_an_unknown_word_that_is_blocked_is_not_offered_as_typed(bundle):
    predictor = Predictor(bundle, blocked=["xyz"])
    assert predictor.suggest("de XYZ") == []
    assert predictor.suggest("de xy") == [Suggestion("xy", 0.0)]


def test_what_is_blocked_can_be_read_and_is_one_word_each(bundle):
    predictor = Predictor(bundle, blocked=["Don’t", "ba"])
    predictor.unblock("BA", "never")
    assert predictor.blocked == {"don't"}
    for wrong in ("two words", "", "..."):
        with pytest.raises(ConfigError, match="a blocked word must be one word, got "):
            predictor.block(wrong)
    assert predictor.blocked == {"don't"}


@pytest.mark.parametrize("text", ["ba,", "ba\t", "ba 􏿿", "ba 😀"])
def test_what_is_no_letter_separates_words(predictor, text):
    assert predictor.suggest(text) == predictor.suggest("ba ")


def test_k_below_one_is_refused(predictor):
    with pytest.raises(ConfigError, match="k must be >= 1, got 0"):
        predictor.suggest("ba", k=0)


def test_a_typed_letter_costs_no_step_and_a_committed_word_costs_one(bundle):
    predictor, session = counted(bundle)
    costs = []
    for text in ("", "b", "ba", "ba ", "ba d", "ba de", "ba de ", "ba de k", "ba de", "ba "):
        before = session.steps
        predictor.suggest(text)
        costs.append(session.steps - before)
    assert costs == [1, 0, 0, 1, 0, 0, 1, 0, 0, 0]


def test_the_work_of_a_long_text_is_bounded_and_typing_on_in_it_costs_one_step(bundle):
    predictor, session = counted(bundle)
    text = "ba de ku " * 2000
    predictor.suggest(text)
    assert session.steps <= 128
    before = session.steps
    predictor.suggest(text + "ba ")
    assert session.steps == before + 1


def test_kept_contexts_are_bounded(bundle):
    predictor = Predictor(bundle)
    for word in bundle.vocabulary.tokens[4:]:
        predictor.suggest(f"{word} ba de ku ")
    assert len(predictor._contexts) <= 128


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text("bdgkaeiou' ", max_size=20), min_size=2, max_size=6))
def test_what_was_asked_before_does_not_change_an_answer(bundle, predictor, texts):
    fresh = Predictor(bundle)
    for text in texts:
        fresh.suggest(text)
    assert [fresh.suggest(text) for text in texts] == [predictor.suggest(text) for text in texts]


def test_threads_may_share_a_predictor(bundle):
    texts = [" ".join(bundle.vocabulary.tokens[4 + i % 7 : 9 + i % 11]) + " " for i in range(200)]
    alone = Predictor(bundle)
    expected = [alone.suggest(text, k=5) for text in texts]
    shared = Predictor(bundle)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: shared.suggest(text, k=5), texts)) == expected


def test_a_folder_serves_as_well_as_a_loaded_bundle(bundle, predictor):
    assert Predictor(bundle.folder).suggest("ba ") == predictor.suggest("ba ")
