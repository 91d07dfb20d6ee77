"""What gathers a round's reports: bounds on norms, orders of arrival, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.algorithms import AGGREGATES, Krum, Mean, Median, TrimmedMean
from kbdfl.algorithms.aggregate import bounding_factor, gather
from kbdfl.algorithms.base import chain
from kbdfl.errors import WireError
from kbdfl.transform import Draws, Update, encode_chain

SIZE = 600
DRAWS = Draws(0, 0)
KINDS = [Mean(), Median(), TrimmedMean(1), Krum(1)]


def normal(seed, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(SIZE)).astype(np.float32)


def gathered(kind, deltas, *, upload="float32", norm_bound=0.0, weights=None, order=None):
    """The mean of `deltas`, which devices d0, d1, ... send in `order`, without clipping anything themselves."""
    gathering = gather(kind, chain(upload, norm_bound), size=SIZE, norm_bound=norm_bound)
    for i in order or range(len(deltas)):
        update = encode_chain(chain(upload, 0.0), deltas[i], Draws(i, 0))
        gathering.add(f"d{i}", update, Draws(i, 0), weight=1.0 if weights is None else weights[i])
    return gathering.mean()


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(7)), upload=st.sampled_from(["float32", "int8"]))
@pytest.mark.parametrize("kind", KINDS[1:], ids=repr)
def test_a_robust_mean_is_the_same_bytes_in_any_order_of_arrival(kind, order, upload):
    deltas = [normal(i) for i in range(6)] + [normal(0)]  # with a tie
    deltas[2][:9], deltas[3][:9] = 0.0, -0.0
    ends = [gathered(kind, deltas, upload=upload, order=o).tobytes() for o in (order, range(7))]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("kind", KINDS[1:], ids=repr)
def test_a_robust_mean_is_not_weighted(kind):
    deltas = [normal(i) for i in range(5)]
    weighted = gathered(kind, deltas, weights=[1, 2, 3, 4, 500])
    np.testing.assert_array_equal(weighted, gathered(kind, deltas))


def test_a_mean_is_weighted():
    mean = gathered(Mean(), [normal(1), normal(2)], weights=[1.0, 3.0])
    np.testing.assert_allclose(mean, (normal(1) + 3 * normal(2)) / 4, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm_bound", [0.0, 2.0])
def test_a_scaled_update_is_shorter_and_weighs_as_before(norm_bound):
    gathering = gather(Mean(), chain("float32", norm_bound), size=SIZE, norm_bound=norm_bound)
    first, second = normal(1, 0.01), normal(2, 1e6 if norm_bound else 0.01)
    gathering.add("a", Update({"values": first}), DRAWS, weight=1.0, scale=0.25)
    gathering.add("b", Update({"values": second}), DRAWS, weight=3.0, scale=0.5)
    if norm_bound:
        second = norm_bound * second / np.linalg.norm(second.astype(np.float64))
    np.testing.assert_allclose(gathering.mean(), (0.25 * first + 0.5 * 3 * second) / 4, rtol=1e-4, atol=1e-6)


@settings(deadline=None)
@given(scale=st.floats(1e-3, 1e10), bound=st.floats(1e-2, 1e3), upload=st.sampled_from(["float32", "int8"]))
@pytest.mark.parametrize("kind", KINDS[:3], ids=repr)
def test_no_update_counts_as_longer_than_the_bound(kind, scale, bound, upload):
    """The phones did not clip; the server does."""
    mean = gathered(kind, [normal(1, scale)] * 3, upload=upload, norm_bound=bound)
    assert np.linalg.norm(mean.astype(np.float64)) <= bound * (1 + 1e-5)


@pytest.mark.parametrize("upload", ["float32", "int8"])
@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_a_bound_that_nobody_reaches_changes_no_bit(kind, upload):
    deltas = [normal(i) for i in range(5)]
    bounded = gathered(kind, deltas, upload=upload, norm_bound=1e3)
    np.testing.assert_array_equal(bounded, gathered(kind, deltas, upload=upload))


def test_an_update_that_is_too_long_keeps_its_direction_and_its_weight():
    mean = gathered(Mean(), [normal(1, 1e6), normal(2, 0.01)], norm_bound=1.0, weights=[1.0, 1.0])
    long = normal(1).astype(np.float64)
    np.testing.assert_allclose(
        mean, (long / np.linalg.norm(long) + normal(2, 0.01)) / 2, rtol=1e-4, atol=1e-6
    )


def test_the_factor_of_a_bound():
    delta = np.array([3, 4], np.float32)
    assert bounding_factor(delta, 2.5) == pytest.approx(0.5)
    assert bounding_factor(delta, 5.0) == bounding_factor(delta, 0.0) == 1.0
    assert bounding_factor(np.zeros(2, np.float32), 1.0) == 1.0


@pytest.mark.parametrize("norm_bound", [0.0, 1.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**100])
@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_a_report_that_is_not_finite_is_refused_and_does_not_count(kind, bad, norm_bound):
    honest = [normal(i, 0.01) for i in range(5)]
    gathering = gather(kind, chain("float32", norm_bound), size=SIZE, norm_bound=norm_bound)
    poisoned = normal(9)
    poisoned[SIZE // 2] = bad
    for i, delta in enumerate(honest):
        gathering.add(f"d{i}", Update({"values": delta}), DRAWS, weight=1.0)
        with pytest.raises(WireError, match="norm must be at most"):
            gathering.add("liar", Update({"values": poisoned}), DRAWS, weight=1.0)
    np.testing.assert_array_equal(gathering.mean(), gathered(kind, honest, norm_bound=norm_bound))


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_a_report_of_another_size_is_refused_when_it_arrives(kind):
    gathering = gather(kind, chain("float32", 0.0), size=SIZE, norm_bound=0.0)
    with pytest.raises(WireError, match=f"{SIZE} values is needed, got 3"):
        gathering.add("d", Update({"values": np.ones(3, np.float32)}), DRAWS, weight=1.0)


def test_aggregates_have_names():
    assert {"mean": Mean, "median": Median, "trimmed-mean": TrimmedMean, "krum": Krum} == AGGREGATES
