"""Weights in whole steps of a float16 scale: how far they are from what they stand for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.errors import ModelError
from kbdfl.export.precision import BLOCK, half, quantise_int4, quantise_int8

seeds, spreads = st.integers(0, 2**32 - 1), st.floats(-4, 3)


def drawn(seed, size, spread):
    return (10**spread * np.random.default_rng(seed).normal(size=size)).astype(np.float32)


def blocks(weights):
    """(N,n,32), filled up with zeros."""
    return np.pad(weights, ((0, 0), (0, -weights.shape[1] % BLOCK))).reshape(len(weights), -1, BLOCK)


def steps(packed):
    """(N,n,32) whole numbers from the nibbles of (N,n,16)."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], BLOCK).astype(int) - 8


@settings(max_examples=50, deadline=None)
@given(seeds, st.tuples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from([0, 1]), spreads)
def test_int8_errs_by_at_most_half_a_step(seed, size, axis, spread):
    weights = drawn(seed, size, spread)
    q, scales = quantise_int8("w", weights, axis=axis)
    assert (q.dtype, scales.dtype, scales.shape) == (np.int8, np.float16, (size[1 - axis],))
    assert np.abs(q.astype(int)).max() <= 127
    widened = np.expand_dims(scales.astype(np.float64), axis)
    assert (np.abs(q * widened - weights) <= widened * 0.500_01).all()


@settings(max_examples=50, deadline=None)
@given(seeds, st.tuples(st.integers(1, 5), st.integers(1, 70)), spreads)
def test_int4_errs_less_than_the_plain_scale_in_every_block(seed, size, spread):
    weights = drawn(seed, size, spread)
    packed, scales = quantise_int4("w", weights)
    exact = blocks(weights).astype(np.float64)
    assert packed.dtype == np.uint8
    assert packed.shape == (*exact.shape[:2], BLOCK // 2)
    assert (scales.dtype, scales.shape) == (np.float16, exact.shape[:2])
    ours = steps(packed) * scales.astype(np.float64)[:, :, None]
    largest = np.abs(exact).max(axis=2, keepdims=True)
    plain = (largest / 7).astype(np.float16).astype(np.float64)  # no weight is clipped
    plainly = np.rint(exact / plain) * plain

    def error(rounded):
        return np.square(rounded - exact).sum(axis=2)

    # A block of few weights may fall on the plain grid by chance, hence the margin.
    assert (error(ours) <= 1.5 * error(plainly) + 1e-3 * largest[:, :, 0] ** 2).all()
    assert error(ours).sum() <= 1.0001 * error(plainly).sum() + 1e-3 * np.square(largest).sum()


def test_int4_rounds_gaussian_weights_with_a_quarter_less_error_than_the_plain_scale():
    weights = drawn(1, (200, 320), 0)
    packed, scales = quantise_int4("w", weights)
    ours = steps(packed) * scales.astype(np.float32)[:, :, None]
    assert np.square(ours - blocks(weights)).mean() < 0.0067  # of the variance; plain scales give 0.0091


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 70), st.floats(0.01, 100))
def test_int4_keeps_weights_that_lie_on_its_grid(seed, width, scale):
    scale = np.float32(np.float16(scale))
    whole = np.random.default_rng(seed).integers(-7, 8, (3, width))
    whole[:, ::BLOCK] = -8  # each block uses its whole range, so the grid is known from the largest weight
    packed, scales = quantise_int4("w", (whole * scale).astype(np.float32))
    ours = steps(packed) * scales.astype(np.float32)[:, :, None]
    np.testing.assert_array_equal(ours.reshape(3, -1)[:, :width], whole * scale)


def test_zeros_stay_zeros():
    q, scales = quantise_int8("w", np.zeros((2, 3), np.float32), axis=1)
    assert not q.any()
    assert (scales > 0).all()
    packed, scales = quantise_int4("w", np.zeros((2, 40), np.float32))
    assert (packed == 0x88).all()
    assert not scales.any()


@pytest.mark.parametrize("value", [1e9, 65504 * 127.2])
def test_weights_whose_scale_float16_cannot_hold_are_refused(value):
    with pytest.raises(ModelError, match="a scale of emb must be below 65504"):
        quantise_int8("emb", np.full((1, 1), value, np.float32), axis=1)
    with pytest.raises(ModelError, match="a scale of emb must be below 65504"):
        quantise_int4("emb", np.full((1, 1), value, np.float32))


def test_half_names_the_tensor_and_its_largest_value():
    assert half("bias", np.array([65504.0])).dtype == np.float16
    with pytest.raises(ModelError, match="bias must be below 65504 to be kept in float16, got 7e"):
        half("bias", np.array([1.0, -70_000.0]))
