"""What gathers a round's reports: bounds on norms, orders of arrival, refusals."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.algorithms import AGGREGATES, Krum, Mean, Median, TrimmedMean
from kbdfl.algorithms.aggregate import RunningSum, bounding_factor, gather
from kbdfl.algorithms.base import chain
from kbdfl.errors import WireError
from kbdfl.transform import Draws, Update, decode_chain, encode_chain

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


UPLOADS = ["float32", "int8", "compact", "tiny-uplink", "rotate+sample:0.25+int4"]


def running_sum(reports, *, upload="float32", norm_bound=0.0):
    """A sum of reports: (update, draws, weight, scale) each."""
    total = RunningSum(chain(upload, norm_bound), SIZE, norm_bound)
    for i, (update, draws, weight, scale) in enumerate(reports):
        total.add(f"d{i}", update, draws, weight=weight, scale=scale)
    return total


def bytes_of(total):
    state = total.state()
    return state["total"].tobytes(), state["weight"], state["count"]


def reports_of(seeds, *, upload="float32"):
    """What as many phones send, some of whose updates are long; their weights are irrational, and so are scales."""
    reports = []
    for seed in seeds:
        delta, draws = normal(seed, (0.01, 0.3, 7.0)[seed % 3]), Draws(seed, 0)
        delta[50 * (seed % 7) : 50 * (seed % 7) + 250] = 0.0  # words that it did not train
        update = encode_chain(chain(upload, 0.0), delta, draws)
        reports.append((update, draws, sqrt(1 + seed % 200), 1 / sqrt(1 + seed % 5)))
    return reports


def merged_in_turn(sums, cuts):
    """One sum of all, a few at a time: as many of what is left as each of `cuts` says, and the rest in the end."""
    for cut in cuts:
        sums = [*sums[cut:], RunningSum.merged(sums[:cut])] if cut <= len(sums) else sums
    return RunningSum.merged(sums)


@settings(max_examples=50)
@given(
    seeds=st.lists(st.integers(0, 999), min_size=2, max_size=9),
    upload=st.sampled_from(UPLOADS),
    norm_bound=st.sampled_from([0.0, 5.0]),
    data=st.data(),
)
def test_a_mean_is_the_same_bytes_in_any_order_and_however_its_sum_is_split(seeds, upload, norm_bound, data):
    reports = reports_of(seeds, upload=upload)
    whole = running_sum(reports, upload=upload, norm_bound=norm_bound)
    parts = [[] for _ in range(4)]
    for place in data.draw(st.permutations(range(len(reports)))):
        parts[data.draw(st.integers(0, 3))].append(reports[place])
    sums = [running_sum(part, upload=upload, norm_bound=norm_bound) for part in parts]
    total = merged_in_turn(sums, data.draw(st.lists(st.integers(1, 4), max_size=4)))
    assert total.count == len(seeds)
    assert bytes_of(total) == bytes_of(whole)
    assert total.mean().tobytes() == whole.mean().tobytes()


@pytest.mark.parametrize("norm_bound", [0.0, 5.0])
@pytest.mark.parametrize("upload", UPLOADS)
def test_a_sum_that_was_split_is_the_weighted_mean_of_what_was_sent(upload, norm_bound):
    reports, wanted, weights = reports_of(range(8), upload=upload), np.zeros(SIZE), 0.0
    for update, draws, weight, scale in reports:
        delta = decode_chain(chain(upload, 0.0), update, SIZE, draws).astype(np.float64)
        if norm_bound:
            delta *= min(1.0, norm_bound / np.linalg.norm(delta))
        wanted, weights = wanted + scale * weight * delta, weights + weight
    sums = [running_sum(part, upload=upload, norm_bound=norm_bound) for part in (reports[:3], reports[3:])]
    np.testing.assert_allclose(RunningSum.merged(sums).mean(), wanted / weights, rtol=1e-6, atol=1e-8)


def test_merging_leaves_its_arguments_alone():
    reports = reports_of(range(6))
    first, second, third = (running_sum(reports[start : start + 2]) for start in (0, 2, 4))
    before = [bytes_of(each) for each in (first, second, third)]
    total = RunningSum.merged([first, second])
    total.merge(third)
    total.merge(third)
    assert total.count == 8
    assert [bytes_of(each) for each in (first, second, third)] == before


def test_what_is_added_to_a_merged_sum_is_in_no_other():
    reports = reports_of([1, 2, 3, 4])
    first, second = running_sum(reports[:1]), running_sum(reports[1:2])
    total = RunningSum.merged([first, second])
    for place, each in ((2, first), (3, total)):
        update, draws, weight, scale = reports[place]
        each.add("later", update, draws, weight=weight, scale=scale)
    assert bytes_of(first) == bytes_of(running_sum([reports[0], reports[2]]))
    assert bytes_of(second) == bytes_of(running_sum([reports[1]]))
    assert bytes_of(total) == bytes_of(running_sum([reports[0], reports[1], reports[3]]))


def test_one_sum_is_merged_as_it_is():
    total = running_sum(reports_of([1, 2]))
    before = bytes_of(total)
    assert RunningSum.merged([total]) is total
    assert bytes_of(total) == before


def test_an_empty_sum_adds_nothing():
    total, empty = running_sum(reports_of([1, 2])), running_sum([])
    assert empty.count == 0
    for sums in ([total, empty], [empty, total], [empty, empty, total]):
        assert bytes_of(RunningSum.merged(sums)) == bytes_of(total)


def test_sums_that_cannot_be_written_to_are_merged_too():
    """As they come out of a store that many processes look at."""
    reports, sums = reports_of(range(5)), []
    for part in (reports[:2], reports[2:]):
        sums.append(running_sum(part))
        state = sums[-1].state()
        state["total"].setflags(write=False)
        sums[-1].restore(state)
    mine = running_sum([])
    for each in sums:
        mine.merge(each)
    assert bytes_of(mine) == bytes_of(RunningSum.merged(sums)) == bytes_of(running_sum(reports))


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
