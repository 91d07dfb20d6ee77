from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.kernels import accumulate, reference_sparse, sparse

SEEDS = st.integers(0, 2**64 - 1)
SHARES = st.floats(0, 1)


def vector(size, seed, kept=1.0):
    """Laplace, all but a share of `kept` set to zero, as the delta of a model whose rows mostly stand still."""
    random = np.random.default_rng(seed)
    return np.where(random.random(size) < kept, random.laplace(size=size), 0).astype(np.float32)


def same_as_twin(x, k):
    indices, values = sparse.topk(x, k)
    expected, expected_values = reference_sparse.topk(x, k)
    assert (indices.dtype, values.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values.view(np.uint32), expected_values.view(np.uint32))


@given(size=st.integers(0, 3000), share=SHARES, seed=SEEDS, kept=st.sampled_from([0, 0.01, 0.3, 1]))
def test_topk_gives_the_bytes_of_the_numpy_twin(size, share, seed, kept):
    same_as_twin(vector(size, seed, kept), int(share * size))


@given(
    x=st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 1e-45, 3.4e38, -3.4e38]), max_size=200),
    share=SHARES,
)
def test_topk_takes_the_first_of_equal_magnitudes(x, share):
    same_as_twin(np.array(x, np.float32), int(share * len(x)))


@pytest.mark.parametrize("k", [0, 1, 15, 1000, 6250, 6251, 50_000, 99_999, 100_003])
def test_topk_keeps_exactly_k(k):
    size = 100_003
    for x in (vector(size, 1), vector(size, 1, 0.01), np.zeros(size, np.float32), np.ones(size, np.float32)):
        same_as_twin(x, k)


@pytest.mark.parametrize("k", [100, 1000, 6000])
def test_topk_is_exact_where_chunks_mislead(k):
    size = 100_000
    ascending = np.arange(size, dtype=np.float32)
    lone = np.zeros(size, np.float32)
    lone[::16] = 1
    clustered = vector(size, 1)
    clustered[5000 : 5000 + k] += np.float32(100)
    late_ties = np.repeat(np.float32([1, 2]), size // 2)
    for x in (ascending, ascending[::-1].copy(), -ascending, lone, clustered, late_ties):
        same_as_twin(x, k)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 500, 1004])
def test_topk_refuses_what_is_not_finite(bad, place):
    x = vector(1005, 1)
    x[place] = bad
    for k in (0, 1, 1005):
        with pytest.raises(ValueError, match="values must be finite, got a NaN or an infinity"):
            sparse.topk(x, k)


@pytest.mark.parametrize("k", [-1, 11])
def test_topk_refuses_a_k_that_is_not_there(k):
    with pytest.raises(ValueError, match=rf"k must be in \[0, 10\], got {k}"):
        sparse.topk(vector(10, 1), k)


@given(n=st.integers(0, 3000), share=SHARES, seed=SEEDS)
def test_shared_indices_are_those_of_the_numpy_twin(n, share, seed):
    k = int(share * n)
    indices = sparse.shared_indices(n, k, seed)
    assert indices.dtype == np.int32
    np.testing.assert_array_equal(indices, reference_sparse.shared_indices(n, k, seed))
    assert indices.size == k
    assert np.all(np.diff(indices) > 0)
    assert k == 0 or (indices[0] >= 0 and indices[-1] < n)


def test_shared_indices_are_the_same_on_every_machine():
    assert sparse.shared_indices(1_000_000, 5, 2026).tolist() == [487101, 560993, 566955, 582268, 943876]
    large = sparse.shared_indices(2**31 - 1, 3, 1)
    np.testing.assert_array_equal(large, np.sort(large))


def test_every_index_and_every_pair_is_as_likely_as_any_other():
    n, k, draws = 12, 5, 20_000
    chosen = np.zeros((draws, n))
    for seed in range(draws):
        chosen[seed, sparse.shared_indices(n, k, seed)] = 1
    together = chosen.T @ chosen / draws
    # Five standard errors of a share that is seen 20,000 times.
    np.testing.assert_allclose(np.diag(together), k / n, atol=5 * 0.5 / np.sqrt(draws))
    pairs = together[~np.eye(n, dtype=bool)]
    np.testing.assert_allclose(pairs, k * (k - 1) / (n * (n - 1)), atol=5 * 0.5 / np.sqrt(draws))


