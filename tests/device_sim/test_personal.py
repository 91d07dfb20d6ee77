"""A phone's own model: what each rule moves, how far, and that a phone keeps the shared one where its own is worse."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.device_sim.personal import Ditto, FineTune, OutputBias, personalise
from kbdfl.errors import ConfigError
from kbdfl.kernels import reference
from kbdfl.kernels.train import local_sgd
from kbdfl.model import CifgConfig, init_params
from kbdfl.rng import stream
from kbdfl.text import BOS, EOS, UNK, pack, training_batches

CONFIG = CifgConfig(vocab=40, embed=8, hidden=12)
SHARED = init_params(CONFIG, seed=3, word_frequencies=1.0 / np.arange(1, 37))
HABIT = [[BOS, 20, 21, 22, EOS]] * 40
RULES = [FineTune(3.0, 5), Ditto(3.0, 5, 0.01), OutputBias(3.0, 5, 0.003)]


def batches(sentences=HABIT, epochs=2):
    return training_batches(
        sentences, batch_size=16, epochs=epochs, max_words=30, random=np.random.Generator(np.random.PCG64(1))
    )


def nats(params, sentences=HABIT):
    words = pack([sentences])
    losses, _ = reference.score(
        CONFIG.spec.views(params), words.inputs, words.targets, words.active, first_word=4
    )
    return float(losses.mean())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_habit_is_learnt_and_the_shared_model_stays_as_it_is(rule):
    before = SHARED.copy()
    own = personalise(SHARED, CONFIG, HABIT, rule, seed=1)
    assert nats(own) < nats(SHARED) - 0.2
    np.testing.assert_array_equal(SHARED, before)
    np.testing.assert_array_equal(own, personalise(SHARED, CONFIG, HABIT, rule, seed=1))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_who_writes_otherwise_of_late_keeps_the_shared_model(rule):
    assert personalise(SHARED, CONFIG, [*HABIT[:36], *[[BOS, 5, 6, 7, EOS]] * 4], rule, seed=1) is SHARED


@pytest.mark.parametrize(
    "sentences", [[], HABIT[:1], [[BOS, UNK, EOS]] * 30, [*HABIT, *[[BOS, UNK, EOS]] * 9]]
)
def test_without_words_to_learn_from_and_to_check_with_a_phone_keeps_the_shared_model(sentences):
    assert personalise(SHARED, CONFIG, sentences, RULES[0], seed=1) is SHARED


def test_all_messages_teach_once_the_check_is_passed():
    rule, said = FineTune(1.0, 2), [*HABIT[:39], [BOS, 20, 21, 23, EOS]]
    everything = training_batches(said, batch_size=16, epochs=2, max_words=30, random=stream(1, "personal"))
    np.testing.assert_array_equal(
        personalise(SHARED, CONFIG, said, rule, seed=1), rule.tuned(SHARED, CONFIG, everything)
    )


def test_ditto_without_a_pull_is_fine_tuning():
    np.testing.assert_array_equal(
        Ditto(0.5, 2, 0.0).tuned(SHARED, CONFIG, batches()), FineTune(0.5, 2).tuned(SHARED, CONFIG, batches())
    )


@given(pull=st.floats(0.01, 0.5))
@settings(max_examples=10, deadline=None)
def test_dittos_pull_shortens_the_way(pull):
    near, far = (
        Ditto(0.5, 5, strength).tuned(SHARED, CONFIG, batches(epochs=5)) for strength in (2 * pull, pull)
    )
    assert np.linalg.norm(near - SHARED) < np.linalg.norm(far - SHARED)


def test_dittos_pull_is_the_gradient_of_half_its_squared_distance():
    """A second step by hand: the first has no distance yet."""
    rule, two = Ditto(0.5, 1, 0.25), batches(HABIT[:32], epochs=1)
    first = two.first(1)
    moved = SHARED + local_sgd(SHARED, **CONFIG.dims, **first.arrays, learning_rate=0.5, clip_norm=1.0)[0]
    second = replace(
        two,
        inputs=two.inputs[len(first.inputs) :],
        targets=two.targets[len(first.inputs) :],
        active=two.active[len(first.active) :],
        steps=two.steps[1:],
    )
    step = local_sgd(moved, **CONFIG.dims, **second.arrays, learning_rate=0.5, clip_norm=1.0)[0]
    expected = moved + step - 0.5 * 0.25 * (moved - SHARED)
    np.testing.assert_allclose(rule.tuned(SHARED, CONFIG, two), expected, atol=1e-6)


def test_an_output_bias_is_all_that_is_private_of_it():
    own = OutputBias(3.0, 2, 0.003).tuned(SHARED, CONFIG, batches())
    moved = CONFIG.spec.views(own != SHARED)
    assert moved.pop("bias").any()
    assert not any(view.any() for view in moved.values())


def test_an_output_biases_step_is_the_gradient():
    """Against the reference's gradient of the mean loss."""
    one = pack([[[BOS, 20, 21, EOS], [BOS, 22, UNK, EOS], [BOS, 20, EOS]]])
    gradient, _ = reference.gradient(CONFIG.spec.views(SHARED), one.inputs, one.targets, one.active)
    own = OutputBias(0.5, 1, 0.0).tuned(SHARED, CONFIG, one)
    expected = CONFIG.spec.views(SHARED)["bias"] - 0.5 * gradient["bias"]
    np.testing.assert_allclose(CONFIG.spec.views(own)["bias"], expected, atol=1e-6)


def test_an_output_biases_pull_leads_back():
    strong, weak = (OutputBias(1.0, 9, pull).tuned(SHARED, CONFIG, batches(epochs=9)) for pull in (0.5, 0.0))
    assert np.abs(strong - SHARED).sum() < np.abs(weak - SHARED).sum()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (lambda: FineTune(0.1, 0), "epochs must be >= 1, got 0"),
        (lambda: FineTune(0.0), "learning_rate must be > 0 and finite, got 0.0"),
        (lambda: OutputBias(float("nan")), "learning_rate must be > 0 and finite, got nan"),
        (lambda: Ditto(pull=-0.1), "pull must be >= 0 and finite, got -0.1"),
        (lambda: OutputBias(pull=float("inf")), "pull must be >= 0 and finite, got inf"),
    ],
)
def test_a_rule_that_is_none_is_refused(rule, said):
    with pytest.raises(ConfigError, match=said):
        rule()
