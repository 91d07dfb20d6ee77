from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.kernels import accumulate, quantize, reference_codec

SEEDS = st.integers(0, 2**32)
SIZES = st.integers(0, 2000)
WEIGHTS = st.floats(-1e3, 1e3)


def vector(size, seed):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@given(size=SIZES, seed=SEEDS, weight=WEIGHTS, block=st.sampled_from([1, 7, 256, 1000]))
def test_accumulating_int8_gives_the_bytes_of_the_numpy_twin(size, seed, weight, block):
    q, scales = quantize.quantize_int8(vector(size, seed), block=block, seed=seed)
    q.flags.writeable = scales.flags.writeable = False
    acc = vector(size, seed + 1)
    expected = acc.copy()
    accumulate.accumulate_int8(acc, q, scales, weight, block=block)
    reference_codec.accumulate_int8(expected, q, scales, weight, block=block)
    np.testing.assert_array_equal(acc, expected)


@given(size=SIZES, seed=SEEDS, weight=WEIGHTS)
def test_accumulating_float32_gives_the_bytes_of_the_numpy_twin(size, seed, weight):
    x, acc = vector(size, seed), vector(size, seed + 1)
    x.flags.writeable = False
    expected = acc.copy()
    accumulate.accumulate_float32(acc, x, weight)
    reference_codec.accumulate_float32(expected, x, weight)
    np.testing.assert_array_equal(acc, expected)


@given(size=SIZES, seed=SEEDS, factor=WEIGHTS)
def test_scaling_gives_the_bytes_of_the_numpy_twin(size, seed, factor):
    x = vector(size, seed)
    expected = x.copy()
    accumulate.scale_inplace(x, factor)
    reference_codec.scale_inplace(expected, factor)
    np.testing.assert_array_equal(x, expected)


@given(size=SIZES, seed=SEEDS)
def test_the_norm_agrees_with_numpy_in_float64(size, seed):
    x = vector(size, seed)
    x.flags.writeable = False
    assert accumulate.l2_norm(x) == pytest.approx(reference_codec.l2_norm(x), rel=1e-12, abs=0)


def test_the_norm_neither_overflows_nor_hides_what_is_not_finite():
    assert accumulate.l2_norm(np.full(100, 3e38, np.float32)) == pytest.approx(3e39, rel=1e-6)
    assert np.isnan(accumulate.l2_norm(np.array([1, np.nan], np.float32)))
    assert np.isinf(accumulate.l2_norm(np.array([1, -np.inf], np.float32)))
    assert accumulate.l2_norm(np.empty(0, np.float32)) == 0


def test_threads_give_the_bytes_of_one_thread():
    updates = [vector(30_000, i) for i in range(12)]

    def total(base):
        acc = np.full(30_000, base, np.float32)
        for weight, update in enumerate(updates):
            accumulate.accumulate_float32(acc, update, weight)
        return acc, accumulate.l2_norm(acc)

    alone = [total(base) for base in range(6)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(total, range(6)))
    for (acc, norm), (other_acc, other_norm) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(acc, other_acc)
        assert norm == other_norm


def test_lengths_that_do_not_fit_are_refused_and_leave_the_sum_alone():
    q, scales = quantize.quantize_int8(vector(1000, 1), seed=0)
    acc = vector(1000, 2)
    before = acc.copy()
    with pytest.raises(ValueError, match="q must hold 1000 values, got 999"):
        accumulate.accumulate_int8(acc, q[:999], scales, 1)
    with pytest.raises(ValueError, match="do not fit 3 scales"):
        accumulate.accumulate_int8(acc, q, scales[:3], 1)
    with pytest.raises(ValueError, match="block must be >= 1"):
        accumulate.accumulate_int8(acc, q, scales, 1, block=0)
    with pytest.raises(ValueError, match="x must hold 1000 values, got 10"):
        accumulate.accumulate_float32(acc, vector(10, 1), 1)
    np.testing.assert_array_equal(acc, before)


def test_a_read_only_sum_is_refused():
    acc = np.zeros(10, np.float32)
    acc.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        accumulate.accumulate_float32(acc, vector(10, 1), 1)
