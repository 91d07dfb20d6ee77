from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.kernels import quantize, reference_quantize

SEEDS = st.integers(0, 2**64 - 1)
SIZES = st.integers(0, 3000)
STEPS = {
    "int8": 127,
    "4bit": 7,
    "2bit": 1,
    "1bit": 1,
}  # how many steps of a block's scale make its largest value
PER_BYTE = {"4bit": 2, "2bit": 4, "1bit": 8}
every_form = pytest.mark.parametrize("form", STEPS)
packed_forms = pytest.mark.parametrize("form", PER_BYTE)


def vector(size, seed, scale=1e-3):
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


def encode(form, x, module=quantize, **options):
    return getattr(module, f"quantize_{form}")(x, **options)


def decode(form, encoded, scales, size, module=quantize, **options):
    options |= {"size": size} if form in PER_BYTE else {}
    return getattr(module, f"dequantize_{form}")(encoded, scales, **options)


def blocks(form):
    return st.sampled_from([8, 64, 256, 1000] if form in PER_BYTE else [1, 7, 64, 256, 1000])


@every_form
@given(data=st.data(), size=SIZES, seed=SEEDS, exponent=st.integers(-38, 37))
def test_quantising_gives_the_bytes_of_the_numpy_twin(form, data, size, seed, exponent):
    block = data.draw(blocks(form))
    x = vector(size, seed, 10.0**exponent)
    encoded, scales = encode(form, x, block=block, seed=seed)
    expected, expected_scales = encode(form, x, reference_quantize, block=block, seed=seed)
    assert encoded.dtype == (np.uint8 if form in PER_BYTE else np.int8)
    assert scales.dtype == np.float32
    np.testing.assert_array_equal(scales, expected_scales)
    np.testing.assert_array_equal(encoded, expected)


@every_form
@given(
    data=st.data(),
    x=st.lists(st.floats(-(2.0**127), 2.0**127, width=32), max_size=60),
    seed=SEEDS,
)
def test_any_vector_in_range_quantises_within_one_step(form, data, x, seed):
    block = data.draw(blocks(form))
    x = np.array(x, np.float32)
    encoded, scales = encode(form, x, block=block, seed=seed)
    expected, expected_scales = encode(form, x, reference_quantize, block=block, seed=seed)
    np.testing.assert_array_equal(encoded, expected)
    np.testing.assert_array_equal(scales, expected_scales)
    back = decode(form, encoded, scales, x.size, block=block).astype(np.float64)
    of_value = np.repeat(scales, block)[: x.size].astype(np.float64)
    step = of_value if form != "1bit" else of_value + np.abs(x)  # from -s to s is two scales
    assert np.all(np.abs(back - x) <= np.maximum(step, 2.0**-96) * (1 + 1e-4))
    assert np.all(np.abs(back) <= STEPS[form] * of_value * (1 + 1e-6))


