import numpy as np
import pytest

from kbdfl.errors import ConfigError
from kbdfl.kernels import reference
from kbdfl.model import PRESETS, CifgConfig, init_params, preset
from kbdfl.model.cifg import SPECIAL_TOKENS
from kbdfl.text import SPECIALS

CONFIG = CifgConfig(vocab=9, embed=3, hidden=5)


@pytest.mark.parametrize(("name", "size"), [("tiny", 12_180), ("small", 440_456), ("gboard", 1_422_250)])
def test_presets_have_their_sizes(name, size):
    assert preset(name).spec.size == size


def test_an_unknown_preset_is_refused_and_the_known_are_named():
    with pytest.raises(ConfigError, match="preset must be one of tiny, small, chat, gboard, got huge"):
        preset("huge")


def test_the_tensors_stand_in_the_order_that_the_kernels_read():
    assert [name for name, _ in CONFIG.spec.entries] == ["emb", "wx", "bg", "wh", "wp", "bias"]
    assert dict(CONFIG.spec.entries) == {
        "emb": (9, 3),
        "wx": (3, 15),
        "bg": (15,),
        "wh": (3, 15),
        "wp": (5, 3),
        "bias": (9,),
    }


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"vocab": 4}, "vocab must be > 4, got 4"),
        ({"embed": 0}, "embed must be >= 1, got 0"),
        ({"hidden": -3}, "hidden must be >= 1, got -3"),
    ],
)
def test_a_shape_without_words_or_cells_is_refused(shape, message):
    with pytest.raises(ConfigError, match=message):
        CifgConfig(**({"vocab": 9, "embed": 3, "hidden": 5} | shape))


def test_the_model_counts_the_same_specials_as_the_text():
    assert len(SPECIALS) == SPECIAL_TOKENS


def test_initial_parameters_follow_the_seed():
    first = init_params(CONFIG, seed=1)
    assert (first.dtype, first.shape) == (np.float32, (CONFIG.spec.size,))
    np.testing.assert_array_equal(first, init_params(CONFIG, seed=1))
    assert not np.array_equal(first, init_params(CONFIG, seed=2))


def test_weights_start_at_their_stated_scales():
    config = PRESETS["small"]
    views = config.spec.views(init_params(config, seed=3))
    for name, scale in {"emb": 0.1, "wx": 64**-0.5, "wh": 64**-0.5, "wp": 256**-0.5}.items():
        assert views[name].std() == pytest.approx(scale, rel=0.03)
        assert abs(views[name].mean()) < 0.05 * scale
    gates = views["bg"].reshape(3, 256)
    np.testing.assert_array_equal(gates[1], 1)  # the forget gate begins open
    assert not gates[[0, 2]].any()


def test_the_bias_starts_from_word_frequencies_and_never_offers_a_special():
    frequencies = np.array([8, 4, 2, 1, 1], np.float64)
    params = init_params(CONFIG, seed=1, word_frequencies=frequencies)
    bias = CONFIG.spec.views(params)["bias"]
    np.testing.assert_allclose(np.exp(bias[4:] - bias[8]), frequencies, rtol=1e-5)
    assert bias[4:].mean() == pytest.approx(0, abs=1e-6)
    assert (bias[:4] < bias[4:].min() - 10).all()
    scaled = init_params(CONFIG, seed=1, word_frequencies=100 * frequencies)
    np.testing.assert_allclose(scaled, params, rtol=1e-6, atol=1e-6)
    # and everything but the bias is as without them
    np.testing.assert_array_equal(params[:-9], init_params(CONFIG, seed=1)[:-9])


def test_round_zero_predicts_like_a_unigram_model():
    config = CifgConfig(vocab=54, embed=8, hidden=16)
    frequencies = 1 / np.arange(1, 51)
    params = init_params(config, seed=1, word_frequencies=frequencies)
    views = config.spec.views(params.astype(np.float64))
    logits = reference.logits(views, np.array([2]), np.array([1]))[0, 4:]
    probability = np.exp(reference.log_softmax(logits[None]))[0]
    np.testing.assert_allclose(probability, frequencies / frequencies.sum(), atol=0.03)


@pytest.mark.parametrize(
    "frequencies",
    [np.ones(4), np.ones(6), np.ones((5, 1)), np.array([1, 1, 0, 1, 1.0]), np.array([1, 1, np.nan, 1, 1])],
)
def test_frequencies_that_do_not_fit_the_words_are_refused(frequencies):
    with pytest.raises(ConfigError, match=r"word_frequencies must be positive, finite and of shape \(5,\)"):
        init_params(CONFIG, seed=1, word_frequencies=frequencies)
