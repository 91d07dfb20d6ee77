from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kbdfl.algorithms import SERVER_RULES, FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi
from kbdfl.errors import ConfigError

RULES = [FedAvg(0.5), FedAvgM(), FedAdagrad(), FedAdam(), FedAdam(decay_rounds=3), FedYogi()]
ADAPTIVE = [FedAdagrad, FedAdam, FedYogi]
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


def test_fedavgms_steps_are_the_papers():
    """m = d, then 0.5 d + e: not averaged."""
    rule, zero = FedAvgM(learning_rate=0.25, momentum=0.5), np.zeros(2, np.float32)
    first, state = rule.apply(zero, np.array([4, -8], np.float32), rule.init(2), round=0)
    np.testing.assert_array_equal(first, [1, -2])
    second, state = rule.apply(first, np.array([2, 0], np.float32), state, round=1)
    np.testing.assert_array_equal(state["m"], [4, -4])
    np.testing.assert_array_equal(second, [2, -3])


@given(VECTORS, VECTORS)
def test_fedavgm_without_momentum_is_fedavg(params, delta):
    after, _ = FedAvgM(0.5, momentum=0.0).apply(params, delta, FedAvgM().init(5), round=0)
    np.testing.assert_array_equal(after, FedAvg(0.5).apply(params, delta, {}, round=0)[0])


def test_a_steady_delta_makes_fedavgm_one_over_one_less_momentum_as_fast():
    rule, params, delta = FedAvgM(momentum=0.75), np.zeros(1, np.float32), np.ones(1, np.float32)
    state = rule.init(1)
    for number in range(60):
        before = params
        params, state = rule.apply(params, delta, state, round=number)
    np.testing.assert_allclose(params - before, [4], rtol=1e-5)


def test_fedadagrads_first_step_is_the_papers():
    """beta1 = 0: m = d; v = eps^2 + d^2."""
    rule = FedAdagrad(learning_rate=0.5, epsilon=0.125)
    after, state = rule.apply(np.ones(2, np.float32), np.array([2, 0], np.float32), rule.init(2), round=0)
    v = 0.015625 + 4
    np.testing.assert_allclose(state["m"], [2, 0])
    np.testing.assert_allclose(state["v"], [v, 0.015625], rtol=1e-6)
    np.testing.assert_allclose(after, [1 + 0.5 * 2 / (v**0.5 + 0.125), 1], rtol=1e-6)


def test_a_steady_delta_makes_fedadagrads_steps_fall_like_one_over_the_root_of_the_round():
    rule, params, delta = FedAdagrad(learning_rate=1.0), np.zeros(1, np.float32), np.ones(1, np.float32)
    state, steps = rule.init(1), []
    for number in range(100):
        after, state = rule.apply(params, delta, state, round=number)
        steps.append(float((after - params)[0]))
        params = after
    np.testing.assert_allclose(steps, 1 / np.sqrt(np.arange(1, 101)), rtol=1e-3)


def test_fedyogis_first_step_is_the_papers():
    """v = eps^2 - 0.01 d^2 sign(eps^2 - d^2): up by 0.01 d^2 where d is large, down by it where d is small."""
    rule = FedYogi(learning_rate=0.5, epsilon=0.125)
    after, state = rule.apply(
        np.ones(2, np.float32), np.array([2, 0.0625], np.float32), rule.init(2), round=0
    )
    v = np.array([0.015625 + 0.01 * 4, 0.015625 - 0.01 * 0.00390625])
    np.testing.assert_allclose(state["m"], [0.2, 0.00625], rtol=1e-6)
    np.testing.assert_allclose(state["v"], v, rtol=1e-6)
    np.testing.assert_allclose(after, 1 + 0.5 * np.array([0.2, 0.00625]) / (np.sqrt(v) + 0.125), rtol=1e-6)


