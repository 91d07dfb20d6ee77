"""A phone's own model: what each rule moves, how far, and that a phone keeps the shared one where its own is worse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.device_sim.personal import Ditto, FineTune, OutputBias, personalise
from kbdfl.errors import ConfigError
from kbdfl.kernels import reference
from kbdfl.kernels.train import local_sgd
from kbdfl.model import CifgConfig, init_params
from kbdfl.text import BOS, EOS, UNK, pack

CONFIG = CifgConfig(vocab=40, embed=8, hidden=12)
SHARED = init_params(CONFIG, seed=3, word_frequencies=1.0 / np.arange(1, 37))
HABIT = [[BOS, 20, 21, 22, EOS]] * 40
RULES = [FineTune(3.0, 5), Ditto(3.0, 5, 0.01), OutputBias(10.0)]


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
    np.testing.assert_array_equal(
        personalise(SHARED, CONFIG, said, rule, seed=1), rule.tuned(SHARED, CONFIG, said, seed=1)
    )


def test_ditto_without_a_pull_is_fine_tuning():
    pulled, free = (
        rule.tuned(SHARED, CONFIG, HABIT, seed=1) for rule in (Ditto(0.5, 2, 0.0), FineTune(0.5, 2))
    )
    np.testing.assert_array_equal(pulled, free)


@given(pull=st.floats(0.01, 0.5))
@settings(max_examples=10, deadline=None)
def test_dittos_pull_shortens_the_way(pull):
    rules = Ditto(0.5, 5, 2 * pull), Ditto(0.5, 5, pull)
    near, far = (np.linalg.norm(rule.tuned(SHARED, CONFIG, HABIT, seed=1) - SHARED) for rule in rules)
    assert near < far


def test_dittos_pull_is_the_gradient_of_half_its_squared_distance():
    """A second step by hand: the first has no distance yet."""
    sentences = HABIT[:16]
    batch = pack([sentences]).arrays

    def step(params):
        return local_sgd(params, **CONFIG.dims, **batch, learning_rate=0.5, clip_norm=1.0)[0]

    moved = SHARED + step(SHARED)
    expected = moved + step(moved) - 0.5 * 0.25 * (moved - SHARED)
    own = Ditto(0.5, 2, 0.25).tuned(SHARED, CONFIG, sentences, seed=1)
    np.testing.assert_allclose(own, expected, atol=1e-6)


def test_an_output_bias_is_all_that_is_private_of_it():
    own = OutputBias().tuned(SHARED, CONFIG, HABIT, seed=1)
    moved = CONFIG.spec.views(own != SHARED)
    bias = moved.pop("bias")
    assert bias[4:].any()
    assert not bias[:4].any()
    assert not any(view.any() for view in moved.values())


def test_an_output_bias_moves_by_what_was_typed_over_what_was_expected():
    said = [[BOS, 20, 21, EOS], [BOS, 22, UNK, EOS], [BOS, 20, EOS]]
    batch = pack([said])
    chances = np.exp(
        reference.log_softmax(reference.logits(CONFIG.spec.views(SHARED), batch.inputs, batch.active))
    )
    expected = chances[batch.targets >= 0].sum(0)
    typed = np.bincount([20, 21, 22, 20], minlength=40)
    own = CONFIG.spec.views(OutputBias(2.0).tuned(SHARED, CONFIG, said, seed=1))["bias"]
    moved = (own - CONFIG.spec.views(SHARED)["bias"])[4:]
    np.testing.assert_allclose(moved, np.log((typed + 2.0) / (expected + 2.0))[4:], atol=1e-5)


@given(prior=st.floats(0.1, 1e4))
@settings(max_examples=10, deadline=None)
def test_an_output_biases_prior_holds_back(prior):
    strong, weak = (OutputBias(k).tuned(SHARED, CONFIG, HABIT, seed=1) for k in (2 * prior, prior))
    assert np.abs(strong - SHARED).sum() < np.abs(weak - SHARED).sum()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (lambda: FineTune(0.1, 0), "epochs must be >= 1, got 0"),
        (lambda: FineTune(0.0), "learning_rate must be > 0 and finite, got 0.0"),
        (lambda: Ditto(float("nan")), "learning_rate must be > 0 and finite, got nan"),
        (lambda: Ditto(pull=-0.1), "pull must be >= 0 and finite, got -0.1"),
        (lambda: OutputBias(0.0), "prior must be > 0 and finite, got 0.0"),
    ],
)
def test_a_rule_that_is_none_is_refused(rule, said):
    with pytest.raises(ConfigError, match=said):
        rule()
