"""Phones under way: the order in which their reports come out, and how much is computed before it is needed."""

import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.algorithms import Algorithm
from kbdfl.device_sim.flight import FEW, GROUPS, MOST, Flight
from kbdfl.device_sim.work import Plan
from kbdfl.engines import ThreadEngine


@pytest.fixture
def fly():
    """A flight on `workers` threads whose jobs' frames are their names; gives it and the list of jobs begun."""
    engines = []

    def begin(workers=1, seconds=0.0):
        begun = []

        def work(job):
            begun.append(job.device)
            time.sleep(seconds)
            return job.device.encode()

        def together(group):
            return [work(each) for each in group.jobs], [each.device for each in group.jobs]

        engines.append(ThreadEngine(workers))
        return Flight(engines[-1], work, together), begun

    yield begin
    for engine in engines:
        engine.close()


def job(device, arrival_s, tokens=0):
    """A phone that learns from `tokens`; without any it only says that it has learned."""
    plan = Plan(tokens, run=object()) if tokens else Plan(1)
    return SimpleNamespace(device=device, arrival_s=arrival_s, plan=plan)


@pytest.mark.parametrize("ahead", [0, 1, 3, 9])
def test_reports_come_out_by_arrival_and_then_by_name(fly, ahead):
    flight, _ = fly()
    for device, arrival_s in [("late", 9.0), ("b", 4.0), ("a", 4.0), ("first", 1.0)]:
        flight.add(job(device, arrival_s))
    assert flight.next_s == 1.0
    order = []
    while flight.next_s < float("inf"):
        flight.begin(ahead)
        done, frame = flight.pop()
        assert frame == done.device.encode()
        order.append(done.device)
    assert order == ["first", "a", "b", "late"]


def test_only_the_next_arrivals_are_computed(fly):
    flight, begun = fly()
    for number in range(10):
        flight.add(job(f"phone {number}", float(number)))
    flight.begin(3)
    flight.pop()
    flight.begin(1)
    flight.pop()
    flight.clear()
    assert set(begun) <= {f"phone {number}" for number in range(3)}
    assert {"phone 0", "phone 1"} <= set(begun)


def test_a_phone_that_begins_later_may_arrive_sooner(fly):
    flight, _ = fly()
    flight.add(job("slow", 5.0))
    flight.add(job("quick", 2.0))
    flight.begin(2)
    assert flight.pop()[0].device == "quick"
    flight.add(job("quicker still", 3.0))
    flight.begin(2)
    assert flight.pop()[0].device == "quicker still"


def test_phones_that_are_stopped_are_at_work_no_more(fly):
    flight, begun = fly(workers=2, seconds=0.005)
    for number in range(200):
        flight.add(job(f"phone {number}", float(number)))
    flight.begin(200)
    flight.pop()
    flight.clear()
    done = len(begun)
    assert flight.next_s == float("inf")
    assert done < 100
    flight.add(job("phone 3", 1.0))
    flight.begin(1)
    assert flight.pop()[1] == b"phone 3"
    assert len(begun) == done + 1


class Watched(ThreadEngine):
    """Threads that remember which groups they were given, by devices, at what cost, and what became of them."""

    def __init__(self, workers):
        super().__init__(workers)
        self.groups, self.costs, self.results = [], [], []

    def submit(self, function, item, *, cost=0.0, apart=False):
        result = super().submit(function, item, cost=cost, apart=apart)
        if apart:
            self.groups.append([each.device for each in item.jobs])
            self.costs.append(cost)
            self.results.append(result)
        return result


def name(number):
    return f"phone {number:04}"


def alone(job):
    return f"frame of {job.device}"


def grouped(group):
    """A frame of each, and as their sum a tuple of the devices."""
    return [f"{each.device} of a group" for each in group.jobs], tuple(each.device for each in group.jobs)


@pytest.fixture
def fly_together():
    """A flight on `workers` watched threads with a phone each second, that learns from as many tokens as it says."""
    engines = []

    def begin(tokens, *, workers=1, work=alone, together=grouped):
        engines.append(Watched(workers))
        flight = Flight(engines[-1], work, together)
        for number, each in enumerate(tokens):
            flight.add(job(name(number), float(number), each))
        return flight, engines[-1]

    yield begin
    for engine in engines:
        engine.close()