@every_form
@given(data=st.data(), size=SIZES, seed=SEEDS)
def test_dequantising_gives_the_bytes_of_the_numpy_twin(form, data, size, seed):
    block = data.draw(blocks(form))
    encoded, scales = encode(form, vector(size, seed), block=block, seed=seed)
    expected = decode(form, encoded, scales, size, reference_quantize, block=block)
    np.testing.assert_array_equal(decode(form, encoded, scales, size, block=block), expected)
    out = np.full(size, np.nan, np.float32)
    assert decode(form, encoded, scales, size, block=block, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_a_large_vector_gives_the_bytes_of_the_numpy_twin():
    x = vector(300_001, 3)
    for form in STEPS:
        encoded, scales = encode(form, x, seed=9)
        np.testing.assert_array_equal(encoded, encode(form, x, reference_quantize, seed=9)[0])
        expected = decode(form, encoded, scales, x.size, reference_quantize)
        np.testing.assert_array_equal(decode(form, encoded, scales, x.size), expected)


@every_form
def test_stochastic_rounding_is_unbiased(form):
    # One value at every 1/32 of a step, 255 elements beside one that sets the scale to 1.
    last = STEPS[form]
    fractions = np.tile(np.arange(32, dtype=np.float32) / 32, 8)[:255]
    x = np.concatenate([fractions - min(3, last), [last]]).astype(np.float32)
    draws = 4000
    decoded = (decode(form, *encode(form, x, seed=seed), x.size) for seed in range(draws))
    mean = sum(value.astype(np.float64) for value in decoded) / draws
    # A draw's standard deviation is at most half the distance of its two outcomes: a step, or from -s to s.
    error = (1 if form == "1bit" else 0.5) / np.sqrt(draws)
    assert np.abs(mean - x).max() < 5 * error
    assert abs((mean - x).mean()) < 5 * error / np.sqrt(x.size)


def test_one_bit_has_the_variance_that_it_states():
    x = np.array([0.75, -0.25, 0, 0.5, 1, -1, 0.125, 0], np.float32)
    draws = np.array([decode("1bit", *encode("1bit", x, seed=seed), 8) for seed in range(8000)])
    np.testing.assert_array_equal(np.abs(draws), 1)
    np.testing.assert_allclose(draws.var(0), 1 - x**2, atol=0.04)


def test_values_far_below_a_step_are_kept_on_average():
    x = np.full(256 * 2000, 2.0**-9, np.float32)
    x[::256] = 127
    q, scales = quantize.quantize_int8(x, seed=5)
    assert np.all(scales == 1)
    small = np.delete(q, np.s_[::256])
    assert small.mean() == pytest.approx(2.0**-9, rel=0.1)


def test_random_bits_are_uniform_and_uncorrelated():
    bits = np.concatenate([reference_quantize.random_bits(seed, 1 << 14, 256) for seed in range(16)])
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


@every_form
def test_threads_give_the_bytes_of_one_thread(form):
    vectors = [vector(50_000 + i, i) for i in range(16)]

    def there_and_back(i):
        encoded, scales = encode(form, vectors[i], seed=i)
        return encoded, scales, decode(form, encoded, scales, vectors[i].size)

    alone = [there_and_back(i) for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(there_and_back, range(16)))
    for arrays, others in zip(alone, together, strict=True):
        for array, other in zip(arrays, others, strict=True):
            np.testing.assert_array_equal(array, other)


@every_form
def test_read_only_input_is_accepted_and_left_alone(form):
    x = vector(1000, 1)
    before = x.copy()
    x.flags.writeable = False
    encoded, scales = encode(form, x, seed=0)
    np.testing.assert_array_equal(x, before)
    encoded.flags.writeable = scales.flags.writeable = False
    assert decode(form, encoded, scales, 1000).shape == (1000,)


@every_form
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.8e38])
@pytest.mark.parametrize("place", [0, 255, 256, 999])
def test_a_value_that_is_not_finite_or_too_large_is_refused(form, bad, place):
    x = vector(1000, 1)
    x[place] = bad
    with pytest.raises(ValueError, match="update must be finite"):
        encode(form, x, seed=0)


@every_form
def test_zeros_stay_zeros(form):
    encoded, scales = encode(form, np.zeros(601, np.float32), seed=0)
    assert not encoded.any()
    assert not scales.any()
    back = decode(form, encoded, scales, 601)
    assert not np.any(back.view(np.uint32))


def test_the_first_value_is_the_low_half_of_a_byte_and_the_lowest_bit():
    packed, scales = quantize.quantize_4bit(np.array([7, -1, 2], np.float32), seed=0)
    assert (packed.tolist(), scales.tolist()) == ([0xF7, 0x02], [1])
    x = np.array([-1, 1, 1, -1, 1, 1, 1, 1, 1, -1], np.float32)
    for packed, scales in (quantize.quantize_1bit(x, seed=0), quantize.quantize_sign(x)):
        assert (packed.tolist(), scales.tolist()) == ([0b1001, 0b10], [1])
    packed, scales = quantize.quantize_2bit(np.array([1, -1, 0, 1, -1], np.float32), seed=0)
    assert (packed.tolist(), scales.tolist()) == ([0b01_00_11_01, 0b11], [1])