@given(VECTORS, arrays(np.float32, 5, elements=st.floats(0, 100, width=32)))
def test_yogis_second_moment_moves_by_the_square_at_most_and_towards_it(delta, v):
    rule = FedYogi()
    after = rule.second_moment(v, np.square(delta))
    step = (1 - rule.beta2) * np.square(delta.astype(np.float64))
    assert (np.abs(after.astype(np.float64) - v) <= step + 1e-5 * (v + step) + 1e-40).all()  # denormals
    assert (np.sign(after - v) * np.sign(np.square(delta) - v) >= 0).all()
    assert (after >= 0).all()


def test_a_burst_leaves_adams_second_moment_faster_than_yogis():
    ends = []
    for rule in (FedAdam(), FedYogi()):
        state = {"m": np.zeros(1, np.float32), "v": np.ones(1, np.float32)}
        for number in range(300):
            _, state = rule.apply(np.zeros(1, np.float32), np.full(1, 0.01, np.float32), state, round=number)
        ends.append(float(state["v"][0]))
    assert ends[0] < 0.1 < 0.9 < ends[1]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(deltas=arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)))
def test_mirrored_deltas_go_the_mirrored_way(rule, deltas):
    ends = []
    for sign in (1, -1):
        params, state = np.zeros(5, np.float32), rule.init(5)
        for number, delta in enumerate(deltas):
            params, state = rule.apply(params, np.float32(sign) * delta, state, round=number)
        ends.append((params, state))
    np.testing.assert_array_equal(ends[0][0], -ends[1][0])
    for name, array in ends[0][1].items():
        np.testing.assert_array_equal(array, ends[1][1][name] * (-1 if name == "m" else 1))


@pytest.mark.parametrize("kind", ADAPTIVE)
@given(factor=st.sampled_from([2.0**-3, 2.0**5]))
def test_an_adaptive_rule_goes_as_far_whatever_the_scale_of_the_deltas(kind, factor):
    """Up to epsilon, which grows along here: that is what adaptive means."""
    deltas, ends = np.linspace(-1, 1, 15, dtype=np.float32).reshape(3, 5), []
    for scale in (1.0, factor):
        rule, params = kind(epsilon=1e-3 * scale), np.zeros(5, np.float32)
        state = rule.init(5)
        for number, delta in enumerate(deltas):
            params, state = rule.apply(params, np.float32(scale) * delta, state, round=number)
        ends.append(params)
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", [FedAvg, FedAvgM, *ADAPTIVE])
def test_every_rate_falls_geometrically_and_then_stays(kind):
    rule = kind(learning_rate=0.08, final_learning_rate=0.02, decay_rounds=4)
    assert rule.rate(0) == pytest.approx(0.08)
    assert rule.rate(2) == pytest.approx(0.04)
    assert rule.rate(4) == rule.rate(400) == pytest.approx(0.02)
    assert kind(learning_rate=0.08, decay_rounds=0).rate(400) == 0.08


@pytest.mark.parametrize("kind", [FedAvg, FedAvgM, *ADAPTIVE])
def test_a_rule_steps_by_the_rate_of_the_round(kind):
    rule = kind(learning_rate=0.08, final_learning_rate=0.02, decay_rounds=4)
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
        (FedAvgM, {"momentum": 1.0}, r"server momentum must lie in \[0, 1\), got 1.0"),
        (FedYogi, {"beta2": float("nan")}, r"server beta2 must lie in \[0, 1\), got nan"),
        (FedAdagrad, {"epsilon": -1.0}, "server epsilon must be > 0"),
        (FedAvg, {"decay_rounds": -1}, "server decay_rounds must be >= 0, got -1"),
        (FedAdam, {"decay_rounds": -1}, "server decay_rounds must be >= 0, got -1"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule, values, message):
    with pytest.raises(ConfigError, match=message):
        rule(**values)


def test_rules_are_frozen_and_have_names():
    assert {
        "fedavg": FedAvg,
        "fedavgm": FedAvgM,
        "fedadagrad": FedAdagrad,
        "fedadam": FedAdam,
        "fedyogi": FedYogi,
    } == SERVER_RULES
    with pytest.raises(FrozenInstanceError):
        FedAvg().learning_rate = 2.0
