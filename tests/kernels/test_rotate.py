from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.kernels import reference_rotate
from kbdfl.kernels.rotate import rotate, unrotate

SEEDS = st.integers(0, 2**64 - 1)
SIZES = st.integers(0, 3000)
BLOCKS = st.integers(0, 12).map(lambda exponent: 2**exponent)


def vector(size, seed):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@given(size=SIZES, seed=SEEDS, block=BLOCKS)
def test_rotating_gives_the_bytes_of_the_numpy_twin(size, seed, block):
    x = vector(size, seed)
    x.flags.writeable = False
    for mine, twin in ((rotate, reference_rotate.rotate), (unrotate, reference_rotate.unrotate)):
        np.testing.assert_array_equal(mine(x, seed=seed, block=block), twin(x, seed=seed, block=block))


@given(size=SIZES, seed=SEEDS, block=BLOCKS)
def test_unrotating_gives_back_what_was_rotated(size, seed, block):
    x = vector(size, seed)
    turned = rotate(x, seed=seed, block=block)
    assert turned.shape == x.shape
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(x), rel=1e-5)
    np.testing.assert_allclose(unrotate(turned, seed=seed, block=block), x, atol=1e-5)


def test_a_rotation_is_the_hadamard_matrix_after_signs():
    matrix = np.array([[1]])
    while len(matrix) < 16:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    turned = np.stack([rotate(row, seed=5, block=16) for row in np.eye(16, dtype=np.float32)], axis=1)
    signs = 4 * turned[0]  # the first row of the matrix is all ones
    np.testing.assert_array_equal(np.abs(signs), 1)
    assert len(set(signs.tolist())) == 2
    np.testing.assert_array_equal(4 * turned, matrix * signs)


def test_one_large_value_is_spread_evenly():
    x = np.zeros(4096, np.float32)
    x[77] = 64
    np.testing.assert_array_equal(np.abs(rotate(x, seed=3)), 1)


def test_what_is_left_after_whole_blocks_is_cut_into_powers_of_two():
    x = vector(64 + 32 + 4 + 1, 0)
    turned = rotate(x, seed=1, block=64)
    for start, stop in ((0, 64), (64, 96), (96, 100), (100, 101)):
        assert np.linalg.norm(turned[start:stop]) == pytest.approx(np.linalg.norm(x[start:stop]), rel=1e-5)


def test_the_seed_decides_the_signs_of_every_block():
    x = np.tile(vector(64, 0), 2)
    first, again, other = (rotate(x, seed=seed, block=64) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first[:64], first[64:])


def test_what_is_not_finite_spoils_its_block_alone():
    for bad in (np.nan, np.inf):
        x = vector(512, 0)
        x[300] = bad
        turned = rotate(x, seed=1, block=256)
        assert np.isfinite(turned[:256]).all()
        assert not np.isfinite(turned[256:]).any()


@pytest.mark.parametrize("block", [0, -4, 3, 96, 2**21])
def test_a_block_that_is_no_power_of_two_is_refused(block):
    for turn in (rotate, unrotate):
        with pytest.raises(
            ValueError, match=r"block must be a power of two in \[1, 1048576\], got " + str(block)
        ):
            turn(vector(10, 0), seed=0, block=block)


def test_threads_give_the_bytes_of_one_thread():
    vectors = [vector(50_000 + i, i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: rotate(x, seed=9), vectors))
    for x, turned in zip(vectors, together, strict=True):
        np.testing.assert_array_equal(turned, rotate(x, seed=9))
