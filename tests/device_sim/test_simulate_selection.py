"""Selection rules on simulated phones: of different speeds and hours, in rounds of a cohort and asynchronously."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import (
    SELECTIONS,
    Algorithm,
    AvailabilityAware,
    DeadlineAware,
    FedBuff,
    Oort,
    Synchronous,
    Uniform,
)
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim import simulate
from kbdfl.device_sim.devices import Device
from kbdfl.errors import ConfigError
from kbdfl.params import digest

MODES = [Synchronous(), FedBuff(concurrency=8)]
UNEQUAL = {"speeds": "heavy-tailed", "availability": "nightly", "dropout": 0.2}
RULES = [
    Uniform(min_separation=3),
    AvailabilityAware(),
    DeadlineAware(target_s=0.5),
    Oort(),
    Oort(min_separation=2),
]


@pytest.fixture
def parts(monkeypatch):
    """How often each phone was given work, and by its tier."""
    given, tiers = Counter(), Counter()

    def check_in(self, device, now, *, tier="", _check_in=Coordinator.check_in):
        answer = _check_in(self, device, now, tier=tier)
        if hasattr(answer, "round"):
            given[device] += 1
            tiers[tier] += 1
        return answer

    monkeypatch.setattr(Coordinator, "check_in", check_in)
    return given, tiers


def test_the_rules_here_are_all_there_are():
    assert {type(rule) for rule in RULES} == set(SELECTIONS.values())


@pytest.mark.parametrize("mode", MODES, ids=["synchronous", "fedbuff"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rounds_go_on_whatever_the_rule_and_end_in_the_same_bytes_whatever_the_workers(play, rule, mode):
    ends = []
    for workers in (1, 2):
        rows, simulation = play(
            workers=workers,
            algorithm=Algorithm(mode=mode, selection=rule),
            rule={"rounds": 12, "deadline_s": 5.0, "min_reports": int(mode == Synchronous())},
            **UNEQUAL,
        )
        for row in rows:
            row.pop("wall_s")
        ends.append((digest(simulation.coordinator.params), rows))
    assert ends[0] == ends[1]
    assert ends[0][1][-1]["version"] > 6


@pytest.mark.parametrize("rule", [DeadlineAware(target_s=0.5), Oort(exploration_decay=0.8)], ids=str)
def test_rules_that_mind_speed_take_fewer_slow_phones_and_less_time(play, parts, monkeypatch, rule):
    def make(seed, name, **_):
        slow = sum(map(ord, name)) % 2
        return Device("slow", bytes_per_s=1e4) if slow else Device("quick", bytes_per_s=1e6)

    monkeypatch.setattr(simulate, "make_device", make)
    shares, times = [], []
    for selection in (Uniform(), rule):
        parts[1].clear()
        rows, _ = play(algorithm=Algorithm(selection=selection), rule={"rounds": 60, "over_selection": 1.0})
        shares.append(parts[1]["slow"] / parts[1].total())
        times.append(rows[-1]["virtual_s"])
    assert shares[1] < shares[0] / 1.5
    assert times[1] < times[0]


def test_separation_spreads_the_work_over_the_phones(play, parts):
    spreads = []
    for separation in (0, 6):
        parts[0].clear()
        play(algorithm=Algorithm(selection=Uniform(separation)), rule={"rounds": 24, "over_selection": 1.0})
        spreads.append(np.std(list(parts[0].values())))
    assert spreads[1] < spreads[0] / 2


def test_a_separation_that_the_phones_are_too_few_for_is_refused(play, run_config):
    config = run_config()
    algorithm = replace(config.algorithm, selection=Uniform(min_separation=50))
    with pytest.raises(
        ConfigError, match=r"^min_separation must be at most \d for \d+ phones in rounds of 4, got 50$"
    ):
        play(algorithm=algorithm)
