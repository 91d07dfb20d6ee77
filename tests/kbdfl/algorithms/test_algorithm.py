from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.algorithms import PRESETS, WEIGHTS, Algorithm, ClientRule, FedBuff, Median
from kbdfl.algorithms.base import chain
from kbdfl.codec import ClipNorm, Float32, Int8
from kbdfl.errors import ConfigError


def test_the_upload_and_its_clip_make_the_chain():
    assert Algorithm(upload="float32").transforms == (Float32(),)
    assert Algorithm(upload="int8", update_clip_norm=2.0).transforms == (ClipNorm(2.0), Int8())
    assert chain("int8", 2.0) == Algorithm(upload="int8", update_clip_norm=2.0).transforms


@given(st.integers(-5, 2**60), st.integers(1, 2**40))
def test_a_weight_is_the_examples_between_one_and_the_clamp(examples, most):
    weight = Algorithm(max_weight=most).weight(examples)
    assert isinstance(weight, float)
    assert 1 <= weight <= most
    if 1 <= examples <= most:
        assert weight == examples


def test_weights_by_name():
    weigh = {
        name: [Algorithm(weights=name, max_weight=16).weight(n) for n in (1, 4, 10**9)] for name in WEIGHTS
    }
    assert weigh == {"examples": [1, 4, 16], "uniform": [1, 1, 1], "sqrt": [1, 2, 4]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": "loudest"}, "weights must be one of examples, uniform, sqrt, got 'loudest'"),
        ({"upload": "morse"}, "upload must be one of .*, got 'morse'"),
        ({"update_clip_norm": -1.0}, "update_clip_norm must be >= 0 and finite, got -1.0"),
        ({"update_clip_norm": float("nan")}, "update_clip_norm must be >= 0 and finite, got nan"),
        ({"max_weight": 0}, "max_weight must be >= 1, got 0"),
        (
            {"mode": FedBuff(), "aggregate": Median()},
            r"aggregate must be mean with fedbuff, .*, got Median\(\)",
        ),
        (
            {"upload": "sample:0.5+int8", "client": ClientRule(feedback_rounds=9)},
            "feedback_rounds must be 0 with sample and shared.*got 9",
        ),
        ({"mode": FedBuff(), "client": ClientRule(scaffold=2)}, "scaffold must be 0 with fedbuff: .*, got 2"),
        (
            {"mode": FedBuff(), "client": ClientRule(report_words=9)},
            "report_words must be 0 with fedbuff, .*, got 9",
        ),
    ],
)
def test_an_algorithm_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Algorithm(**values)


@pytest.mark.parametrize("field", ["epochs", "batch_size", "max_messages", "max_words"])
def test_a_client_rule_counts_from_one(field):
    with pytest.raises(ConfigError, match=f"{field} must be >= 1, got 0"):
        ClientRule(**{field: 0})


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_client_rate_is_positive_and_finite(rate):
    with pytest.raises(ConfigError, match="learning_rate must be > 0 and finite"):
        ClientRule(learning_rate=rate)


@pytest.mark.parametrize("bound", [-1.0, float("inf"), float("nan")])
def test_a_client_clip_is_zero_or_positive_and_finite(bound):
    with pytest.raises(ConfigError, match="clip_norm must be >= 0 and finite"):
        ClientRule(clip_norm=bound)
    assert ClientRule(clip_norm=0.0).clip_norm == 0


def test_algorithms_are_plain_frozen_data():
    for algorithm in PRESETS.values():
        assert algorithm == replace(algorithm)
        assert hash(algorithm) == hash(replace(algorithm))
        with pytest.raises(FrozenInstanceError):
            algorithm.upload = "float32"
