"""The trigram as a row: it learns from training users alone and is asked for the words that models are asked for."""

from dataclasses import replace

import pytest

from kbdfl.device_sim.experiments.baselines import BackOff
from kbdfl.device_sim.population import Population
from kbdfl.errors import ConfigError
from kbdfl.metrics import evaluation_set


@pytest.fixture
def counted(data, make_texts):
    """Training users, public text and one message that is asked, of which `xyzzy` is unknown."""

    def make(*, training, public, asked):
        population = Population(make_texts({"user0": training}))
        sentences = data.vocabulary.encode_many(asked)
        part = replace(data.held_out, sentences=sentences, words=evaluation_set(sentences))
        return replace(data, population=population, public=make_texts({"anyone": public})), part

    return make


def test_the_trigram_follows_the_training_users(counted):
    data, part = counted(training=["see you now"] * 3, public=["see him then"] * 9, asked=["see you xyzzy"])
    trained = BackOff("trigram", "").train(data, seed=1, workers=1)
    assert trained.recall(part) == pytest.approx({"recall_top1": 2 / 3, "recall_top3": 2 / 3})
    assert trained.tokens == 9
    assert trained.curve(part) == []


def test_an_unknown_word_is_a_miss_and_a_known_one_is_found_behind_it(counted):
    data, part = counted(
        training=["xyzzy you now"] * 3, public=["see"], asked=["plugh you now", "xyzzy", "plugh you then"]
    )
    trained = BackOff("trigram", "").train(data, seed=1, workers=1)
    assert trained.recall(part)["recall_top1"] == pytest.approx(3 / 7)


@pytest.mark.parametrize(("public", "found"), [(0.0, 1 / 2), (0.6, 1 / 2), (1.1, 2 / 2)])
def test_public_text_counts_by_its_share(counted, public, found):
    """Nine public messages outvote three, until every one of these counts often enough."""
    data, part = counted(training=["see you"] * 3, public=["see him"] * 9, asked=["see you"])
    trained = BackOff("trigram", "", public).train(data, seed=1, workers=1)
    assert trained.recall(part)["recall_top1"] == pytest.approx(found)


def test_without_public_text_none_is_counted(data):
    with pytest.raises(ConfigError, match="there must be public text"):
        BackOff("trigram", "", 1.0).train(data, seed=1, workers=1)
