"""Plans: their probabilities against exact counts and against chance; and rings that fall apart when they should."""

from fractions import Fraction
from math import comb, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.errors import ConfigError
from kbdfl.secagg import graph
from kbdfl.secagg.graph import (
    Plan,
    Ring,
    check_plan,
    log2_insecure,
    log2_lost,
    log2_tail,
    plan_for,
    quorum_of,
)


@given(
    population=st.integers(1, 60),
    marked=st.integers(0, 60),
    drawn=st.integers(0, 60),
    least=st.integers(-2, 62),
)
def test_tails_are_the_hypergeometric_distributions(population, marked, drawn, least):
    marked, drawn = min(marked, population), min(drawn, population)
    hits = range(max(least, 0), min(marked, drawn) + 1)
    ways = sum(comb(marked, hit) * comb(population - marked, drawn - hit) for hit in hits)
    tail = log2_tail(population=population, marked=marked, drawn=drawn, least=least)
    if ways == 0:
        assert tail == -np.inf
    else:
        assert tail == pytest.approx(log2(Fraction(ways, comb(population, drawn))), abs=1e-9)


def test_a_plan_for_1024_phones_of_which_a_third_may_drop_out():
    plan = plan_for(1_024)
    assert plan == Plan(1_024, 166, 84, 615)
    assert log2_insecure(plan, 0.2) < -60
    assert log2_lost(plan, 1 / 3) <= -10
    assert log2_lost(Plan(1_024, 164, 83, 615), 1 / 3) > -10


@pytest.mark.parametrize("devices", [129, 200, 1_024, 4_096])
@pytest.mark.parametrize("corrupt", [0.0, 0.2, 0.3])
def test_plans_keep_what_they_promise(devices, corrupt):
    plan = plan_for(devices, corrupt=corrupt)
    assert not plan.complete
    assert 2 * plan.threshold > plan.degree
    assert 2 * plan.quorum > (1 + corrupt) * devices
    assert log2_insecure(plan, corrupt) <= -40
    assert log2_lost(plan, 1 / 3) <= -10
    check_plan(plan, corrupt=corrupt, security_bits=40)


@pytest.mark.parametrize("devices", [2, 3, 10, 128])
def test_a_small_cohort_is_complete_and_cannot_be_betrayed(devices):
    plan = plan_for(devices)
    assert plan.complete
    assert log2_insecure(plan, 0.2) == -np.inf


def test_more_security_or_liveness_takes_more_neighbours_until_all_are():
    degrees = [plan_for(500, liveness_bits=bits).degree for bits in (1, 10, 20, 40)]
    assert degrees == sorted(set(degrees))
    assert plan_for(300, security_bits=120).degree > plan_for(300, security_bits=40).degree
    assert plan_for(131, dropout=0.4999, corrupt=0, liveness_bits=100).complete


def disconnected(alive, ring, degree):
    """By walking the graph."""
    alive, seen, todo = set(alive), set(), [next(iter(alive))]
    while todo:
        device = todo.pop()
        if device not in seen:
            seen.add(device)
            todo += [other for other in ring.neighbours(device) if other in alive]
    return seen != alive


def test_the_bounds_hold_by_trial(monkeypatch):
    """Where bad events are frequent enough to be seen, they are no more frequent than the bounds say."""
    monkeypatch.setattr(graph, "COMPLETE", 4)
    plan, corrupt, random = Plan(40, 8, 5, 33), 0.2, np.random.Generator(np.random.PCG64(3))
    missing, colluding = 40 - plan.quorum, int(corrupt * 40)
    rebuilt = apart = 0
    for trial in range(1_500):
        ring = Ring.drawn(plan, trial.to_bytes(32, "little"))
        people = random.permutation(40)
        bad, good = set(people[:colluding].tolist()), people[colluding + missing :].tolist()
        rebuilt += any(len(bad & set(ring.neighbours(device))) >= plan.threshold for device in range(40))
        apart += not ring.connected(good)
    bound = 2 ** log2_insecure(plan, corrupt)
    assert max(rebuilt, apart) / 1_500 > 0.01
    assert (rebuilt + apart) / 1_500 <= bound
    assert rebuilt / 1_500 <= 2 ** graph._rebuilt(40, 8, 5, colluding) * 1.2
    assert apart / 1_500 <= 2 ** graph._apart(40, 8, colluding + missing) * 1.2


