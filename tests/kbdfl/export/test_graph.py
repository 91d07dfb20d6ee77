"""The step graph against the equations, against onnx's own interpreter, and against its size."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from kbdfl.errors import ConfigError, ModelError
from kbdfl.export.graph import quantise, step_graph
from kbdfl.model import CifgConfig, init_params, preset

SMALL = CifgConfig(vocab=300, embed=16, hidden=24)


def equations(params, config, tokens):
    """Logits (T,V) in float64, written from the model's equations."""
    p = {name: view.astype(np.float64) for name, view in config.spec.views(params).items()}
    r, c = np.zeros(config.embed), np.zeros(config.hidden)
    logits = []
    for token in tokens:
        g, f, o = np.split(p["emb"][token] @ p["wx"] + r @ p["wh"] + p["bg"], 3)
        f, o = 1 / (1 + np.exp(-f)), 1 / (1 + np.exp(-o))
        c = f * c + (1 - f) * np.tanh(g)
        r = (o * np.tanh(c)) @ p["wp"]
        logits.append(r @ p["emb"].T + p["bias"])
    return np.array(logits)


def onnxruntime_step(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feeds: session.run(None, feeds)


def reference_step(model):
    evaluator = ReferenceEvaluator(model)
    return lambda feeds: evaluator.run(None, feeds)


def unrolled(step, config, tokens):
    """top_ids (T,3), top_probs (T,3), logits (T,V) of a sentence."""
    r, c = np.zeros((1, config.embed), np.float32), np.zeros((1, config.hidden), np.float32)
    rows = []
    for token in tokens:
        ids, probabilities, logits, r, c = step(
            {"token": np.array([token], np.int64), "state_r": r, "state_c": c}
        )
        rows.append((ids[0], probabilities[0], logits[0]))
    return [np.array(column) for column in zip(*rows, strict=True)]


def trained_like(config, seed):
    """Parameters as large as those of a trained model, special tokens' biases included."""
    return 3 * init_params(config, seed=seed)


def graph(params, config, precision):
    return step_graph(params, config, precision=precision, metadata={"round": 1})


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_float32_logits_agree_with_the_equations_over_whole_sentences(seed):
    params = trained_like(SMALL, seed)
    tokens = np.random.default_rng(seed).integers(1, SMALL.vocab, 40)
    _, _, logits = unrolled(onnxruntime_step(graph(params, SMALL, "float32")), SMALL, tokens)
    assert np.abs(logits - equations(params, SMALL, tokens)).max() <= 1e-4


def test_gboard_float32_logits_agree_with_the_equations():
    config = preset("gboard")
    params = trained_like(config, 1)
    tokens = np.random.default_rng(1).integers(1, config.vocab, 15)
    _, _, logits = unrolled(onnxruntime_step(graph(params, config, "float32")), config, tokens)
    assert np.abs(logits - equations(params, config, tokens)).max() <= 1e-4


def test_gboard_int8_fits_its_budget_and_stores_the_embedding_once():
    config = preset("gboard")
    model = graph(init_params(config, seed=1), config, "int8")
    assert len(model.SerializeToString()) <= 1_465_000
    large = [t for t in model.graph.initializer if config.vocab in t.dims and config.embed in t.dims]
    assert [t.name for t in large] == ["emb"]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_suggestions_are_the_softmax_over_words_of_the_logits(precision):
    tokens = np.random.default_rng(5).integers(1, SMALL.vocab, 20)
    ids, probabilities, logits = unrolled(
        onnxruntime_step(graph(trained_like(SMALL, 5), SMALL, precision)), SMALL, tokens
    )
    words = np.exp(logits[:, 4:].astype(np.float64))
    words /= words.sum(1, keepdims=True)
    order = np.argsort(-words, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(ids, order + 4)
    np.testing.assert_allclose(probabilities, np.take_along_axis(words, order, 1), rtol=1e-4)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_onnxruntime_and_the_reference_interpreter_choose_the_same_words(precision, seed):
    model = graph(trained_like(SMALL, seed), SMALL, precision)
    tokens = np.random.default_rng(seed).integers(1, SMALL.vocab, 25)
    ours, theirs = (unrolled(step(model), SMALL, tokens) for step in (onnxruntime_step, reference_step))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[2], theirs[2], atol=1e-3)


def test_int8_stays_close_to_float32():
    params = init_params(SMALL, seed=4)
    tokens = np.random.default_rng(4).integers(1, SMALL.vocab, 40)
    exact, rounded = (
        unrolled(onnxruntime_step(graph(params, SMALL, precision)), SMALL, tokens)[2][:, 4:]
        for precision in ("float32", "int8")
    )
    assert 0 < np.sqrt(((rounded - exact) ** 2).mean()) < 0.03 * exact.std()


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_special_tokens_are_never_suggested_however_likely_they_are(precision):
    params = trained_like(SMALL, 6)
    SMALL.spec.views(params)["bias"][:4] = 1000
    tokens = np.random.default_rng(6).integers(0, SMALL.vocab, 20)
    ids, probabilities, logits = unrolled(onnxruntime_step(graph(params, SMALL, precision)), SMALL, tokens)
    assert (logits.argmax(1) < 4).all()
    assert ids.min() >= 4
    assert (probabilities > 0).all()


def test_the_graph_declares_opset_17_ir_8_and_keeps_its_metadata():
    model = graph(init_params(SMALL, seed=1), SMALL, "int8")
    assert model.ir_version == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"round": "1"}


def test_equal_parameters_give_equal_bytes():
    params = init_params(SMALL, seed=1)
    first, second = (graph(params, SMALL, "int8").SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    axis=st.sampled_from([0, 1]),
    spread=st.floats(-4, 3),
)
def test_quantise_errs_by_at_most_half_a_step(seed, size, axis, spread):
    weights = (10**spread * np.random.default_rng(seed).normal(size=size)).astype(np.float32)
    q, scales = quantise(weights, axis=axis)
    assert q.dtype == np.int8
    assert np.abs(q.astype(int)).max() <= 127
    widened = scales.astype(np.float64)
    assert (np.abs(q * widened - weights) <= widened * 0.500_01).all()


def test_quantise_takes_a_row_of_zeros_and_refuses_what_float16_cannot_scale():
    q, scales = quantise(np.zeros((2, 3), np.float32), axis=1)
    assert not q.any()
    assert (scales > 0).all()
    with pytest.raises(ModelError, match="below"):
        quantise(np.full((1, 1), 1e9, np.float32), axis=1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_refused(value):
    params = init_params(SMALL, seed=1)
    params[17] = value
    with pytest.raises(ModelError, match="finite, 1 are not"):
        graph(params, SMALL, "float32")


def test_a_bias_beyond_float16_is_refused_by_int8_alone():
    params = init_params(SMALL, seed=1)
    params[-1] = 1e6
    assert graph(params, SMALL, "float32").graph.node
    with pytest.raises(ModelError, match="float16"):
        graph(params, SMALL, "int8")


def test_parameters_of_another_model_and_unknown_precisions_are_refused():
    params = init_params(SMALL, seed=1)
    with pytest.raises(ModelError, match="flat vector"):
        graph(params[:-1], SMALL, "float32")
    with pytest.raises(ConfigError, match="precision must be one of float32, int8, got int4"):
        graph(params, SMALL, "int4")
    small = CifgConfig(vocab=6, embed=2, hidden=2)
    with pytest.raises(ConfigError, match="at least 3 words, got 2"):
        graph(init_params(small, seed=1), small, "float32")