def test_what_packing_cannot_have_given_is_refused():
    scale = np.ones(1, np.float32)
    for byte in (0x08, 0x80):
        with pytest.raises(ValueError, match=r"levels must be in \[-7, 7\], got -8"):
            quantize.dequantize_4bit(np.array([0, byte], np.uint8), scale, size=4)
    with pytest.raises(ValueError, match="the last byte must end in 4 zero bits, got 0x10"):
        quantize.dequantize_4bit(np.array([0, 0x10], np.uint8), scale, size=3)
    with pytest.raises(ValueError, match=r"levels must be in \[-1, 1\], got -2"):
        quantize.dequantize_2bit(np.array([0, 0x20], np.uint8), scale, size=8)
    with pytest.raises(ValueError, match="the last byte must end in 2 zero bits, got 0x40"):
        quantize.dequantize_2bit(np.array([0, 0x40], np.uint8), scale, size=7)
    with pytest.raises(ValueError, match="the last byte must end in 5 zero bits, got 0x08"):
        quantize.dequantize_1bit(np.array([0, 8], np.uint8), scale, size=11)


@every_form
def test_lengths_that_do_not_fit_are_refused(form):
    encoded, scales = encode(form, vector(1000, 1), seed=0)
    with pytest.raises(ValueError, match="need 4 scales, got 3"):
        decode(form, encoded, scales[:3], 1000)
    with pytest.raises(ValueError, match="out must hold 1000"):
        decode(form, encoded, scales, 1000, out=np.empty(999, np.float32))
    with pytest.raises(ValueError, match="block must be"):
        encode(form, vector(10, 1), block=0, seed=0)


@packed_forms
def test_packed_lengths_that_do_not_fit_are_refused(form):
    packed, scales = encode(form, vector(1000, 1), seed=0)
    with pytest.raises(ValueError, match=f"1000 values need {packed.size} bytes, got {packed.size - 1}"):
        decode(form, packed[:-1], scales, 1000)
    with pytest.raises(ValueError, match="scales, got 4"):
        decode(form, packed, scales, -1)
    with pytest.raises(ValueError, match=f"block must be a positive multiple of {PER_BYTE[form]}, got 7"):
        encode(form, vector(10, 1), block=7, seed=0)


@given(size=SIZES, seed=SEEDS, exponent=st.integers(-38, 37), block=blocks("1bit"))
def test_signs_give_the_bytes_of_the_numpy_twin(size, seed, exponent, block):
    x = vector(size, seed, 10.0**exponent)
    for array, other in zip(
        quantize.quantize_sign(x, block=block), reference_quantize.quantize_sign(x, block=block), strict=True
    ):
        assert array.dtype == other.dtype
        np.testing.assert_array_equal(array, other)


@given(size=st.integers(1, 3000), seed=SEEDS)
def test_a_sign_scale_keeps_the_length_along_the_update(size, seed):
    # DRIVE's unbiased scale: |x|^2 / |x|_1, at which <decoded, x> = <x, x> in every block.
    x = vector(size, seed).astype(np.float64)
    packed, scales = quantize.quantize_sign(x.astype(np.float32), block=256)
    decoded = decode("1bit", packed, scales, size, block=256)
    starts = np.arange(0, size, 256)
    np.testing.assert_allclose(
        np.add.reduceat(decoded * x, starts), np.add.reduceat(x * x, starts), rtol=1e-5
    )


def test_signs_refuse_what_is_not_finite_and_keep_zeros():
    packed, scales = quantize.quantize_sign(np.zeros(601, np.float32))
    assert not packed.any()
    assert not scales.any()
    for bad in (np.nan, np.inf, 1.8e38):
        with pytest.raises(ValueError, match="update must be finite"):
            quantize.quantize_sign(np.array([1, bad], np.float32))
    with pytest.raises(ValueError, match="block must be a positive multiple of 8, got 7"):
        quantize.quantize_sign(vector(10, 1), block=7)