def land(flight, count, *, before_s=float("inf")):
    """The next `count` arrivals, begun in groups as they are in a simulation: devices, what came of them, and sums."""
    devices, frames, sums = [], [], []
    for left in range(count, 0, -1):
        flight.begin_together(left, before_s=before_s, algorithm=Algorithm())
        done, frame = flight.pop()
        devices.append(done.device)
        frames.append(frame)
        sums += flight.sums()
    return devices, frames, sums


@settings(max_examples=40)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), min_size=1, max_size=120),
    workers=st.integers(1, 3),
    before_s=st.integers(0, 35),
    singly=st.integers(0, 5),
)
def test_members_of_groups_come_out_by_arrival_and_each_is_in_one_sum(arrivals, workers, before_s, singly):
    """Some are at work one by one when the groups are begun."""
    jobs = [job(name(number), float(at), tokens) for number, (at, tokens) in enumerate(arrivals)]
    wanted = sorted(jobs, key=lambda each: (each.arrival_s, each.device))
    in_groups = [each.device for each in wanted[singly:] if each.arrival_s < before_s]
    with Watched(workers) as engine:
        flight = Flight(engine, alone, grouped)
        for each in jobs:
            flight.add(each)
        flight.begin(singly)
        handed_out, begun = [], set()
        for number, each in enumerate(wanted):
            flight.begin_together(len(wanted) - number, before_s=before_s, algorithm=Algorithm())
            done, frame = flight.pop()
            assert done is each
            in_group = each.device in in_groups
            assert frame == (f"{each.device} of a group" if in_group else alone(each))
            begun |= {tuple(group) for group in engine.groups if each.device in group}
            handed_out += flight.sums()
            assert set(handed_out) <= begun  # no sum of which nobody has come out
            assert len(begun) - len(handed_out) < GROUPS * workers
            if in_group and each.device == in_groups[-1]:
                assert [device for total in handed_out for device in total] == in_groups
        assert flight.next_s == float("inf")
        assert flight.sums() == []
        assert [list(total) for total in handed_out] == engine.groups
        assert all(0 < len(group) <= MOST for group in engine.groups)


@pytest.mark.parametrize("again", [True, False])
def test_sums_are_handed_out_once_when_there_are_several_or_no_more_to_come(fly_together, again):
    flight, engine = fly_together([1] * 8)
    handed_out = []
    for left in range(8, 0, -1):
        if again or left == 8:
            flight.begin_together(left, before_s=99.0, algorithm=Algorithm())
        flight.pop()
        handed_out.append(len(flight.sums()))
        assert flight.sums() == []
    if again:  # groups of 4, 2, 1 and 1 phones: two of them have begun to come out, and then all have
        assert [len(group) for group in engine.groups] == [4, 2, 1, 1]
        assert handed_out == [0, 0, 0, 0, 2, 0, 0, 2]
    else:  # of 4 and of 2, and then one by one
        assert [len(group) for group in engine.groups] == [4, 2]
        assert handed_out == [0, 0, 0, 0, 2, 0, 0, 0]


def test_a_phone_that_arrives_when_not_all_may_be_counted_is_in_no_group(fly_together):
    flight, engine = fly_together([0] * 10)
    devices, frames, sums = land(flight, 10, before_s=4.0)
    assert devices == [name(number) for number in range(10)]
    assert sums == [(name(0), name(1), name(2), name(3))]  # number 4 arrives at that very moment
    assert frames[3:5] == [f"{name(3)} of a group", f"frame of {name(4)}"]
    assert len(engine.groups) == 1


def test_only_as_many_arrivals_as_are_wanted_are_grouped(fly_together):
    flight, engine = fly_together([0] * 10)
    flight.begin(2)
    flight.begin_together(5, before_s=99.0, algorithm=Algorithm())
    flight.begin_together(5, before_s=99.0, algorithm=Algorithm())
    assert engine.groups == [[name(2), name(3), name(4)]]
    flight.pop()
    flight.begin_together(4, before_s=99.0, algorithm=Algorithm())
    assert len(engine.groups) == 1
    flight.begin_together(5, before_s=99.0, algorithm=Algorithm())
    assert engine.groups[1:] == [[name(5)]]


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_groups_wait_than_keep_all_workers_at_work(fly_together, workers):
    flight, engine = fly_together([0] * 1000, workers=workers)
    for _ in range(3):
        flight.begin_together(1000, before_s=9999.0, algorithm=Algorithm())
    assert len(engine.groups) == GROUPS * workers
    flight.pop()  # a group is about to be counted: there is room for another one
    flight.begin_together(999, before_s=9999.0, algorithm=Algorithm())
    assert len(engine.groups) == GROUPS * workers + 1


