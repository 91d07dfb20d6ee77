import threading
import time

import numpy as np
import pytest

from kbdfl.engines import InlineEngine, ThreadEngine
from kbdfl.errors import ConfigError


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(workers):
    def slow_at_first(item):
        time.sleep(0.002 * (10 - item))
        return item * item

    with ThreadEngine(workers) as engine:
        assert list(engine.map(slow_at_first, range(10))) == [item * item for item in range(10)]
        assert list(engine.map(str, iter("abc"))) == ["a", "b", "c"]
        assert list(engine.map(str, [])) == []


def test_as_many_items_run_at_once_as_there_are_workers():
    meeting = threading.Barrier(3, timeout=20)
    with ThreadEngine(3) as engine:
        assert sorted(engine.map(lambda _: meeting.wait(), range(3))) == [0, 1, 2]


def test_an_exception_of_an_item_reaches_the_caller():
    def third_fails(item):
        if item == 2:
            raise KeyError("the third")
        return item

    with ThreadEngine(2) as engine:
        results = engine.map(third_fails, range(5))
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(KeyError, match="the third"):
            next(results)


def test_a_submitted_item_begins_at_once_and_gives_its_result_or_raises():
    begun = threading.Event()

    def work(item):
        begun.set()
        return 1 / item

    with ThreadEngine(1) as engine:
        result = engine.submit(work, 2)
        assert begun.wait(20)
        assert result.result() == 0.5
        with pytest.raises(ZeroDivisionError):
            engine.submit(work, 0).result()


def test_a_caller_that_stops_listening_ends_what_has_not_begun():
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.005)
        return item

    with ThreadEngine(1) as engine:
        results = engine.map(work, range(200))
        assert next(results) == 0
        results.close()
    assert len(begun) < 100


def test_an_engine_needs_a_worker():
    with pytest.raises(ConfigError, match="workers must be >= 1, got 0"):
        ThreadEngine(0)


def test_an_engine_without_threads_has_done_what_it_was_given():
    begun = []
    with InlineEngine() as engine:
        shared = engine.share(np.arange(3.0))
        result = engine.submit(lambda item: begun.append(item) or shared.get().sum() + item, 4)
        assert begun == [4]
        assert result.done()
        assert result.result() == 7
        assert list(engine.map(abs, [-1, 2])) == [1, 2]
        assert engine.combine(sum, [1, 2, 3]) == 6
        with pytest.raises(ZeroDivisionError):
            engine.submit(lambda item: 1 // item, 0).result()
        assert not shared.get().flags.writeable
