"""The baselines answer as their own suggestions would, typed letter by letter."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.errors import DataError
from kbdfl.evaluation import evaluate_baseline
from kbdfl.ngram import Trigram, Unigram

WORDS = ["a", "ab", "abc", "b", "ba", "bab", "c", "ca", "cab", "never"]
MESSAGES = st.lists(st.lists(st.sampled_from(WORDS[:-1]), max_size=6), min_size=1, max_size=8).filter(any)


def naive(model, messages):
    """recall_top1, recall_top3, mrr and ksr from whole rankings and their words with the typed prefix."""
    first = top3 = reciprocal = keys = characters = total = 0
    for message in messages:
        for place, word in enumerate(message):
            ranking = model.suggest(message[:place], len(model.words))
            strips = [[w for w in ranking if w.startswith(word[:n])][:3] for n in range(len(word))]
            first += ranking[0] == word
            top3 += word in ranking[:3]
            reciprocal += 1 / (1 + ranking.index(word)) if word in ranking else 0
            keys += 1 + next((n for n, strip in enumerate(strips) if word in strip), len(word))
            characters += len(word) + 1
            total += 1
    return first / total, top3 / total, reciprocal / total, 1 - keys / characters


@settings(deadline=None)
@given(MESSAGES, st.lists(st.lists(st.sampled_from([*WORDS, "zorp"]), max_size=5), max_size=6).filter(any))
def test_scores_are_those_of_a_user_who_types_against_the_suggestions(training, unseen):
    for kind in (Trigram, Unigram):
        model = kind.train(training, words=WORDS)
        scores = evaluate_baseline(model, unseen)
        found = (scores.recall_top1, scores.recall_top3, scores.mrr, scores.ksr)
        assert found == pytest.approx(naive(model, unseen))
        if kind is Trigram:
            recall = model.recall(unseen)
            assert found[:2] == (recall["top1"], recall["top3"])


def test_without_a_word_there_is_nothing_to_predict():
    with pytest.raises(DataError, match="at least one word to predict"):
        evaluate_baseline(Unigram.train([["a"]]), [[], []])
