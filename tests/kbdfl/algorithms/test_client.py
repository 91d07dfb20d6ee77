"""Client rules: what they refuse, and the rate they give to a round."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.algorithms import PRESETS, ClientRule
from kbdfl.algorithms.schedule import decayed
from kbdfl.errors import ConfigError

rates = st.floats(1e-4, 10)


@given(first=rates, last=rates, rounds=st.integers(1, 500))
def test_a_rate_decays_geometrically_and_then_stays(first, last, rounds):
    rate = [decayed(first, last, decay_rounds=rounds, round=k) for k in range(rounds + 3)]
    assert rate[0] == first
    assert rate[rounds:] == pytest.approx([last] * 3)
    for k in range(rounds):
        assert rate[k + 1] / rate[k] == pytest.approx((last / first) ** (1 / rounds))


@given(first=rates, last=rates, round=st.integers(0, 10**9))
def test_without_decay_rounds_a_rate_stays_as_it_is(first, last, round):
    assert decayed(first, last, decay_rounds=0, round=round) == first


def test_a_round_carries_its_rate_and_nothing_else_changes():
    rule = ClientRule(learning_rate=2.0, final_learning_rate=0.5, decay_rounds=10, proximal=0.1)
    assert rule.of_round(5) == replace(rule, learning_rate=1.0, decay_rounds=0)
    assert rule.of_round(99).learning_rate == pytest.approx(0.5)
    assert ClientRule().of_round(7) == ClientRule()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": -1}, "steps must be >= 0, got -1"),
        ({"decay_rounds": -1}, "decay_rounds must be >= 0, got -1"),
        ({"final_learning_rate": 0.0}, "final_learning_rate must be > 0 and finite, got 0.0"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"momentum": float("nan")}, r"momentum must lie in \[0, 1\), got nan"),
        ({"proximal": -0.1}, "proximal must be >= 0 and finite, got -0.1"),
        ({"proximal": float("inf")}, "proximal must be >= 0 and finite, got inf"),
    ],
)
def test_an_impossible_client_rule_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        ClientRule(**values)


def test_fedprox_without_its_pull_is_fedavg():
    fedprox = PRESETS["fedprox"]
    assert fedprox.client.proximal > 0
    plain = replace(fedprox.client, proximal=0.0, partial_work=False)
    assert replace(fedprox, client=plain) == PRESETS["fedavg"]
