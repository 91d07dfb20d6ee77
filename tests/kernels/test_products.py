import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.kernels.products import product, variants
from kbdfl.rng import stream

sizes = st.one_of(st.integers(0, 40), st.sampled_from([48, 63, 64, 65, 96, 130]))


def operands(n, k, m):
    """Whole numbers, so that every order of summing gives the same float."""
    random = stream(n * 40_000 + k * 200 + m, "test products")
    return [random.integers(-9, 10, shape).astype(np.float32) for shape in ((n, k), (k, m), (n, m))]


@pytest.mark.parametrize("variant", variants())
@given(n=sizes, k=sizes, m=sizes)
def test_every_variant_gives_the_product_of_any_shape(variant, n, k, m):
    a, b, start = operands(n, k, m)
    with np.errstate(all="ignore"):  # numpy's BLAS raises floating-point flags for nothing on aarch64
        expected = a @ b
    assert np.array_equal(product(a, b, variant=variant), expected)
    assert np.array_equal(product(a, b, start, variant=variant), start + expected)


def test_variants_that_fuse_multiplication_and_addition_give_the_same_bytes():
    fused = [name for name in variants() if name != "base"]
    random = stream(1, "test products")
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in ((33, 97), (97, 81)))
    results = {product(a, b, variant=name).tobytes() for name in fused}
    assert len(results) <= 1


def test_a_sum_follows_the_order_of_k():
    a = np.array([[1e8, 1.0, -1e8, 1.0]], np.float32)
    assert product(a, np.ones((4, 1), np.float32)) == np.float32(1.0)


def test_read_only_operands_are_enough():
    a, b, _ = operands(5, 6, 7)
    for array in (a, b):
        array.setflags(write=False)
    assert np.array_equal(product(a, b), a @ b)


def test_a_nan_stays_in_its_row_and_its_column():
    a, b, _ = operands(20, 6, 70)
    a[3, 2] = np.nan
    assert np.array_equal(np.isnan(product(a, b)).any(axis=1), np.arange(20) == 3)


def test_start_is_not_changed():
    a, b, start = operands(3, 4, 5)
    before = start.copy()
    product(a, b, start)
    assert np.array_equal(start, before)


@pytest.mark.parametrize(
    ("a", "b", "keywords", "message"),
    [
        ((2, 3), (4, 5), {}, "b must have 3 rows, got 4"),
        ((2, 3), (3, 5), {"start": np.zeros((5, 2), np.float32)}, r"start must have the shape \(2, 5\)"),
        ((2, 3), (3, 5), {"variant": "mmx"}, "variant must be among .*base, got mmx"),
    ],
)
def test_what_does_not_fit_is_refused(a, b, keywords, message):
    with pytest.raises(ValueError, match=message):
        product(np.zeros(a, np.float32), np.zeros(b, np.float32), **keywords)
