from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.kernels import masking, reference_masking

SEEDS = st.integers(0, 2**64 - 1)
SIZES = st.integers(0, 3000)
BITS = st.integers(2, 32)
RULE = {"limit": 0.5, "levels": 127, "bits": 16}


def vector(size, seed):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def draw_words(size, seed):
    return np.random.default_rng(seed).integers(0, 2**32, size, np.uint32)


@given(size=SIZES, seed=SEEDS, limit=st.floats(1e-6, 1e6), bits=BITS, data=st.data())
def test_fixed_point_gives_the_bytes_of_the_numpy_twin(size, seed, limit, bits, data):
    rule = {"limit": limit, "levels": data.draw(st.integers(1, 2 ** (bits - 1) - 1)), "bits": bits}
    x = vector(size, seed)
    x.flags.writeable = False
    words = masking.encode_fixed(x, **rule, seed=seed)
    assert words.dtype == np.uint32
    assert words.max(initial=0) < 2**bits
    np.testing.assert_array_equal(words, reference_masking.encode_fixed(x, **rule, seed=seed))
    decoded = masking.decode_fixed(words, **rule)
    np.testing.assert_array_equal(decoded, reference_masking.decode_fixed(words, **rule))
    clipped = np.clip(x.astype(np.float64), -limit, limit)
    assert np.all(np.abs(decoded - clipped) <= limit / rule["levels"] + 1e-6 * limit)


@given(size=SIZES, seed=SEEDS, bits=BITS)
def test_any_words_decode_as_in_the_numpy_twin(size, seed, bits):
    words = draw_words(size, seed)
    words.flags.writeable = False
    rule = {"limit": 3.0, "levels": 1, "bits": bits}
    np.testing.assert_array_equal(
        masking.decode_fixed(words, **rule), reference_masking.decode_fixed(words, **rule)
    )


@given(size=SIZES, start=st.integers(0, 15), seed=SEEDS, bits=BITS)
def test_masks_give_the_bytes_of_the_numpy_twin_and_vanish_again(size, start, seed, bits):
    words, mask = draw_words(size + start, seed)[start:], draw_words(size, seed + 1 & 2**64 - 1)
    mask.flags.writeable = False
    before, expected = words.copy(), words.copy()
    masking.mask_add(words, mask, bits=bits)
    reference_masking.mask_add(expected, mask, bits=bits)
    np.testing.assert_array_equal(words, expected)
    masking.mask_subtract(words, mask, bits=bits)
    reference_masking.mask_subtract(expected, mask, bits=bits)
    np.testing.assert_array_equal(words, expected)
    np.testing.assert_array_equal(words, before & np.uint32(2**bits - 1))


def test_a_masked_sum_decodes_to_the_sum():
    updates = [np.clip(vector(1000, i), -0.5, 0.5) for i in range(200)]
    total, masks = np.zeros(1000, np.uint32), np.zeros(1000, np.uint32)
    for i, update in enumerate(updates):
        words, mask = masking.encode_fixed(update, **RULE, seed=i), draw_words(1000, i)
        masking.mask_add(words, mask, bits=16)
        masking.mask_add(total, words, bits=16)
        masking.mask_add(masks, mask, bits=16)
    masking.mask_subtract(total, masks, bits=16)
    # 200 roundings, each with a standard deviation of at most half a step.
    error = masking.decode_fixed(total, **RULE) - np.sum(updates, axis=0, dtype=np.float64)
    assert np.abs(error).max() < 6 * 0.5 * np.sqrt(200) * 0.5 / 127


def test_fixed_point_is_unbiased():
    x = (np.arange(-128, 129) / 256).astype(np.float32)
    draws = 4000
    mean = (
        sum(masking.decode_fixed(masking.encode_fixed(x, **RULE, seed=s), **RULE) for s in range(draws))
        / draws
    )
    step = 0.5 / 127
    assert np.abs(mean - x).max() < 5 * 0.5 * step / np.sqrt(draws)


def test_values_beyond_the_limit_become_the_last_level():
    x = np.array([0.5, 0.6, 3e38, -0.5, -3e38], np.float32)
    words = masking.encode_fixed(x, **RULE, seed=1)
    assert words.tolist() == [127, 127, 127, 2**16 - 127, 2**16 - 127]
    np.testing.assert_array_equal(
        masking.decode_fixed(words, **RULE), np.float32([0.5, 0.5, 0.5, -0.5, -0.5])
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1023, 1024, 2000])
def test_what_is_not_finite_is_refused(bad, place):
    x = vector(2001, 1)
    x[place] = bad
    with pytest.raises(ValueError, match="values must be finite, got a NaN or an infinity"):
        masking.encode_fixed(x, **RULE, seed=1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bits": 1}, r"bits must be in \[2, 32\], got 1"),
        ({"bits": 33}, r"bits must be in \[2, 32\], got 33"),
        ({"limit": 0}, r"limit must be finite and >= 2\^-126, got 0"),
        ({"limit": np.nan}, r"limit must be finite and >= 2\^-126, got nan"),
        ({"limit": 1e-310}, r"limit must be finite and >= 2\^-126, got 1e-310"),
        ({"levels": 0}, r"levels must be in \[1, 32767\], got 0"),
        ({"levels": 2**15}, r"levels must be in \[1, 32767\], got 32768"),
    ],
)
def test_a_rule_that_cannot_hold_is_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        masking.encode_fixed(vector(3, 1), **RULE | change, seed=1)
    with pytest.raises(ValueError, match=reason):
        masking.decode_fixed(draw_words(3, 1), **RULE | change)


@pytest.mark.parametrize("apply", [masking.mask_add, masking.mask_subtract])
def test_masks_that_do_not_fit_are_refused(apply):
    words = draw_words(10, 1)
    before = words.copy()
    with pytest.raises(ValueError, match="mask must hold 10 words, got 9"):
        apply(words, draw_words(9, 1), bits=32)
    with pytest.raises(ValueError, match="bits must be in"):
        apply(words, draw_words(10, 1), bits=0)
    np.testing.assert_array_equal(words, before)
    words.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        apply(words, draw_words(10, 1), bits=32)


def test_threads_give_the_bytes_of_one_thread():
    def work(i):
        words = masking.encode_fixed(vector(30_000 + i, i), **RULE, seed=i)
        masking.mask_add(words, draw_words(30_000 + i, i), bits=16)
        return words, masking.decode_fixed(words, **RULE)

    alone = [work(i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(8)))
    for arrays, others in zip(alone, together, strict=True):
        for array, other in zip(arrays, others, strict=True):
            np.testing.assert_array_equal(array, other)
