"""An exported graph agrees with the parameters it was made of, and with no others."""

import pytest

from kbdfl.errors import DataError
from kbdfl.evaluation import agreement


def test_float32_agrees_with_the_trained_model_and_int8_nearly(bundles, params, vocabulary, logs):
    sentences = vocabulary.encode_many(logs["user1"])
    assert 0 < agreement(bundles["float32"], params, bundles["float32"].config, sentences) <= 1e-4
    assert 1e-4 < agreement(bundles["int8"], params, bundles["float32"].config, sentences) < 1


def test_agreement_sees_another_model(bundles, params, vocabulary):
    other = params.copy()
    other[-1] += 0.01
    difference = agreement(
        bundles["float32"], other, bundles["float32"].config, vocabulary.encode_many(["w1 w2 w3"])
    )
    assert difference == pytest.approx(0.01, rel=0.01)
    with pytest.raises(DataError, match="at least one sentence"):
        agreement(bundles["float32"], params, bundles["float32"].config, [])
