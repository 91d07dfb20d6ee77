import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.algorithms import MODES, FedBuff, Synchronous
from kbdfl.errors import ConfigError


def test_modes_have_names():
    assert {"synchronous": Synchronous, "fedbuff": FedBuff} == MODES


@given(exponent=st.floats(0, 10), staleness=st.integers(0, 1000))
def test_an_update_never_counts_for_more_as_it_grows_staler(exponent, staleness):
    mode = FedBuff(exponent=exponent)
    assert 0 <= mode.scale(staleness + 1) <= mode.scale(staleness) <= 1


@pytest.mark.parametrize("mode", [Synchronous(), FedBuff(), FedBuff(exponent=3)], ids=repr)
def test_a_fresh_update_counts_in_full_to_the_bit(mode):
    assert mode.scale(0) == 1.0


def test_the_scale_of_the_paper_is_the_reciprocal_root_of_one_and_the_staleness():
    assert [FedBuff().scale(s) for s in (1, 3, 8)] == pytest.approx([2**-0.5, 1 / 2, 1 / 3])
    assert FedBuff(exponent=1).scale(4) == pytest.approx(1 / 5)
    assert FedBuff(exponent=0).scale(4) == 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("concurrency", 0, "concurrency must be >= 1, got 0"),
        ("max_staleness", -1, r"max_staleness must lie in \[0, 10000\], got -1"),
        ("max_staleness", 10**20, r"max_staleness must lie in \[0, 10000\], got 1000"),
        ("exponent", -0.5, r"exponent must be >= 0 and finite, got -0\.5"),
        ("exponent", float("inf"), "exponent must be >= 0 and finite, got inf"),
        ("exponent", float("nan"), "exponent must be >= 0 and finite, got nan"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(field, value, message):
    with pytest.raises(ConfigError, match=message):
        FedBuff(**{field: value})