def sizes_of(fly_together, tokens, **options):
    """Of the groups in which so many phones come out."""
    flight, engine = fly_together(tokens, **options)
    devices, _, sums = land(flight, len(tokens))
    assert [list(total) for total in sums] == engine.groups
    assert [device for group in engine.groups for device in group] == devices
    return [len(group) for group in engine.groups]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("tokens", [0, 7])
def test_groups_of_phones_alike_become_smaller_towards_the_end(fly_together, tokens, workers):
    sizes, fewest = sizes_of(fly_together, [tokens] * 1000, workers=workers), 1 if tokens else FEW
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == MOST
    assert sizes[-1] <= fewest <= sizes[-2]


@pytest.mark.parametrize("count", [1, FEW - 1, FEW, FEW + 1, 2 * FEW])
def test_phones_that_do_nothing_are_few_only_at_the_end(fly_together, count):
    whole, rest = divmod(count, FEW)
    assert sizes_of(fly_together, [0] * count) == [FEW] * whole + [rest] * (rest > 0)


@pytest.mark.parametrize(
    ("tokens", "numbers"),
    [
        ([100, 1, 1, 1, 1], [[0], [1, 2], [3], [4]]),
        ([1, 1, 1, 100, 1, 1], [[0, 1, 2], [3], [4], [5]]),
        ([50, 50], [[0], [1]]),
        ([0, 0, 100, 0, 0, 0], [[0, 1], [2], [3, 4, 5]]),
    ],
)
def test_a_phone_that_takes_as_long_as_a_workers_share_is_alone(fly_together, tokens, numbers):
    flight, engine = fly_together(tokens)
    land(flight, len(tokens))
    assert engine.groups == [[name(number) for number in group] for group in numbers]
    assert engine.costs == [sum(tokens[number] for number in group) for group in numbers]


def test_an_error_in_a_group_is_the_callers(fly_together):
    def together(group):
        raise KeyError("the third")

    flight, _ = fly_together([1] * 4, together=together)
    with pytest.raises(KeyError, match="the third"):
        land(flight, 4)


def test_a_phone_that_begins_later_may_arrive_before_a_group(fly_together):
    flight, engine = fly_together([0] * 3)
    flight.begin_together(3, before_s=99.0, algorithm=Algorithm())
    flight.add(job("quick", 0.5))
    flight.begin_together(4, before_s=99.0, algorithm=Algorithm())
    order = []
    while flight.next_s < float("inf"):
        order.append(flight.pop()[0].device)
    assert order == [name(0), "quick", name(1), name(2)]
    assert engine.groups == [[name(0), name(1), name(2)], ["quick"]]


def test_groups_that_are_stopped_are_at_work_no_more_and_in_no_sum(fly_together):
    at_work, go_on = threading.Event(), threading.Event()

    def together(group):
        at_work.set()
        assert go_on.wait(60)
        return grouped(group)

    flight, engine = fly_together([1] * 40, together=together)
    flight.begin_together(40, before_s=99.0, algorithm=Algorithm())
    first, second = engine.results
    assert at_work.wait(60)

    def let_go():
        while not second.done():
            time.sleep(0.001)
        go_on.set()

    letting = threading.Thread(target=let_go)
    letting.start()
    flight.clear()
    assert second.cancelled()
    assert first.done()
    letting.join()
    assert flight.next_s == float("inf")
    assert flight.sums() == []
    flight.begin_together(40, before_s=99.0, algorithm=Algorithm())
    assert len(engine.groups) == 2
    for number in range(3):  # the same phones, later
        flight.add(job(name(number), 50.0 + number))
    devices, _, sums = land(flight, 3)
    assert sums == [tuple(devices)] == [(name(0), name(1), name(2))]


def test_sums_of_a_round_that_is_stopped_are_not_those_of_the_next(fly_together):
    flight, _ = fly_together([1] * 8)
    flight.begin_together(8, before_s=99.0, algorithm=Algorithm())
    flight.pop()
    flight.clear()
    assert flight.sums() == []
    flight.add(job("another", 60.0))
    assert land(flight, 1)[2] == [("another",)]
