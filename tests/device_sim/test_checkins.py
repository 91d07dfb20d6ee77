"""The queue of check-ins: all of them, in order, whoever is told to come again and when."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.device_sim.checkins import BUCKET_S, FIRST_S, CheckIns
from kbdfl.device_sim.devices import DAY_S
from kbdfl.device_sim.hours import Weekly
from kbdfl.snapshot import pack, unpack


class Listed:
    """Hours that a test writes down: phone -> windows, on whichever day they begin."""

    def __init__(self, windows):
        self.rows = [(phone, *window) for phone, several in windows.items() for window in several]

    def windows(self, day, phones):
        rows = [row for row in self.rows if row[1] // DAY_S == day and row[0] in phones]
        columns = list(zip(*rows, strict=True)) or [(), (), ()]
        return tuple(np.array(column, kind) for column, kind in zip(columns, ("i8", "f8", "f8"), strict=True))


def played(checkins, until_s, pace_s):
    """All check-ins until then, each phone coming again after the pace."""
    seen = []
    for at_s, phone, closes_s, tier in checkins.due(until_s):
        seen.append((at_s, phone))
        checkins.again(phone, at_s + pace_s, closes_s, tier)
    return seen


def test_a_phone_comes_soon_after_its_window_opens_and_no_more_once_it_is_over():
    seen = played(CheckIns(Listed({0: [(1000.0, 9000.0)], 1: [(2000.0, 2500.0)]}), 2, seed=1), 1e6, 1500.0)
    mine = [at_s for at_s, phone in seen if phone == 0]
    assert 1000 <= mine[0] <= 1000 + FIRST_S
    assert np.allclose(np.diff(mine), 1500.0)
    assert 9000 - 1500 <= mine[-1] < 9000
    assert [phone for _, phone in seen].count(1) <= 1


@settings(max_examples=40, deadline=None)
@given(
    pace_s=st.floats(20.0, 20_000.0),
    count=st.integers(1, 60),
    seed=st.integers(0, 99),
    stops=st.lists(st.floats(0, 3 * DAY_S), max_size=6),
)
def test_nothing_is_lost_doubled_or_out_of_order_however_the_clock_stops(pace_s, count, seed, stops):
    whole = played(CheckIns(Weekly(seed), count, seed=seed), 3 * DAY_S, pace_s)
    assert whole == sorted(whole)
    assert len(set(whole)) == len(whole)
    queue, parts = CheckIns(Weekly(seed), count, seed=seed), []
    for stop in [*sorted(stops), 3 * DAY_S]:
        parts += played(queue, stop, pace_s)
    assert parts == whole
    expected = 0
    for day in range(-1, 4):
        phones, opens, closes = Weekly(seed).windows(day, np.arange(count))
        inside = (np.maximum(opens, 0) + FIRST_S < closes) & (opens + FIRST_S < 3 * DAY_S)
        expected += int(inside.sum())
        assert set(phones[inside].tolist()) <= {phone for _, phone in whole}
    assert len(whole) >= expected


def test_whoever_comes_back_within_a_bucket_comes_in_between():
    windows = {phone: [(0.0, 50_000.0)] for phone in range(30)}
    seen = played(CheckIns(Listed(windows), 30, seed=1), 4 * BUCKET_S, BUCKET_S / 10)
    assert seen == sorted(seen)
    assert len(seen) > 30 * 4


def test_next_is_when_the_next_one_comes():
    queue = CheckIns(Listed({0: [(1000.0, 2000.0)], 1: [(3 * DAY_S, 3 * DAY_S + 9000.0)]}), 2, seed=1)
    for until_s in (queue.next_s, 1e7):
        first = queue.next_s
        found = list(queue.due(until_s))
        assert found[0][0] == first
    assert queue.next_s == float("inf")


@pytest.mark.parametrize("stop_s", [0.0, 5_000.0, DAY_S, 2.3 * DAY_S])
def test_a_queue_goes_on_from_its_state(stop_s):
    def fresh():
        return CheckIns(Weekly(4), 200, seed=4)

    whole, queue = fresh(), fresh()
    expected = played(whole, 3 * DAY_S, 2500.0)
    seen = played(queue, stop_s, 2500.0)
    other = fresh()
    other.restore(unpack(pack(queue.state())))
    assert seen + played(other, 3 * DAY_S, 2500.0) == expected


def test_phones_that_nobody_asks_for_take_no_memory():
    import tracemalloc

    queue = CheckIns(Weekly(1), 300_000, seed=1)
    tracemalloc.start()
    queue.next_s  # noqa: B018
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Two days of windows at 24 bytes, a batch in the making, and the first bucket.
    assert peak < 300_000 * 150
