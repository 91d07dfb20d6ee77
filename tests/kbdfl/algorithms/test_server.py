from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kbdfl.algorithms import SERVER_RULES, FedAdam, FedAvg
from kbdfl.errors import ConfigError

RULES = [FedAvg(0.5), FedAdam(), FedAdam(decay_rounds=3)]
VECTORS = arrays(np.float32, 5, elements=st.floats(-100, 100, width=32))


def test_fedavg_adds_the_mean_delta_times_its_rate():
    params, delta = np.array([1, 2], np.float32), np.array([4, -8], np.float32)
    after, state = FedAvg(0.25).apply(params, delta, {}, round=0)
    np.testing.assert_array_equal(after, np.array([2, 0], np.float32))
    assert state == {}


@given(VECTORS, VECTORS)
def test_fedavg_with_rate_one_ends_where_the_phones_went(params, delta):
    after, _ = FedAvg().apply(params, delta, {}, round=0)
    np.testing.assert_array_equal(after, params + delta)


def test_fedadams_first_step_is_the_papers():
    """m = 0.1 d and v = 0.99 eps^2 + 0.01 d^2 from m0 = 0 and v0 = eps^2, without bias correction."""
    rule = FedAdam(learning_rate=0.5, beta1=0.9, beta2=0.99, epsilon=0.125)
    state = rule.init(2)
    np.testing.assert_array_equal(state["m"], [0, 0])
    np.testing.assert_array_equal(state["v"], [0.015625, 0.015625])
    after, state = rule.apply(np.array([1, 1], np.float32), np.array([2, 0], np.float32), state, round=0)
    v = 0.99 * 0.015625 + 0.01 * 4
    np.testing.assert_allclose(state["m"], [0.2, 0], rtol=1e-6)
    np.testing.assert_allclose(state["v"], [v, 0.99 * 0.015625], rtol=1e-6)
    np.testing.assert_allclose(after, [1 + 0.5 * 0.2 / (v**0.5 + 0.125), 1], rtol=1e-6)


def test_fedadams_second_step_remembers_the_first():
    rule, zero = FedAdam(learning_rate=1.0, epsilon=1e-3), np.zeros(1, np.float32)
    _, state = rule.apply(zero, np.array([1], np.float32), rule.init(1), round=0)
    after, state = rule.apply(zero, zero, state, round=1)
    v = 0.99 * (0.99 * 1e-6 + 0.01)
    np.testing.assert_allclose(after, [0.09 / (v**0.5 + 1e-3)], rtol=1e-5)


def test_fedadams_rate_falls_geometrically_and_then_stays():
    rule = FedAdam(learning_rate=0.08, final_learning_rate=0.02, decay_rounds=4)
    assert rule.rate(0) == pytest.approx(0.08)
    assert rule.rate(2) == pytest.approx(0.04)
    assert rule.rate(4) == rule.rate(400) == pytest.approx(0.02)
    assert FedAdam(learning_rate=0.08, decay_rounds=0).rate(400) == 0.08


def test_fedadam_steps_by_the_rate_of_the_round():
    rule = FedAdam(learning_rate=0.08, final_learning_rate=0.02, decay_rounds=4)
    zero, delta = np.zeros(3, np.float32), np.ones(3, np.float32)
    first, _ = rule.apply(zero, delta, rule.init(3), round=0)
    last, _ = rule.apply(zero, delta, rule.init(3), round=9)
    np.testing.assert_allclose(first / last, 4, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(params=VECTORS, delta=VECTORS)
def test_nothing_that_is_passed_in_is_changed_or_kept(rule, params, delta):
    state = rule.init(5)
    given_arrays = [params, delta, *state.values()]
    before = [array.copy() for array in given_arrays]
    for array in given_arrays:
        array.setflags(write=False)
    after, new_state = rule.apply(params, delta, state, round=1)
    for array, copy in zip(given_arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert new_state.keys() == state.keys()
    for array in (after, *new_state.values()):
        assert array.dtype == np.float32
        assert array.shape == (5,)
        assert not any(np.shares_memory(array, other) for other in given_arrays)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(params=VECTORS)
def test_a_round_in_which_nothing_was_learnt_moves_nothing_at_first(rule, params):
    after, _ = rule.apply(params, np.zeros(5, np.float32), rule.init(5), round=0)
    np.testing.assert_array_equal(after, params)


@pytest.mark.parametrize(
    ("rule", "values", "message"),
    [
        (FedAvg, {"learning_rate": 0.0}, "server learning_rate must be > 0 and finite, got 0.0"),
        (FedAvg, {"learning_rate": float("nan")}, "server learning_rate must be > 0"),
        (FedAdam, {"learning_rate": float("inf")}, "server learning_rate must be > 0 and finite, got inf"),
        (FedAdam, {"final_learning_rate": -1.0}, "server final_learning_rate must be > 0"),
        (FedAdam, {"epsilon": 0.0}, "server epsilon must be > 0"),
        (FedAdam, {"beta1": 1.0}, r"server beta1 must lie in \[0, 1\), got 1.0"),
        (FedAdam, {"beta2": -0.1}, r"server beta2 must lie in \[0, 1\), got -0.1"),
        (FedAdam, {"decay_rounds": -1}, "server decay_rounds must be >= 0, got -1"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule, values, message):
    with pytest.raises(ConfigError, match=message):
        rule(**values)


def test_rules_are_frozen_and_have_names():
    assert {"fedavg": FedAvg, "fedadam": FedAdam} == SERVER_RULES
    with pytest.raises(FrozenInstanceError):
        FedAvg().learning_rate = 2.0
