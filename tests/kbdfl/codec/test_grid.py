import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kbdfl.codec.grid import BLOCK, Grid, pack_levels, unpack_levels
from kbdfl.errors import WireError
from kbdfl.params import ParamSpec

SPEC = ParamSpec((("emb", (100, 7)), ("bias", (100,))))
SIZE = SPEC.size


def params(seed=0, scale=0.1):
    return (scale * np.random.default_rng(seed).standard_normal(SIZE)).astype(np.float32)


def grid(seed=0, *, steps=1.0, scale=0.1):
    return Grid.of(params(seed, scale), SPEC, steps=steps)


@pytest.mark.parametrize("steps", [0.5, 1, 8])
def test_a_value_is_never_further_than_half_a_step_from_its_point(steps):
    found = grid(steps=steps)
    assert np.all(np.abs(found.values - params()) <= found.steps / 2)
    assert np.all(np.log2(found.steps) % 1 == 0)


def test_what_is_on_the_grid_stays_where_it_is():
    found = grid()
    again = Grid.of(found.values, SPEC, steps=1.0)
    np.testing.assert_array_equal(again.values, found.values)


def test_more_steps_are_finer_and_a_bias_has_the_finest():
    assert np.all(grid(steps=4).steps < grid(steps=1).steps)
    found = Grid.of(np.ones(1024, np.float32), ParamSpec((("emb", (256, 2)), ("bias", (512,)))), steps=1)
    assert found.steps[0] == 8 * found.steps[-1]


def test_a_large_value_makes_its_block_coarser_but_is_not_cut():
    wild = params()
    wild[5] = 1000
    found = Grid.of(wild, SPEC, steps=1)
    assert abs(found.values[5] - 1000) <= found.steps[5] / 2
    assert found.steps[-1] < found.steps[5]


@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from([0.1, 0.5, 8.0]))
def test_a_difference_added_to_what_is_held_is_the_new_version_bit_for_bit(old, new, scale):
    held, now = grid(old), grid(new, scale=scale)
    back = held.plus(now.minus(held))
    np.testing.assert_array_equal(back.levels, now.levels)
    np.testing.assert_array_equal(back.exponents, now.exponents)


def test_the_whole_model_is_the_difference_from_nothing():
    found = grid()
    back = Grid.zero(SIZE).plus(found.minus(Grid.zero(SIZE)))
    np.testing.assert_array_equal(back.values, found.values)


def test_nothing_changed_is_a_difference_of_zeros():
    difference = grid().minus(grid())
    assert not difference.levels.any()
    assert not difference.exponents.any()


@given(arrays(np.int8, st.integers(0, 300)), st.sampled_from([1, 3, 127]))
def test_packed_levels_read_back(levels, most):
    levels = np.clip(levels, -most, most)
    packed, escapes, bits = pack_levels(levels)
    np.testing.assert_array_equal(unpack_levels(packed, escapes, bits=bits, size=len(levels)), levels)
    assert packed.nbytes + escapes.nbytes <= len(levels) + 1


def test_few_large_levels_do_not_widen_the_others():
    levels = np.zeros(1000, np.int8)
    levels[::100] = 90
    packed, escapes, bits = pack_levels(levels)
    assert (len(packed), len(escapes), bits) == (250, 10, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 3}, "bits must be one of"),
        ({"packed": np.zeros(2, np.uint8)}, "9 levels of 2 bits need 3 bytes, got 2"),
        ({"packed": np.array([0, 0, 4], np.uint8)}, "what follows the last level"),
        ({"escapes": np.zeros(1, np.int8)}, "0 levels are escaped, got 1"),
        ({"packed": np.array([2, 0, 0], np.uint8)}, "1 levels are escaped, got 0"),
        ({"bits": 8, "packed": np.zeros(9, np.uint8), "escapes": np.zeros(1, np.int8)}, "no escapes"),
    ],
)
def test_levels_that_nobody_packed_are_refused(changes, message):
    sent = {"packed": np.zeros(3, np.uint8), "escapes": np.zeros(0, np.int8), "bits": 2} | changes
    with pytest.raises(WireError, match=message):
        unpack_levels(**sent, size=9)


def test_a_difference_that_leaves_the_grid_is_refused():
    held = grid()
    far = Grid(np.zeros(SIZE, np.int8), np.full(-(-SIZE // BLOCK), 100, np.int8))
    with pytest.raises(WireError, match="exponents must lie in"):
        held.plus(far)
    low = Grid(np.full(SIZE, -128, np.int8), np.zeros(-(-SIZE // BLOCK), np.int8))
    with pytest.raises(WireError, match=r"levels must be in \[-127, 127\]"):
        Grid.zero(SIZE).plus(low)
