"""A model that grew knows what it knew, and its new words are about as likely as they are typed."""

import numpy as np
import pytest

from kbdfl.discovery import grow
from kbdfl.discovery.grow import word_share
from kbdfl.errors import ConfigError
from kbdfl.model import CifgConfig, init_params
from kbdfl.text import Vocabulary

WORDS = [f"w{number}" for number in range(300)]
VOCABULARY = Vocabulary.of_words(WORDS, "a test")
MODEL = CifgConfig(vocab=len(VOCABULARY), embed=4, hidden=6)
PARAMS = init_params(MODEL, seed=1, word_frequencies=1 / np.arange(1, 301))


def grown(found, **more):
    return grow(
        PARAMS, MODEL, VOCABULARY, found, **({"phones": 100, "words_a_phone": 500.0, "seed": 1} | more)
    )


def test_old_words_keep_their_ids_and_parameters():
    model = grown({"weir": 40, "sluice": 70})
    assert model.vocabulary.tokens == (*VOCABULARY.tokens, "sluice", "weir")
    assert model.config.vocab == MODEL.vocab + 2
    assert model.added == 2
    old, new = MODEL.spec.views(PARAMS), model.config.spec.views(model.params)
    for name, view in old.items():
        assert np.array_equal(new[name][: len(view)], view)


def test_a_new_word_is_as_likely_as_it_is_typed():
    model = grown({"weir": 40, "sluice": 70})
    bias = model.config.spec.views(model.params)["bias"].astype(float)
    share = np.exp(bias[4:] - np.logaddexp.reduce(bias[4 : MODEL.vocab]))
    assert share[-2] == pytest.approx(word_share(70, phones=100, words_a_phone=500.0), rel=1e-3)
    assert share[-2] > share[-1]


def test_new_rows_are_near_known_ones_and_differ():
    model = grown({"weir": 40, "sluice": 40})
    rows = model.config.spec.views(model.params)["emb"]
    assert not np.array_equal(rows[-1], rows[-2])
    assert np.abs(rows[-1]).max() < np.abs(rows[:-2]).max()


def test_growing_follows_from_its_seed_and_known_words_are_left():
    assert np.array_equal(grown({"weir": 40}).params, grown({"weir": 40}).params)
    again = grown({"w7": 99})
    assert again.added == 0
    assert np.array_equal(again.params, PARAMS)
    assert again.vocabulary.sha256 == VOCABULARY.sha256


def test_the_source_of_the_vocabulary_says_that_words_were_found():
    assert grown({"weir": 40}).vocabulary.source == "a test; 1 words found by a private search"


@pytest.mark.parametrize("wrong", [{"phones": 1}, {"words_a_phone": 0.0}])
def test_impossible_counts_are_refused(wrong):
    with pytest.raises(ConfigError, match="phones must be >= 2 and words_a_phone > 0"):
        grown({"weir": 4}, **wrong)


def test_another_models_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="the vocabulary"):
        grow(PARAMS, MODEL, Vocabulary.of_words(["a"], "x"), {}, phones=9, words_a_phone=9.0, seed=1)


def test_a_word_that_every_phone_typed_has_a_share_still():
    assert 0 < word_share(100, phones=100, words_a_phone=500.0) < 0.1
