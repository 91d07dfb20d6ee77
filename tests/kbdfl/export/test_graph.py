"""The step graph against the equations, against onnx's own interpreter, and against its size."""

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from kbdfl.errors import ConfigError, ModelError
from kbdfl.export.graph import step_graph
from kbdfl.export.precision import PRECISIONS
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
    options.add_session_config_entry("session.x64quantprecision", "1")
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


@pytest.mark.parametrize(("precision", "budget"), [("int8", 1_460_800), ("int4", 819_800)])
def test_gboard_fits_its_budget_and_stores_the_embedding_once(precision, budget):
    config = preset("gboard")
    model = graph(init_params(config, seed=1), config, precision)
    assert len(model.SerializeToString()) <= budget
    heavy = [t.name for t in model.graph.initializer if len(t.raw_data) >= config.vocab * config.embed // 2]
    assert heavy == ["emb"]


@pytest.mark.parametrize("precision", PRECISIONS)
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
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-5), ("int8", 1e-3)])
def test_onnxruntime_and_the_reference_interpreter_choose_the_same_words(precision, bound, seed):
    model = graph(trained_like(SMALL, seed), SMALL, precision)
    tokens = np.random.default_rng(seed).integers(1, SMALL.vocab, 25)
    ours, theirs = (unrolled(step(model), SMALL, tokens) for step in (onnxruntime_step, reference_step))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[2], theirs[2], atol=bound)


def test_gboard_int8_chooses_the_words_of_the_reference_interpreter():
    config = preset("gboard")
    model = graph(trained_like(config, 2), config, "int8")
    tokens = np.random.default_rng(2).integers(1, config.vocab, 15)
    ours, theirs = (unrolled(step(model), config, tokens) for step in (onnxruntime_step, reference_step))
    np.testing.assert_array_equal(ours[0], theirs[0])


def as_stored(model, config):
    """The flat parameters (P,) that an int4 graph's bytes stand for: (nibble - 8) times the block's scale."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def matrix(name, width):
        packed, scales = stored[name], stored[f"{name}_scale"].astype(np.float32)
        steps = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], 32) - np.float32(8)
        return (steps * scales[:, :, None]).reshape(len(packed), -1)[:, :width]

    params = np.zeros(config.spec.size, np.float32)
    views = config.spec.views(params)
    views["emb"][:], views["wp"][:] = matrix("emb", config.embed), matrix("wp", config.hidden).T
    views["wx"][:], views["wh"][:] = np.split(matrix("w", 2 * config.embed).T, 2)
    views["bg"][:], views["bias"][:] = stored["bg"], stored["bias"]
    return params


def unrounded(model):
    """The same int4 graph, with activations left in float32."""
    for attribute in (attribute for node in model.graph.node for attribute in node.attribute):
        if attribute.name == "accuracy_level":
            attribute.i = 1
    return model


SHAPES = [SMALL, CifgConfig(vocab=300, embed=48, hidden=70), preset("small")]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("config", SHAPES)
def test_int4_computes_with_the_weights_that_its_bytes_stand_for(config, seed):
    model = unrounded(graph(trained_like(config, seed), config, "int4"))
    tokens = np.random.default_rng(seed).integers(1, config.vocab, 25)
    _, _, logits = unrolled(onnxruntime_step(model), config, tokens)
    expected = equations(as_stored(model, config), config, tokens)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-4)


def distance(ours, theirs):
    """Root mean square of the difference of words' logits, in standard deviations of `theirs`."""
    ours, theirs = ours[:, 4:], theirs[:, 4:]
    return np.sqrt(np.square(ours - theirs).mean()) / theirs.std()


@pytest.mark.parametrize("config", SHAPES)
def test_int4_loses_little_by_rounding_activations(config):
    params, tokens = init_params(config, seed=4), np.random.default_rng(4).integers(1, config.vocab, 25)
    model = graph(params, config, "int4")
    _, _, logits = unrolled(onnxruntime_step(model), config, tokens)
    assert distance(logits, unrolled(onnxruntime_step(unrounded(model)), config, tokens)[2]) < 0.02


@pytest.mark.parametrize("config", SHAPES)
@pytest.mark.parametrize(("precision", "bound"), [("int8", 0.03), ("int4", 0.25)])
def test_rounded_weights_stay_close_to_the_trained_ones(precision, bound, config):
    params, tokens = init_params(config, seed=4), np.random.default_rng(4).integers(1, config.vocab, 40)
    _, _, logits = unrolled(onnxruntime_step(graph(params, config, precision)), config, tokens)
    assert 0 < distance(logits, equations(params, config, tokens)) < bound


@pytest.mark.parametrize("precision", PRECISIONS)
def test_special_tokens_are_never_suggested_however_likely_they_are(precision):
    params = trained_like(SMALL, 6)
    SMALL.spec.views(params)["bias"][:4] = 1000
    tokens = np.random.default_rng(6).integers(0, SMALL.vocab, 20)
    ids, probabilities, logits = unrolled(onnxruntime_step(graph(params, SMALL, precision)), SMALL, tokens)
    assert (logits.argmax(1) < 4).all()
    assert ids.min() >= 4
    assert (probabilities > 0).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_graph_declares_opset_17_ir_8_and_keeps_the_metadata_that_is_known(precision):
    model = step_graph(
        init_params(SMALL, seed=1), SMALL, precision=precision, metadata={"round": 1, "recall": None}
    )
    assert model.ir_version == 8
    own = [("com.microsoft", 1)] if precision == "int4" else []
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17), *own]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"round": "1"}


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_equal_parameters_give_equal_bytes(precision):
    params = init_params(SMALL, seed=1)
    first, second = (graph(params, SMALL, precision).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_refused(value):
    params = init_params(SMALL, seed=1)
    params[17] = value
    with pytest.raises(ModelError, match="finite, 1 are not"):
        graph(params, SMALL, "float32")


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_bias_beyond_float16_is_refused_by_all_but_float32(precision):
    params = init_params(SMALL, seed=1)
    params[-1] = 1e6
    assert graph(params, SMALL, "float32").graph.node
    with pytest.raises(ModelError, match=r"bias must be below 65504 .*, got 1e\+06"):
        graph(params, SMALL, precision)


def test_parameters_of_another_model_and_unknown_precisions_are_refused():
    params = init_params(SMALL, seed=1)
    with pytest.raises(ModelError, match="flat vector"):
        graph(params[:-1], SMALL, "float32")
    with pytest.raises(ConfigError, match="precision must be one of float32, int8, int4, got int2"):
        graph(params, SMALL, "int2")
    small = CifgConfig(vocab=6, embed=2, hidden=2)
    with pytest.raises(ConfigError, match="at least 3 words, got 2"):
        graph(init_params(small, seed=1), small, "float32")