def test_shared_indices_refuse_what_cannot_be_drawn():
    with pytest.raises(ValueError, match=r"k must be in \[0, 3\], got 4"):
        sparse.shared_indices(3, 4, 1)
    with pytest.raises(ValueError, match="n must be in"):
        sparse.shared_indices(2**31, 4, 1)
    with pytest.raises(OverflowError):
        sparse.shared_indices(3, 1, -1)


@given(rows=st.integers(0, 60), width=st.integers(0, 40), share=SHARES, seed=SEEDS)
def test_rows_that_are_gathered_go_back_to_their_place(rows, width, share, seed):
    x = vector(rows * width, seed).reshape(rows, width)
    chosen = sparse.shared_indices(rows, int(share * rows), seed)
    x.flags.writeable = chosen.flags.writeable = False
    gathered = sparse.gather_rows(x, chosen)
    np.testing.assert_array_equal(gathered, reference_sparse.gather_rows(x, chosen))
    back = np.zeros(x.shape)
    accumulate.accumulate_rows(back, chosen, gathered, 1)
    np.testing.assert_allclose(back[chosen], x[chosen], rtol=0, atol=2**-33)
    assert not np.delete(back, chosen, 0).any()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([1, 1], "ascend strictly"),
        ([2, 1], "ascend strictly"),
        ([-1], "got -1"),
        ([0, 5], r"in \[0, 5\), got 5"),
    ],
)
def test_rows_out_of_range_or_order_are_refused(rows, reason):
    with pytest.raises(ValueError, match=f"rows must .*{reason}"):
        sparse.gather_rows(np.zeros((5, 3), np.float32), np.array(rows, np.int32))


def test_threads_give_the_bytes_of_one_thread():
    vectors = [vector(50_000 + i, i) for i in range(12)]
    for vector_ in vectors:
        vector_.flags.writeable = False

    def work(i):
        indices, values = sparse.topk(vectors[i], 600)
        return indices, values, sparse.shared_indices(50_000, 3000, i)

    alone = [work(i) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(12)))
    for arrays, others in zip(alone, together, strict=True):
        for array, other in zip(arrays, others, strict=True):
            np.testing.assert_array_equal(array, other)


@given(size=st.integers(0, 2000), count=st.integers(0, 40), zeros=st.sampled_from([0, 0.02, 0.5]), seed=SEEDS)
def test_gathered_runs_are_those_of_the_numpy_twin_and_go_back_to_their_place(size, count, zeros, seed):
    x, random = vector(size, seed), np.random.default_rng(seed)
    for start in random.integers(0, max(size, 1), count):
        x[start : start + random.integers(200)] = 0
    x[random.random(size) < zeros] = -0.0
    x.flags.writeable = False
    changes, values = sparse.gather_runs(x)
    expected_changes, expected_values = reference_sparse.gather_runs(x)
    np.testing.assert_array_equal(changes, expected_changes)
    np.testing.assert_array_equal(values, expected_values)
    assert (changes.dtype, values.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(sparse.scatter_runs(changes, values, size=size), x)


def test_what_is_not_a_number_is_not_zero():
    changes, values = sparse.gather_runs(np.array([0, np.nan, 0, -0.0], np.float32))
    assert changes.tolist() == [1, 2]
    assert np.isnan(values).all()


@given(size=st.integers(1, 2000), count=st.integers(0, 40), seed=SEEDS)
def test_scattered_runs_are_those_of_the_numpy_twin(size, count, seed):
    changes = sparse.shared_indices(size, min(count, size), seed)
    there = np.cumsum(np.isin(np.arange(size), changes)) % 2 == 1
    values = vector(int(there.sum()), seed)
    values.flags.writeable = changes.flags.writeable = False
    expected = reference_sparse.scatter_runs(changes, values, size=size)
    np.testing.assert_array_equal(sparse.scatter_runs(changes, values, size=size), expected)


def test_runs_that_would_not_fit_are_refused():
    for changes, size, reason in (
        ([2, 5], 4, "values must hold 3 values, got 4"),
        ([2], 7, "values must hold 8 values, got 7"),
        ([5, 2], 3, "changes must ascend strictly"),
        ([2, 10], 8, r"changes must lie in \[0, 10\), got 10"),
    ):
        with pytest.raises(ValueError, match=reason):
            sparse.scatter_runs(np.array(changes, np.int32), vector(size, 1), size=10)
