from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.kernels import accumulate, quantize, reference_accumulate

SEEDS = st.integers(0, 2**32)
SIZES = st.integers(0, 2000)
WEIGHTS = st.floats(-1e3, 1e3)
FORMS = ("int8", "4bit", "2bit", "1bit")
INTEGERS = pytest.mark.parametrize("dtype", [np.int32, np.int64])


def vector(size, seed):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def running(size, seed):
    """A sum so far, float64."""
    return vector(size, seed).astype(np.float64)


def subset(n, k, seed):
    """k of n indices, int32, ascending."""
    return np.sort(np.random.default_rng(seed).choice(n, k, replace=False)).astype(np.int32)


def frozen(*arrays):
    """The same arrays, read-only."""
    for array in arrays:
        array.flags.writeable = False
    return arrays


def agrees_with_twin(name, acc, *arguments, **options):
    expected = acc.copy()
    getattr(accumulate, name)(acc, *arguments, **options)
    getattr(reference_accumulate, name)(expected, *arguments, **options)
    np.testing.assert_array_equal(acc, expected)


@pytest.mark.parametrize("form", FORMS)
@given(size=SIZES, seed=SEEDS, weight=WEIGHTS, block=st.sampled_from([8, 256, 1000]))
def test_accumulating_levels_gives_the_bytes_of_the_numpy_twin(form, size, seed, weight, block):
    encoded = getattr(quantize, f"quantize_{form}")(vector(size, seed), block=block, seed=seed)
    agrees_with_twin(f"accumulate_{form}", running(size, seed + 1), *frozen(*encoded), weight, block=block)


@given(size=SIZES, seed=SEEDS, weight=WEIGHTS, block=st.sampled_from([1, 7]))
def test_int8_blocks_may_have_any_length(size, seed, weight, block):
    encoded = quantize.quantize_int8(vector(size, seed), block=block, seed=seed)
    agrees_with_twin("accumulate_int8", running(size, seed + 1), *encoded, weight, block=block)


@given(size=SIZES, start=st.integers(0, 15), seed=SEEDS, weight=WEIGHTS)
def test_accumulating_float32_gives_the_bytes_of_the_numpy_twin(size, start, seed, weight):
    agrees_with_twin(
        "accumulate_float32", running(size + start, seed + 1)[start:], *frozen(vector(size, seed)), weight
    )


@given(size=SIZES, share=st.floats(0, 1), seed=SEEDS, weight=WEIGHTS, block=st.sampled_from([1, 7, 256]))
def test_sparse_sums_give_the_bytes_of_the_numpy_twin(size, share, seed, weight, block):
    indices = subset(size, int(share * size), seed)
    values = vector(indices.size, seed)
    q, scales = quantize.quantize_int8(values, block=block, seed=seed)
    frozen(indices, values, q, scales)
    agrees_with_twin("accumulate_sparse", running(size, seed + 1), indices, values, weight)
    acc = running(size, seed + 1)
    agrees_with_twin("accumulate_sparse_int8", acc, indices, q, scales, weight, block=block)


@given(rows=st.integers(0, 60), width=st.integers(0, 40), share=st.floats(0, 1), seed=SEEDS, weight=WEIGHTS)
def test_accumulating_rows_gives_the_bytes_of_the_numpy_twin(rows, width, share, seed, weight):
    chosen = subset(rows, int(share * rows), seed)
    values = vector(chosen.size * width, seed).reshape(chosen.size, width)
    acc = running(rows * width, seed + 1).reshape(rows, width)
    agrees_with_twin("accumulate_rows", acc, *frozen(chosen, values), weight)


@given(size=st.integers(1, 2000), count=st.integers(0, 40), seed=SEEDS, weight=WEIGHTS)
def test_accumulating_runs_gives_the_bytes_of_the_numpy_twin(size, count, seed, weight):
    changes = subset(size, min(count, size), seed)
    there = np.cumsum(np.isin(np.arange(size), changes)) % 2 == 1
    values = vector(int(there.sum()), seed)
    agrees_with_twin("accumulate_runs", running(size, seed + 1), *frozen(changes, values), weight)