def test_rounds_are_lost_as_seldom_as_the_bound_says(monkeypatch):
    monkeypatch.setattr(graph, "COMPLETE", 4)
    plan, random = Plan(60, 20, 11, 37), np.random.Generator(np.random.PCG64(4))
    lost = 0
    for trial in range(1_000):
        ring = Ring.drawn(plan, trial.to_bytes(32, "little"))
        alive = set(random.permutation(60)[:45].tolist())
        lost += any(len(alive & set(ring.neighbours(device))) < plan.threshold for device in range(60))
    assert 0 < lost / 1_000 <= 1.2 * 2 ** log2_lost(plan, 15 / 60)


@given(data=st.data(), half=st.integers(1, 4), devices=st.integers(10, 24))
def test_a_ring_is_apart_exactly_when_a_walk_finds_it_so(data, half, devices):
    # The plan's own rule, more than 128, is for privacy; a ring of fewer is the same ring.
    plan = object.__new__(Plan)
    for name, value in (("devices", devices), ("degree", 2 * half), ("threshold", 1), ("quorum", 1)):
        object.__setattr__(plan, name, value)
    ring = Ring.drawn(plan, data.draw(st.binary(min_size=32, max_size=32)))
    alive = data.draw(st.sets(st.integers(0, devices - 1), min_size=1))
    assert ring.connected(alive) != disconnected(alive, ring, 2 * half)


def test_neighbours_are_mutual_and_as_many_as_planned():
    plan = plan_for(200)
    ring = Ring.drawn(plan, b"r" * 32)
    rows = [ring.neighbours(device) for device in range(200)]
    for device, row in enumerate(rows):
        assert len(row) == len(set(row)) == plan.degree
        assert row == sorted(row)
        assert device not in row
        assert all(device in rows[other] for other in row)


def test_a_ring_follows_from_its_seed_alone():
    plan = plan_for(200)
    first, again, other = (Ring.drawn(plan, seed).order for seed in (b"r" * 32, b"r" * 32, b"q" * 32))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first[:8].tolist() == [120, 145, 158, 126, 179, 137, 42, 8]  # of wire format 1
    np.testing.assert_array_equal(np.sort(first), np.arange(200))


def test_nobody_alive_is_not_one_piece():
    assert not Ring.drawn(plan_for(5), b"r" * 32).connected([])


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ((1, 1, 1, 1), "devices"),
        ((5, 2, 2, 3), "degree"),  # sparse, but so few
        ((200, 99, 60, 120), "degree"),  # odd
        ((200, 200, 120, 120), "degree"),
        ((5, 4, 2, 4), "threshold"),  # half
        ((5, 4, 5, 4), "threshold"),
        ((6, 5, 3, 3), "quorum"),  # half
        ((6, 5, 3, 7), "quorum"),
    ],
)
def test_impossible_plans_are_refused(numbers, reason):
    with pytest.raises(ConfigError, match=f"{reason} must be"):
        Plan(*numbers)


def test_a_plan_that_is_weaker_than_asked_for_is_refused():
    with pytest.raises(ConfigError, match="quorum must be at least 615, got 614"):
        check_plan(Plan(1_024, 166, 84, 614), corrupt=0.2, security_bits=40)
    with pytest.raises(ConfigError, match="insecure"):
        check_plan(Plan(1_024, 40, 21, 615), corrupt=0.2, security_bits=40)


@pytest.mark.parametrize(
    ("dropout", "corrupt"), [(0.5, 0), (0.4, 0.2), (-0.1, 0), (0, -0.1), (float("nan"), 0)]
)
def test_shares_that_leave_no_quorum_are_refused(dropout, corrupt):
    with pytest.raises(ConfigError, match="below 1"):
        plan_for(300, dropout=dropout, corrupt=corrupt)


@given(devices=st.integers(2, 5_000), corrupt=st.floats(0, 0.9))
def test_two_sets_of_survivors_cannot_both_have_a_quorum(devices, corrupt):
    quorum = quorum_of(devices, corrupt)
    assert 2 * quorum - int(corrupt * devices) > devices or quorum == devices
