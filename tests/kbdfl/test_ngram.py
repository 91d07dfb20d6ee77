"""The trigram backs off in the stated order; the own-unigram figure tells alike users from unlike ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.errors import ConfigError, DataError
from kbdfl.ngram import Trigram, Unigram, own_unigram_bits_saved
from kbdfl.rng import stream

MESSAGES = st.lists(st.lists(st.sampled_from("abcdef"), max_size=6), min_size=1, max_size=12).filter(any)


def split(*texts):
    return [text.split() for text in texts]


def test_back_off_goes_from_trigram_to_bigram_to_unigram():
    model = Trigram.train(split("a b c", "x b d", "x b d", "e e e e e"))
    assert model.suggest(["a", "b"], 3) == ["c", "d", "e"]
    assert model.suggest(["unheard", "b"], 2) == ["d", "c"]
    assert model.suggest(["unheard"], 1) == ["e"]


def test_a_message_begins_in_its_own_context():
    model = Trigram.train(split("hello you", "hello me", "so you", "you you you you"))
    assert model.suggest([], 1) == ["hello"]
    assert model.suggest(["hello"], 2) == ["you", "me"]


def test_only_the_last_two_words_count():
    model = Trigram.train(split("a b c"))
    assert model.suggest(["z", "z", "z", "a", "b"], 1) == ["c"]


def test_ties_go_to_the_more_frequent_word():
    model = Trigram.train(split("a y", "a z", "z"))
    assert model.suggest(["a"], 2) == ["z", "y"]


def test_words_beyond_the_vocabulary_are_never_suggested_and_miss():
    messages = split("a a a rare", "a a a")
    model = Trigram.train(messages, vocabulary=1)
    assert model.suggest(["a"], 3) == ["a"]
    assert model.recall(messages) == {"top1": 6 / 7, "top3": 6 / 7}


def test_every_word_of_a_message_is_a_target():
    model = Trigram.train(split("a b"))
    assert model.recall(split("a b", "never heard")) == {"top1": 0.5, "top3": 0.5}


@given(MESSAGES, MESSAGES, st.integers(1, 8))
def test_suggestions_are_k_distinct_words_and_recall_counts_them(train, test, k):
    model = Trigram.train(train)
    distinct = {word for message in train for word in message}
    first = among = total = 0
    for message in test:
        for place, word in enumerate(message):
            offered = model.suggest(message[:place], k)
            assert len(offered) == len(set(offered)) == min(k, len(distinct))
            top3 = model.suggest(message[:place], 3)
            first, among, total = first + (top3[0] == word), among + (word in top3), total + 1
    assert model.recall(test) == pytest.approx({"top1": first / total, "top3": among / total})


def test_the_unigram_suggests_the_most_frequent_words_whatever_was_typed():
    model = Unigram.train(split("b b b a a c d"))
    assert model.suggest(["c"], 3) == ["b", "a", "c"]


def test_without_words_there_is_no_model_and_no_recall():
    for kind in (Trigram, Unigram):
        with pytest.raises(DataError, match="at least one message with a word"):
            kind.train([[]])
    with pytest.raises(DataError, match="at least one word to predict"):
        Trigram.train([["a"]]).recall([[], []])


def test_a_vocabulary_below_one_is_refused():
    with pytest.raises(ConfigError, match="must be >= 1, got 0"):
        Trigram.train([["a"]], vocabulary=0)


def test_users_who_write_alike_save_nothing_and_others_save_much():
    random = stream(1, "test")
    alike = {f"u{i}": [[str(w) for w in random.integers(0, 20, 50)] for _ in range(20)] for i in range(20)}
    apart = {
        f"u{i}": [[f"{i}-{w}" for w in random.integers(0, 20, 50)] for _ in range(20)] for i in range(20)
    }
    assert abs(own_unigram_bits_saved(alike)) < 0.02
    assert own_unigram_bits_saved(apart) > 2.0


def test_the_own_unigram_figure_is_the_stated_formula():
    users = {"a": split("x x", "x"), "b": split("y y", "y")}
    # everyone's: x and y twice each, one spare count: 2/5; own 1 against another's 0
    assert own_unigram_bits_saved(users, min_messages=2) == pytest.approx(1.8073549)


def test_one_user_alone_has_no_own_unigram_figure():
    assert own_unigram_bits_saved({"a": [["x"]] * 50, "b": [["y"]] * 3}) is None


def test_a_trigram_with_given_words_suggests_no_others():
    messages = [["see", "zorp"], ["see", "zorp"], ["see", "you"]]
    assert Trigram.train(messages).suggest(["see"], 1) == ["zorp"]
    assert Trigram.train(messages, words=["you", "see", "him"]).suggest(["see"], 3) == ["you", "see", "him"]


@pytest.mark.parametrize("kind", [Trigram, Unigram])
def test_given_words_of_which_none_occurs_are_refused(kind):
    with pytest.raises(DataError, match="at least one word must be known"):
        kind.train([["zorp"]], words=["see"])


def test_of_equally_frequent_words_the_first_given_comes_first():
    model = Unigram.train(split("b a c"), words=["c", "z", "a", "b"])
    assert model.words == ("c", "a", "b", "z")


@given(MESSAGES, st.lists(st.sampled_from("abcdefgh"), max_size=3), st.sampled_from("abcdefgh"))
def test_better_words_are_those_suggested_before(train, context, word):
    for kind in (Trigram, Unigram):
        model = kind.train(train, words="gabcdef")
        better = model.better(context, word)
        if word == "h":
            assert better is None
        else:
            ranking = model.suggest(context, 7)
            assert {model.words[i] for i in better} == set(ranking[: ranking.index(word)])
            assert len(better) == ranking.index(word)