@given(seed=SEEDS, count=st.integers(1, 12), workers=st.integers(1, 4))
def test_a_sum_is_the_same_bytes_in_any_order_and_by_any_number_of_workers(seed, count, workers):
    random = np.random.default_rng(seed)
    updates = [vector(300, seed + i) * np.float32(10.0 ** random.integers(-6, 3)) for i in range(count)]
    weights = random.uniform(0.01, 200, count)
    indices = subset(300, 40, seed)

    def add(acc, i):
        accumulate.accumulate_float32(acc, updates[i], weights[i])
        accumulate.accumulate_sparse(acc, indices, updates[i][:40], weights[i])
        for form in FORMS:
            encoded = getattr(quantize, f"quantize_{form}")(updates[i], seed=i)
            getattr(accumulate, f"accumulate_{form}")(acc, *encoded, weights[i])

    whole, parts = np.zeros(300), np.zeros((workers, 300))
    for i in range(count):
        add(whole, i)
    for i in random.permutation(count):
        add(parts[random.integers(workers)], i)
    np.testing.assert_array_equal(parts.sum(axis=0), whole)


def test_a_term_is_rounded_to_the_grid_and_no_further():
    acc = np.zeros(4)
    accumulate.accumulate_float32(acc, np.array([2**-33, 3 * 2**-33, -(2**-32), 1 + 2**-23], np.float32), 1)
    np.testing.assert_array_equal(acc, [0, 2**-31, -(2**-32), 1 + 2**-23])


def test_runs_that_do_not_fit_are_refused_and_leave_the_sum_alone():
    acc = running(10, 1)
    before = acc.copy()
    for changes, size, reason in (
        ([2, 5], 4, "values must hold 3 values, got 4"),
        ([2], 7, "values must hold 8 values, got 7"),
        ([5, 2], 3, "changes must ascend strictly"),
        ([2, 10], 8, r"changes must lie in \[0, 10\), got 10"),
    ):
        with pytest.raises(ValueError, match=reason):
            accumulate.accumulate_runs(acc, np.array(changes, np.int32), vector(size, 1), 1)
    np.testing.assert_array_equal(acc, before)


@INTEGERS
@given(size=SIZES, seed=SEEDS, data=st.data())
def test_integer_sums_are_exact_or_refused_and_then_left_alone(dtype, size, seed, data):
    bits = np.iinfo(dtype).bits
    weight = data.draw(st.integers(-(2 ** (bits - 8)) + 1, 2 ** (bits - 8) - 1))
    random = np.random.default_rng(seed)
    q = random.integers(-128, 128, size).astype(np.int8)
    largest = 2 ** data.draw(st.integers(0, bits - 1)) - 1
    acc = random.integers(-largest, largest, size, dtype, endpoint=True)
    before, expected = acc.copy(), acc.copy()
    try:
        reference_accumulate.accumulate_levels(expected, q, weight)
    except OverflowError:
        with pytest.raises(OverflowError, match=f"sums must fit {bits} bits"):
            accumulate.accumulate_levels(acc, q, weight)
        np.testing.assert_array_equal(acc, before)
    else:
        accumulate.accumulate_levels(acc, q, weight)
        np.testing.assert_array_equal(acc, expected)


@INTEGERS
def test_an_integer_sum_reaches_its_ends_and_no_further(dtype):
    ends = np.iinfo(dtype)
    acc = np.array([ends.max - 127, ends.min + 127], dtype)
    q = np.array([127, -127], np.int8)
    accumulate.accumulate_levels(acc, q)
    assert acc.tolist() == [ends.max, ends.min]
    for step in ([1, 0], [0, -1]):
        with pytest.raises(OverflowError, match="got one that does not"):
            accumulate.accumulate_levels(acc, np.array(step, np.int8))
    assert acc.tolist() == [ends.max, ends.min]
    with pytest.raises(OverflowError, match="weight must be in"):
        accumulate.accumulate_levels(acc, q, 2 ** (ends.bits - 8))


def test_not_a_number_and_infinity_travel_through_float_sums():
    for x in (np.nan, np.inf):
        acc, values = np.zeros(3), np.array([1, x], np.float32)
        accumulate.accumulate_sparse(acc, np.array([0, 2], np.int32), values, 2)
        np.testing.assert_array_equal(acc, np.array([2, 0, x]))
        accumulate.accumulate_float32(acc, np.array([0, x, 0], np.float32), 1)
        np.testing.assert_array_equal(acc, np.array([2, x, x]))


