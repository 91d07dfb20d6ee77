"""Robust means against numpy on the whole matrix, and against reports that say anything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kbdfl.algorithms import Krum, Median, TrimmedMean
from kbdfl.algorithms.base import chain
from kbdfl.algorithms.robust import CHUNK, Cohort, squared_distances
from kbdfl.errors import ConfigError
from kbdfl.transform import Draws, decode_chain, encode_chain

SIZE = 2 * CHUNK + 300  # two chunks, and a third that ends inside a block
MODEST = st.floats(-100, 100, width=32)
ANY = st.floats(-(2.0**60), 2.0**60, width=32)


def cohort_of(deltas, *, upload="float32", factors=None):
    transforms = chain(upload, 0.0)
    updates = [encode_chain(transforms, delta, Draws(seed, 0)) for seed, delta in enumerate(deltas)]
    draws = [Draws(seed, 0) for seed in range(len(deltas))]
    return Cohort(transforms, deltas[0].size, updates, draws, factors or [1.0] * len(updates))


def decoded(cohort):
    """The whole matrix, float32 (n, P)."""
    rows = [
        decode_chain(cohort.transforms, update, cohort.size, draws)
        for update, draws in zip(cohort.updates, cohort.draws, strict=True)
    ]
    return np.array([np.float32(factor) * row for factor, row in zip(cohort.factors, rows, strict=True)])


def normal(n, size, seed=1):
    return np.random.default_rng(seed).standard_normal((n, size)).astype(np.float32)


@pytest.mark.parametrize("upload", ["float32", "int8"])
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_median_is_numpys_on_the_whole_matrix(upload, n):
    cohort = cohort_of(normal(n, SIZE), upload=upload, factors=[1.0, 0.25] * (n // 2) + [1.0] * (n % 2))
    np.testing.assert_array_equal(Median().combine(cohort), np.median(decoded(cohort), axis=0))


@pytest.mark.parametrize("upload", ["float32", "int8"])
@pytest.mark.parametrize(("n", "faulty"), [(1, 0), (4, 0), (3, 1), (7, 2)])
def test_the_trimmed_mean_is_numpys_on_the_whole_matrix(upload, n, faulty):
    cohort = cohort_of(normal(n, SIZE), upload=upload)
    wanted = np.sort(decoded(cohort), axis=0)[faulty : n - faulty].mean(axis=0)
    np.testing.assert_allclose(TrimmedMean(faulty).combine(cohort), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("upload", ["float32", "int8"])
@pytest.mark.parametrize(
    ("n", "rule"), [(3, Krum(0)), (7, Krum(2)), (9, Krum(2, keep=1)), (9, Krum(1, keep=9))]
)
def test_krum_is_the_papers_on_the_whole_matrix(upload, n, rule):
    cohort = cohort_of(normal(n, SIZE), upload=upload)
    rows = decoded(cohort).astype(np.float64)
    squared = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared_distances(cohort), squared, rtol=1e-9)
    scores = []
    for i in range(n):
        others = sorted(squared[i, j] for j in range(n) if j != i)
        scores.append(sum(others[: n - rule.faulty - 2]))
    best = np.argsort(scores)[: rule.keep or n - rule.faulty - 2]
    np.testing.assert_array_equal(rule.chosen(cohort), np.sort(best))
    np.testing.assert_allclose(rule.combine(cohort), rows[best].mean(axis=0), rtol=1e-4, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), faulty=st.integers(0, 3), more=st.integers(1, 4))
def test_median_and_trimmed_mean_stay_among_the_honest_whatever_the_faulty_send(data, faulty, more):
    honest = data.draw(arrays(np.float32, (faulty + more, 4), elements=MODEST))
    lies = data.draw(arrays(np.float32, (faulty, 4), elements=ANY))
    cohort = cohort_of(data.draw(st.permutations([*honest, *lies])))
    slack = 1e-5 * np.abs(honest).max()  # of a float32 mean
    for rule in (Median(), TrimmedMean(faulty)):
        mean = rule.combine(cohort)
        assert (mean >= honest.min(axis=0) - slack).all()
        assert (mean <= honest.max(axis=0) + slack).all()


@settings(max_examples=40, deadline=None)
@given(
    faulty=st.integers(1, 3),
    honest_more=st.integers(0, 3),
    direction=arrays(np.float32, 6, elements=st.sampled_from([-1.0, 1.0])),
    scale=st.floats(100, 1e6),
    keep=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_krum_drops_planted_outliers(faulty, honest_more, direction, scale, keep, seed):
    """Even ones that lie together: f of them never are as many as a score needs."""
    honest = normal(faulty + 3 + honest_more, 6, seed)
    cohort = cohort_of([*([np.float32(scale) * direction] * faulty), *honest])
    rule = Krum(faulty, keep)
    assert rule.chosen(cohort).min() >= faulty
    assert (np.abs(rule.combine(cohort)) <= np.abs(honest).max(axis=0) * 1.0001).all()


def test_a_plain_mean_is_moved_by_one_outlier_and_these_are_not():
    honest, lie = normal(6, 50), np.full(50, 1e6, np.float32)
    cohort = cohort_of([*honest, lie])
    assert np.abs(decoded(cohort).mean(axis=0)).min() > 1e5
    for rule in (Median(), TrimmedMean(1), Krum(1)):
        assert np.abs(rule.combine(cohort)).max() < 4


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(1), Krum(1), Krum(1, keep=1)], ids=repr)
def test_equal_updates_are_their_mean(rule):
    """All ties: nothing is farther away than anything else."""
    one = normal(1, 700)[0]
    np.testing.assert_allclose(rule.combine(cohort_of([one] * 6)), one, rtol=1e-6)


def test_of_equal_scores_krum_keeps_the_first():
    points = np.array([[0], [1], [2], [3], [4]], np.float32)
    np.testing.assert_array_equal(Krum(0, keep=2).chosen(cohort_of(points)), [1, 2])  # of 1, 2 and 3
    np.testing.assert_array_equal(Krum(0, keep=1).combine(cohort_of(points)), [1])


def test_a_bound_on_the_norm_counts_before_the_middle_is_taken():
    rows = np.array([[1], [2], [8]], np.float32)
    np.testing.assert_array_equal(Median().combine(cohort_of(rows, factors=[1, 1, 0.125])), [1])
    np.testing.assert_array_equal(Krum(0, keep=3).combine(cohort_of(rows, factors=[1, 0.5, 0.125])), [1])


def test_each_rule_says_how_many_reports_it_needs():
    assert Median().fewest == 1
    assert [TrimmedMean(f).fewest for f in (0, 1, 4)] == [1, 3, 9]
    assert [Krum(f).fewest for f in (0, 1, 4)] == [3, 5, 11]
    assert Krum(1, keep=8).fewest == 8


@pytest.mark.parametrize(
    ("rule", "values"), [(TrimmedMean, {"faulty": -1}), (Krum, {"faulty": -1}), (Krum, {"keep": -1})]
)
def test_a_negative_number_of_reports_is_refused(rule, values):
    with pytest.raises(ConfigError, match=r"(faulty|keep) must be >= 0, got -1"):
        rule(**values)
