"""Updates on a grid: bounds that hold to the last bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kbdfl.errors import WireError
from kbdfl.privacy import Source
from kbdfl.privacy.grid import LEVELS, clip_to_grid, round_at_random, rounded_bound

VECTORS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32))


def exact_square(steps):
    return sum(int(step) ** 2 for step in steps)


@given(VECTORS, st.floats(1e-6, 1e6))
def test_no_part_is_longer_than_the_clip_norm_to_the_last_bit(delta, clip_norm):
    steps, _ = clip_to_grid(delta, clip_norm)
    assert steps.dtype == np.int64
    assert exact_square(steps) <= LEVELS**2


@given(VECTORS, st.floats(1e-3, 1e3))
def test_a_part_points_where_its_update_does(delta, clip_norm):
    steps, within = clip_to_grid(delta, clip_norm)
    norm = np.linalg.norm(delta.astype(float))
    wanted = delta.astype(float) * min(1.0, clip_norm / norm if norm else 1.0)
    np.testing.assert_allclose(steps * (clip_norm / LEVELS), wanted, atol=2.1 * clip_norm / LEVELS)
    if abs(norm - clip_norm) > 1e-6 * clip_norm:
        assert within == (norm <= clip_norm)


def test_a_part_that_floats_would_make_a_step_too_long_is_shortened(monkeypatch):
    monkeypatch.setattr("kbdfl.privacy.grid.l2_norm", lambda delta: 0.999 * float(np.linalg.norm(delta)))
    steps, _ = clip_to_grid(np.array([3.0, 4.0], np.float32), 1.0)
    assert exact_square(steps) <= LEVELS**2
    assert exact_square(steps) > 0.99 * LEVELS**2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused(bad):
    with pytest.raises(WireError, match="finite"):
        clip_to_grid(np.array([1.0, bad], np.float32), 1.0)


@given(st.integers(1, 400), st.floats(1.0, 500.0), st.integers(0, 2**32))
def test_random_rounding_stays_within_its_bound(size, levels, key):
    values = np.random.default_rng(key).normal(size=size)
    values *= levels / np.linalg.norm(values)
    steps = round_at_random(values, levels=levels, source=Source.of_key(key.to_bytes(32, "little")))
    assert exact_square(steps) <= rounded_bound(levels, size) ** 2
    assert np.abs(steps - values).max() < 1


def test_random_rounding_is_right_on_average(source):
    values = np.linspace(-3, 3, 50)
    levels = float(np.linalg.norm(values))
    mean = np.mean([round_at_random(values, levels=levels, source=source) for _ in range(4_000)], axis=0)
    assert np.abs(mean - values).max() < 0.05


def test_whole_numbers_are_left_as_they_are(source):
    assert round_at_random(np.array([3.0, -4.0]), levels=5.0, source=source).tolist() == [3, -4]
