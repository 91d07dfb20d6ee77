from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.kernels import quantize, reference_codec

SEEDS = st.integers(0, 2**64 - 1)
BLOCKS = st.sampled_from([1, 7, 64, 256, 1000])


def vector(size, seed, scale=1e-3):
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


@given(size=st.integers(0, 3000), seed=SEEDS, block=BLOCKS, exponent=st.integers(-38, 37))
def test_quantising_gives_the_bytes_of_the_numpy_twin(size, seed, block, exponent):
    x = vector(size, seed, 10.0**exponent)
    q, scales = quantize.quantize_int8(x, block=block, seed=seed)
    expected_q, expected_scales = reference_codec.quantize_int8(x, block=block, seed=seed)
    assert q.dtype == np.int8
    assert scales.dtype == np.float32
    np.testing.assert_array_equal(scales, expected_scales)
    np.testing.assert_array_equal(q, expected_q)


@given(
    x=st.lists(st.floats(-(2.0**127), 2.0**127, width=32), max_size=60),
    seed=SEEDS,
    block=BLOCKS,
)
def test_any_vector_in_range_quantises_within_one_step(x, seed, block):
    x = np.array(x, np.float32)
    q, scales = quantize.quantize_int8(x, block=block, seed=seed)
    expected_q, expected_scales = reference_codec.quantize_int8(x, block=block, seed=seed)
    np.testing.assert_array_equal(q, expected_q)
    np.testing.assert_array_equal(scales, expected_scales)
    assert q.size == 0 or q.min() >= -127
    back = quantize.dequantize_int8(q, scales, block=block)
    step = np.maximum(np.repeat(scales, block)[: x.size].astype(np.float64), 2.0**-96)
    assert np.all(np.abs(back.astype(np.float64) - x) <= step * (1 + 1e-4))


@given(size=st.integers(0, 3000), seed=SEEDS, block=BLOCKS)
def test_dequantising_gives_the_bytes_of_the_numpy_twin(size, seed, block):
    q, scales = quantize.quantize_int8(vector(size, seed), block=block, seed=seed)
    expected = reference_codec.dequantize_int8(q, scales, block=block)
    np.testing.assert_array_equal(quantize.dequantize_int8(q, scales, block=block), expected)
    out = np.full(size, np.nan, np.float32)
    assert quantize.dequantize_int8(q, scales, block=block, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_stochastic_rounding_is_unbiased():
    # One value at every 1/32 of a step, 255 elements beside one that sets the scale.
    fractions = np.arange(32, dtype=np.float32) / 32
    x = np.concatenate([np.tile(fractions, 8)[:255] - 3, [127]]).astype(np.float32)
    draws = 4000
    mean = sum(quantize.quantize_int8(x, seed=seed)[0].astype(np.float64) for seed in range(draws)) / draws
    # The standard error of a mean of `draws` coins is at most 0.5 / sqrt(draws) = 0.0079; 5 of them.
    assert np.abs(mean - x).max() < 0.04
    # Over all elements together the error is 16 times smaller.
    assert abs((mean - x).mean()) < 0.0025


def test_values_far_below_a_step_are_kept_on_average():
    x = np.full(256 * 2000, 2.0**-9, np.float32)
    x[::256] = 127
    q, scales = quantize.quantize_int8(x, seed=5)
    assert np.all(scales == 1)
    small = np.delete(q, np.s_[::256])
    assert small.mean() == pytest.approx(2.0**-9, rel=0.1)


def test_random_bits_are_uniform_and_uncorrelated():
    bits = np.concatenate([reference_codec.random_bits(seed, 1 << 14, 256) for seed in range(16)])
    counts = np.bincount(bits >> 24, minlength=256)
    expected = bits.size / 256
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 255 + 6 * np.sqrt(2 * 255)
    uniform = bits / 2.0**32 - 0.5
    for shift in (1, 2, 255, 256, 1 << 14):
        correlation = 12 * np.mean(uniform[:-shift] * uniform[shift:])
        assert abs(correlation) < 5 / np.sqrt(bits.size - shift)


def test_the_seed_decides_every_bit():
    x = vector(5000, 0)
    first, again, other = (quantize.quantize_int8(x, seed=seed)[0] for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert np.count_nonzero(first != other) > 1000


def test_threads_give_the_bytes_of_one_thread():
    vectors = [vector(50_000 + i, i) for i in range(16)]
    alone = [quantize.quantize_int8(x, seed=i) for i, x in enumerate(vectors)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: quantize.quantize_int8(vectors[i], seed=i), range(16)))
    for (q, scales), (other_q, other_scales) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(q, other_q)
        np.testing.assert_array_equal(scales, other_scales)


def test_read_only_input_is_accepted_and_left_alone():
    x = vector(1000, 1)
    before = x.copy()
    x.flags.writeable = False
    q, scales = quantize.quantize_int8(x, seed=0)
    np.testing.assert_array_equal(x, before)
    q.flags.writeable = scales.flags.writeable = False
    assert quantize.dequantize_int8(q, scales).shape == (1000,)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.8e38])
@pytest.mark.parametrize("place", [0, 255, 256, 999])
def test_a_value_that_is_not_finite_or_too_large_is_refused(bad, place):
    x = vector(1000, 1)
    x[place] = bad
    with pytest.raises(ValueError, match="update must be finite"):
        quantize.quantize_int8(x, seed=0)


def test_zeros_stay_zeros():
    q, scales = quantize.quantize_int8(np.zeros(600, np.float32), seed=0)
    assert not q.any()
    assert not scales.any()


def test_lengths_that_do_not_fit_are_refused():
    q, scales = quantize.quantize_int8(vector(1000, 1), seed=0)
    with pytest.raises(ValueError, match="need 4 scales, got 3"):
        quantize.dequantize_int8(q, scales[:3])
    with pytest.raises(ValueError, match="out must hold 1000"):
        quantize.dequantize_int8(q, scales, out=np.empty(999, np.float32))
    with pytest.raises(ValueError, match="block must be >= 1"):
        quantize.quantize_int8(vector(10, 1), block=0, seed=0)
