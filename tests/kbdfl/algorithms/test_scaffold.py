"""SCAFFOLD on quadratics, where everything is known in closed form, and the server's mean of control variates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.algorithms import PRESETS, Algorithm, ClientRule
from kbdfl.algorithms.robust import Median
from kbdfl.algorithms.scaffold import ServerControl, correction, renewed_control
from kbdfl.errors import ConfigError

# f_i(x) = a_i/2 (x - b_i)^2: their sum has its minimum at sum(a b) / sum(a).
CURVATURE, CENTRE = np.array([1.0, 10.0]), np.array([-1.0, 1.0])
MINIMUM = np.float32((CURVATURE * CENTRE).sum() / CURVATURE.sum())
STEPS, RATE = 10, 0.05


def gradient(client, x):
    return np.float32(CURVATURE[client]) * (x - np.float32(CENTRE[client]))


def local(client, x, corrected):
    y = x.copy()
    for _ in range(STEPS):
        y -= np.float32(RATE) * (gradient(client, y) + (0 if corrected is None else corrected))
    return y - x


def fedavg(rounds):
    x = np.zeros(1, np.float32)
    for _ in range(rounds):
        x = x + (local(0, x, None) + local(1, x, None)) / 2
    return x


def scaffold(rounds, *, option, cohort=lambda _: (0, 1), server_rate=1.0):
    x, own = np.zeros(1, np.float32), {}
    server = ServerControl.of_state(ServerControl.begin(1))
    for round in range(rounds):
        deltas = []
        for client in cohort(round):
            corrected = correction(server.mean, own[client]) if client in own else None
            delta = local(client, x, corrected)
            if option == 1:
                new = gradient(client, x)
            else:
                new = renewed_control(delta, corrected, steps=STEPS, learning_rate=RATE)
            server.add(new - own.get(client, 0), weight=1.0, first=client not in own)
            own[client] = new
            deltas.append(delta)
        server = ServerControl.of_state(server.renew())
        x = x + np.float32(server_rate) * np.mean(deltas, axis=0)
    return x, server, own


@pytest.mark.parametrize("option", [1, 2])
def test_scaffold_finds_the_minimum_of_two_quadratics_and_fedavg_does_not(option):
    x, *_ = scaffold(60, option=option)
    np.testing.assert_allclose(x, MINIMUM, rtol=1e-4)
    # FedAvg's fixed point in closed form: each client goes the share 1 - (1 - rate a)^K of its way.
    share = 1 - (1 - RATE * CURVATURE) ** STEPS
    drifted = (share * CENTRE).sum() / share.sum()
    np.testing.assert_allclose(fedavg(60), drifted, rtol=1e-4)
    assert abs(drifted - MINIMUM) > 0.3


@pytest.mark.parametrize("option", [1, 2])
def test_at_the_minimum_the_control_variates_are_the_clients_gradients(option):
    x, server, own = scaffold(60, option=option)
    for client in (0, 1):
        np.testing.assert_allclose(own[client], gradient(client, x), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(server.mean, 0, atol=1e-4)


@pytest.mark.parametrize("option", [1, 2])
def test_scaffold_finds_the_minimum_when_clients_take_turns(option):
    x, server, own = scaffold(400, option=option, cohort=lambda round: (round % 2,), server_rate=0.1)
    np.testing.assert_allclose(x, MINIMUM, rtol=1e-3)
    np.testing.assert_allclose(server.mean, (own[0] + own[1]) / 2, atol=1e-4)


def test_the_second_option_is_the_mean_gradient_of_the_steps():
    random = np.random.default_rng(1)
    gradients, corrected = random.standard_normal((STEPS, 5)), random.standard_normal(5)
    delta = (-RATE * (gradients + corrected)).sum(0)
    new = renewed_control(delta, corrected, steps=STEPS, learning_rate=RATE)
    np.testing.assert_allclose(new, gradients.mean(0), rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(rounds=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True), max_size=8))
def test_c_is_the_mean_of_the_phones_that_ever_reported(rounds):
    random, own = np.random.default_rng(1), {}
    server = ServerControl.of_state(ServerControl.begin(3))
    for cohort in rounds:
        before, size = server.mean.copy(), len(own)
        changes = []
        for phone in cohort:
            new = random.standard_normal(3).astype(np.float32)
            changes.append(new - own.get(phone, np.float32(0)))
            server.add(changes[-1], weight=2.0, first=phone not in own)
            own[phone] = new
        server = ServerControl.of_state(server.renew())
        np.testing.assert_allclose(server.mean, np.mean(list(own.values()), axis=0), rtol=1e-4, atol=1e-5)
        if size == len(own):  # nobody new: the paper's c + |S|/N mean change
            paper = before + len(cohort) / size * np.mean(changes, axis=0)
            np.testing.assert_allclose(server.mean, paper, rtol=1e-4, atol=1e-5)
    assert not server.mean.flags.writeable


def test_a_round_without_reports_leaves_c_as_it_is():
    fresh = ServerControl.of_state(ServerControl.begin(3))
    np.testing.assert_array_equal(fresh.renew()["control"], np.zeros(3))


def test_scaffold_is_a_row_of_the_table():
    assert PRESETS["scaffold"].client.scaffold == 2
    assert PRESETS["scaffold"].weights == "uniform"


def test_scaffold_refuses_a_robust_mean_that_its_c_is_not():
    with pytest.raises(ConfigError, match="aggregate must be mean with scaffold"):
        Algorithm(ClientRule(scaffold=2), aggregate=Median())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scaffold": 3}, "scaffold must be 0, 1 or 2, got 3"),
        ({"scaffold": 2, "momentum": 0.5}, "momentum must be 0 with scaffold, got 0.5"),
        ({"scaffold": 1, "proximal": 0.5}, "proximal must be 0 with scaffold, got 0.5"),
        ({"scaffold": 1, "candidates": 5}, "candidates must be 0 with scaffold, got 5"),
        ({"scaffold": 2, "report_words": 7}, "report_words must be 0 with scaffold, got 7"),
        ({"control_rounds": -1}, "control_rounds must be >= 0, got -1"),
    ],
)
def test_what_scaffold_cannot_go_with_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        ClientRule(**values)
