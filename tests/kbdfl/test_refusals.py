"""Bad reports of full size: each is refused in one line, takes little memory and leaves the round as it was."""

import importlib.util
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from kbdfl.model import preset

MOST_MEMORY = 16_000_000
PATH = Path(__file__).parents[2] / "benchmarks" / "refusals.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("refusals", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seen(coordinator):
    return coordinator.round, coordinator.version, coordinator.reports, coordinator.params.tobytes()


def test_bad_reports_are_refused_by_reason_in_little_memory_and_change_nothing(bench):
    config, asked = preset("gboard"), {}
    for what, upload, frame in bench.reports(config):
        if upload not in asked:
            asked[upload] = bench.coordinate(config, bench.CHAINS.get(upload, upload))
        coordinator, _ = asked[upload]
        before = seen(coordinator)
        tracemalloc.start()
        reason = bench.refuse(coordinator, frame)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_MEMORY, (what, upload, peak)
        assert 10 < len(reason) < 300, what
        assert "\n" not in reason, what
        assert seen(coordinator) == before, (what, upload)
    assert len(asked) == 6
    for upload, (coordinator, assignment) in asked.items():
        untouched, same = bench.coordinate(config, bench.CHAINS.get(upload, upload))
        assert same == assignment
        for each in (coordinator, untouched):
            frame = bench.honest(assignment)
            assert each.report(bench.DEVICE, frame, 1.0).duplicate is False
            each.tick(200.0)
        assert coordinator.version == untouched.version == 1
        np.testing.assert_array_equal(coordinator.params, untouched.params)
