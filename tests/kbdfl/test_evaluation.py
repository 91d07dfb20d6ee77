"""Recall, perplexity and agreement against the numpy twin, and what must not change them."""

import math

import numpy as np
import pytest

from kbdfl.errors import ConfigError, DataError
from kbdfl.evaluation import agreement, evaluate_bundle
from kbdfl.export.bundle import load_bundle, write_bundle
from kbdfl.kernels import reference
from kbdfl.model import CifgConfig, init_params
from kbdfl.text import IGNORED, Vocabulary, pack

CONFIG = CifgConfig(vocab=44, embed=8, hidden=12)


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.of_words([f"w{i}" for i in range(CONFIG.vocab - 4)], "made up")


@pytest.fixture(scope="module")
def params():
    return 3 * init_params(CONFIG, seed=5, word_frequencies=1 / np.arange(1.0, CONFIG.vocab - 3))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, vocabulary, params):
    made = {}
    for precision in ("float32", "int8"):
        folder = tmp_path_factory.mktemp(precision)
        write_bundle(
            folder, params=params, config=CONFIG, vocabulary=vocabulary, precision=precision, facts={}
        )
        made[precision] = load_bundle(folder)
    return made


@pytest.fixture(scope="module")
def logs():
    """Nine users; a tenth of their words are unknown, some messages end in unknown words or are empty."""
    random = np.random.default_rng(11)
    words = [f"w{i}" for i in range(44)]  # four of them unknown
    return {
        f"user{u}": [
            " ".join(random.choice(words, random.integers(0, 9))) for _ in range(random.integers(1, 12))
        ]
        for u in range(9)
    }


def by_hand(params, vocabulary, logs):
    """The same figures from the numpy twin over packed batches; (recall_top1, recall_top3, perplexity)."""
    sentences = vocabulary.encode_many([text for messages in logs.values() for text in messages])
    batch = pack([sentences])
    losses, ranks = reference.score(
        CONFIG.spec.views(params), batch.inputs, batch.targets, batch.active, first_word=4
    )
    known = batch.targets != IGNORED
    hits = ranks[known]
    return (hits < 1).sum() / known.size, (hits < 3).sum() / known.size, math.exp(losses[known].mean())


def test_figures_are_those_of_the_numpy_twin(bundles, params, vocabulary, logs):
    result = evaluate_bundle(bundles["float32"], logs)
    first, top3, perplexity = by_hand(params, vocabulary, logs)
    words = [word for messages in logs.values() for text in messages for word in text.split()]
    assert (result.tokens, result.users) == (len(words), 9)
    assert result.recall_top1 == first
    assert result.recall_top3 == top3
    assert 0 < first < top3 < 1
    # the twin's softmax includes the specials, of which the bias makes next to nothing
    assert result.perplexity == pytest.approx(perplexity, rel=1e-4)
    assert result.oov_rate == pytest.approx(sum(int(w[1:]) >= 40 for w in words) / len(words))


def test_int8_measures_nearly_the_same(bundles, logs):
    exact, rounded = (evaluate_bundle(bundles[precision], logs) for precision in ("float32", "int8"))
    assert rounded.perplexity == pytest.approx(exact.perplexity, rel=0.05)
    assert rounded.oov_rate == exact.oov_rate


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_neither_threads_nor_the_order_of_users_change_the_result(bundles, logs, precision):
    bundle = bundles[precision]
    expected = evaluate_bundle(bundle, logs)
    assert evaluate_bundle(bundle, logs, threads=2) == expected
    assert evaluate_bundle(bundle, reversed(list(logs.items())), threads=3) == expected
    assert evaluate_bundle(bundle, iter(logs.items())) == expected


def test_an_unknown_word_is_a_miss_and_perplexity_does_not_see_it(bundles):
    bundle = bundles["float32"]
    only_known = evaluate_bundle(bundle, {"a": ["w0"]})
    both = evaluate_bundle(bundle, {"a": ["w0 what"]})
    assert both.recall_top3 == only_known.recall_top3 / 2
    assert both.oov_rate == 0.5
    assert both.perplexity == only_known.perplexity
    none = evaluate_bundle(bundle, {"a": ["what is this"]})
    assert (none.recall_top1, none.oov_rate, none.perplexity, none.tokens) == (0, 1, None, 3)


def test_an_unknown_word_is_part_of_the_context(bundles):
    bundle = bundles["float32"]
    after_known, after_unknown = (evaluate_bundle(bundle, {"a": [t]}) for t in ("w0 w1", "what w1"))
    assert after_known.perplexity != after_unknown.perplexity


def test_only_the_first_messages_of_a_user_count(bundles):
    bundle = bundles["float32"]
    result = evaluate_bundle(bundle, {"a": ["w0 w1", "w2", "w3"], "b": ["w4"]}, max_messages_per_user=1)
    assert (result.tokens, result.users) == (3, 2)


@pytest.mark.parametrize("logs", [{}, {"a": []}, {"a": ["", " ... "]}, iter([])])
def test_a_log_without_a_word_is_refused(bundles, logs):
    with pytest.raises(DataError, match="at least one word"):
        evaluate_bundle(bundles["float32"], logs)


@pytest.mark.parametrize("option", ["threads", "max_messages_per_user"])
def test_options_below_one_are_refused(bundles, option):
    with pytest.raises(ConfigError, match=f"{option} must be >= 1, got 0"):
        evaluate_bundle(bundles["float32"], {"a": ["w0"]}, **{option: 0})


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_of_the_log_ends_the_evaluation(bundles, threads):
    def broken():
        yield "a", ["w0"]
        raise DataError("line 2 is not JSON")

    with pytest.raises(DataError, match="line 2"):
        evaluate_bundle(bundles["float32"], broken(), threads=threads)


def test_float32_agrees_with_the_trained_model_and_int8_nearly(bundles, params, vocabulary, logs):
    sentences = vocabulary.encode_many(logs["user1"])
    assert 0 < agreement(bundles["float32"], params, CONFIG, sentences) <= 1e-4
    assert 1e-4 < agreement(bundles["int8"], params, CONFIG, sentences) < 1


def test_agreement_sees_another_model(bundles, params, vocabulary):
    other = params.copy()
    other[-1] += 0.01
    difference = agreement(bundles["float32"], other, CONFIG, vocabulary.encode_many(["w1 w2 w3"]))
    assert difference == pytest.approx(0.01, rel=0.01)
    with pytest.raises(DataError, match="at least one sentence"):
        agreement(bundles["float32"], params, CONFIG, [])