@given(size=SIZES, seed=SEEDS, factor=WEIGHTS)
def test_scaling_gives_the_bytes_of_the_numpy_twin(size, seed, factor):
    agrees_with_twin("scale_inplace", vector(size, seed), factor)


@given(size=SIZES, seed=SEEDS)
def test_the_norm_is_that_of_the_numpy_twin(size, seed):
    (x,) = frozen(vector(size, seed))
    assert accumulate.l2_norm(x) == reference_accumulate.l2_norm(x)
    assert accumulate.l2_norm(x) == pytest.approx(np.linalg.norm(x.astype(np.float64)), rel=1e-12, abs=0)


def test_the_norm_neither_overflows_nor_hides_what_is_not_finite():
    assert accumulate.l2_norm(np.full(100, 3e38, np.float32)) == pytest.approx(3e39, rel=1e-6)
    assert np.isnan(accumulate.l2_norm(np.array([1, np.nan], np.float32)))
    assert np.isinf(accumulate.l2_norm(np.array([1, -np.inf], np.float32)))
    assert accumulate.l2_norm(np.empty(0, np.float32)) == 0


@given(size=SIZES, seed=SEEDS, clip_norm=st.floats(1e-3, 1e3), in_place=st.booleans())
def test_clipping_gives_the_bytes_of_the_numpy_twin_and_never_more_than_the_bound(
    size, seed, clip_norm, in_place
):
    x = vector(size, seed)
    expected = np.empty_like(x)
    norm = reference_accumulate.norm_clip(x, clip_norm, out=expected)
    out = x if in_place else np.empty_like(x)
    assert accumulate.norm_clip(x if in_place else frozen(x)[0], clip_norm, out=out) == norm
    np.testing.assert_array_equal(out, expected)
    assert accumulate.l2_norm(out) <= clip_norm


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1, 1e18, 1e30])
@pytest.mark.parametrize("clip", [1 - 2.0**-20, 1 - 2.0**-24, 1, 1 + 2.0**-24, 1 + 2.0**-20])
def test_clipping_is_exact_at_the_bound_and_at_any_scale(scale, clip):
    x = vector(1003, 5) * np.float32(scale)
    norm = accumulate.l2_norm(x)
    clip_norm = clip * norm
    expected, out = np.empty_like(x), np.empty_like(x)
    returned = accumulate.norm_clip(x, clip_norm, out=out)
    assert returned == reference_accumulate.norm_clip(x, clip_norm, out=expected)
    assert returned == pytest.approx(norm, rel=2.0**-23)
    np.testing.assert_array_equal(out, expected)
    assert accumulate.l2_norm(out) <= clip_norm
    assert np.array_equal(out, x) == (norm <= clip_norm)


@pytest.mark.parametrize("exponent", [-140, -127, -126, -125, -100])
@pytest.mark.parametrize("fraction", [1, 1.3, 1.9])
def test_a_factor_too_small_for_float32_clips_to_zeros(exponent, fraction):
    x = vector(1003, 5) * np.float32(1e36)
    clip_norm = fraction * 2.0**exponent * accumulate.l2_norm(x)
    expected, out = np.empty_like(x), np.empty_like(x)
    accumulate.norm_clip(x, clip_norm, out=out)
    reference_accumulate.norm_clip(x, clip_norm, out=expected)
    np.testing.assert_array_equal(out, expected)
    assert accumulate.l2_norm(out) <= clip_norm
    assert out.any() == (fraction * 2.0**exponent > 2.0**-126)


def test_a_norm_that_may_not_be_clipped_leaves_out_alone():
    out = np.full(3, 7, np.float32)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="update must be finite"):
            accumulate.norm_clip(np.array([0, bad, 1], np.float32), 1, out=out)
    for clip_norm in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="clip_norm must be finite and > 0"):
            accumulate.norm_clip(vector(3, 1), clip_norm, out=out)
    with pytest.raises(ValueError, match="out must hold 4 values, got 3"):
        accumulate.norm_clip(vector(4, 1), 1, out=out)
    x = vector(10, 1)
    with pytest.raises(ValueError, match="got a part of it"):
        accumulate.norm_clip(x[1:], 1, out=x[:-1])
    np.testing.assert_array_equal(out, 7)


