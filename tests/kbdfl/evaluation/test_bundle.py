"""Recall, rank, keystrokes and perplexity against naive twins, and what must not change them."""

import math

import pytest

from kbdfl.errors import ConfigError, DataError
from kbdfl.evaluation import evaluate_bundle
from kbdfl.export.predictor import Predictor
from kbdfl.kernels import reference
from kbdfl.text import IGNORED, pack


def by_hand(config, params, vocabulary, logs):
    """The same figures from the numpy twin over packed batches; (recall_top1, recall_top3, perplexity)."""
    sentences = vocabulary.encode_many([text for messages in logs.values() for text in messages])
    batch = pack([sentences])
    losses, ranks = reference.score(
        config.spec.views(params), batch.inputs, batch.targets, batch.active, first_word=4
    )
    known = batch.targets != IGNORED
    hits = ranks[known]
    return (hits < 1).sum() / known.size, (hits < 3).sum() / known.size, math.exp(losses[known].mean())


def test_figures_are_those_of_the_numpy_twin(bundles, params, vocabulary, logs):
    result = evaluate_bundle(bundles["float32"], logs)
    first, top3, perplexity = by_hand(bundles["float32"].config, params, vocabulary, logs)
    words = [word for messages in logs.values() for text in messages for word in text.split()]
    assert (result.tokens, result.users) == (len(words), 9)
    assert result.recall_top1 == first
    assert result.recall_top3 == top3
    assert 0 < first < top3 < 1
    # the twin's softmax includes the specials, of which the bias makes next to nothing
    assert result.perplexity == pytest.approx(perplexity, rel=1e-4)
    assert result.oov_rate == pytest.approx(sum(int(w[1:]) >= 40 for w in words) / len(words))


def typed_by_an_ideal_user(bundle, logs):
    """mrr and ksr, by asking the keyboard's own predictor before every key."""
    predictor, reciprocal, keys, characters = Predictor(bundle), [], 0, 0
    for text in (text for messages in logs.values() for text in messages):
        written = ", "  # not the start of a message: no capitals
        for word in text.split():
            ranking = [s.word for s in predictor.suggest(written, k=len(bundle.vocabulary))]
            reciprocal.append(1 / (1 + ranking.index(word)) if word in ranking else 0)
            known = word in bundle.vocabulary.tokens
            shown = [s for s in range(len(word)) if word in strip(predictor, written + word[:s])]
            keys += 1 + (shown[0] if known and shown else len(word))
            characters += len(word) + 1
            written += word + " "
    return math.fsum(reciprocal) / len(reciprocal), 1 - keys / characters


def strip(predictor, text):
    return [s.word for s in predictor.suggest(text)]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_rank_and_keystrokes_are_those_of_a_user_of_the_predictor(bundles, logs, precision):
    result = evaluate_bundle(bundles[precision], logs)
    mrr, ksr = typed_by_an_ideal_user(bundles[precision], logs)
    assert (result.mrr, result.ksr) == pytest.approx((mrr, ksr))
    assert 0 < ksr < 1
    assert result.kspc == pytest.approx(1 - ksr)


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
    assert both.mrr == only_known.mrr / 2
    assert both.kspc == pytest.approx((3 * only_known.kspc + 5) / 8)  # "w0 " at its rate, "what " in full
    assert both.oov_rate == 0.5
    assert both.perplexity == only_known.perplexity
    none = evaluate_bundle(bundle, {"a": ["what is this"]})
    assert (none.recall_top1, none.oov_rate, none.perplexity, none.tokens) == (0, 1, None, 3)
    assert (none.mrr, none.ksr, none.kspc) == (0, 0, 1)


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
