"""Phones under way: the order in which their reports come out, and how much is computed before it is needed."""

import time
from types import SimpleNamespace

import pytest

from kbdfl.device_sim.flight import Flight
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


def job(device, arrival_s):
    return SimpleNamespace(device=device, arrival_s=arrival_s, plan=Plan(1))


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