def test_threads_give_the_bytes_of_one_thread():
    updates = [vector(30_001, i) for i in range(6)]
    encoded = {form: [getattr(quantize, f"quantize_{form}")(x, seed=1) for x in updates] for form in FORMS}
    indices = subset(30_001, 500, 1)

    def total(base):
        acc = np.full(30_001, base, np.float64)
        for weight, update in enumerate(updates):
            accumulate.accumulate_float32(acc, update, weight)
            accumulate.accumulate_sparse(acc, indices, update[:500], weight)
            for form in FORMS:
                getattr(accumulate, f"accumulate_{form}")(acc, *encoded[form][weight], weight)
        mean = acc.astype(np.float32)
        return acc, accumulate.norm_clip(mean, 1, out=mean)

    alone = [total(base) for base in range(6)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(total, range(6)))
    for (acc, norm), (other_acc, other_norm) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(acc, other_acc)
        assert norm == other_norm


def test_lengths_that_do_not_fit_are_refused_and_leave_the_sum_alone():
    q, scales = quantize.quantize_int8(vector(1000, 1), seed=0)
    packed, _ = quantize.quantize_4bit(vector(1000, 1), seed=0)
    acc = running(1000, 2)
    before = acc.copy()
    with pytest.raises(ValueError, match="q must hold 1000 values, got 999"):
        accumulate.accumulate_int8(acc, q[:999], scales, 1)
    with pytest.raises(ValueError, match="need 4 scales, got 3"):
        accumulate.accumulate_int8(acc, q, scales[:3], 1)
    with pytest.raises(ValueError, match="block must be >= 1"):
        accumulate.accumulate_int8(acc, q, scales, 1, block=0)
    with pytest.raises(ValueError, match="1000 values need 500 bytes, got 499"):
        accumulate.accumulate_4bit(acc, packed[:499], scales, 1)
    with pytest.raises(ValueError, match="1000 values need 125 bytes, got 500"):
        accumulate.accumulate_1bit(acc, packed, scales, 1)
    with pytest.raises(ValueError, match="got -8"):
        accumulate.accumulate_4bit(acc, np.full(500, 8, np.uint8), scales, 1)
    with pytest.raises(ValueError, match="got -2"):
        accumulate.accumulate_2bit(acc, np.full(250, 0x80, np.uint8), scales, 1)
    with pytest.raises(ValueError, match="x must hold 1000 values, got 10"):
        accumulate.accumulate_float32(acc, vector(10, 1), 1)
    np.testing.assert_array_equal(acc, before)


@pytest.mark.parametrize(
    ("indices", "reason"),
    [
        ([3, 3], "ascend strictly"),
        ([5, 2], "ascend strictly"),
        ([-1, 2], r"lie in \[0, 10\), got -1"),
        ([2, 10], r"lie in \[0, 10\), got 10"),
        ([1, 2, 3], "must hold 3 values, got 2|must be"),
    ],
)
def test_indices_that_would_leave_the_sum_are_refused(indices, reason):
    indices = np.array(indices, np.int32)
    acc, values, scales = running(10, 1), np.ones(2, np.float32), np.ones(1, np.float32)
    before = acc.copy()
    with pytest.raises(ValueError, match=reason):
        accumulate.accumulate_sparse(acc, indices, values, 1)
    with pytest.raises(ValueError, match=reason):
        accumulate.accumulate_sparse_int8(acc, indices, values.astype(np.int8), scales, 1)
    with pytest.raises(ValueError, match=reason):
        accumulate.accumulate_rows(acc.reshape(10, 1), indices, values.reshape(2, 1), 1)
    np.testing.assert_array_equal(acc, before)


def test_a_read_only_sum_is_refused():
    (acc,) = frozen(np.zeros(10))
    with pytest.raises(ValueError, match="read-only"):
        accumulate.accumulate_float32(acc, vector(10, 1), 1)
