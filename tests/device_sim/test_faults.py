"""Ten thousand storms: whatever goes wrong, nothing that was acknowledged is lost or counted twice.

KBDFL_FAULT_SEEDS says how many seeds are played; by default 200. One that fails is played again by its number.
"""

import os
from collections import Counter

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule, FedAvg, FedBuff
from kbdfl.algorithms.aggregate import WEIGHT_STEP
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim.audit import InvariantBroken
from kbdfl.device_sim.faults import STORM, Chances, Storm
from kbdfl.device_sim.population import Population
from kbdfl.errors import ConfigError
from kbdfl.params import digest
from kbdfl.run import RunConfig, build_task

SEEDS = int(os.environ.get("KBDFL_FAULT_SEEDS", "200"))
GROUPS = 10  # of seeds, so that a test takes a while and not for ever
ALGORITHMS = (
    Algorithm(),
    Algorithm(mode=FedBuff(concurrency=8, max_staleness=2)),
    Algorithm(ClientRule(feedback_rounds=3), upload="tiny-uplink", server=FedAvg()),
    Algorithm(ClientRule(report_words=9, candidates=6), update_clip_norm=0.5),
)


@pytest.fixture(scope="session")
def storm(texts, run_config):
    """A short run in a storm, by its seed."""
    population = Population(texts)

    def play(seed, chances=STORM):
        rule = {"rounds": 6, "deadline_s": 5.0}
        config = run_config(rule=rule, seed=seed, speeds="heavy-tailed", dropout=0.1)
        config = RunConfig(config.settings, ALGORITHMS[seed % len(ALGORITHMS)], config.rule)
        built = build_task(config, training_texts=population.texts())
        simulation = Storm(config, built, population, chances=chances, held_out=None)
        rows = []
        simulation.rounds(rows.append)
        return rows, simulation

    return play


def several(storm):
    """Ten storms of synchronous rounds."""
    for seed in range(0, 40, 4):
        storm(seed)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("group", range(GROUPS))
def test_what_was_acknowledged_is_in_one_sum_in_every_storm(storm, group):
    for seed in range(group, SEEDS, GROUPS):
        try:
            rows, simulation = storm(seed)
        except InvariantBroken as error:
            pytest.fail(f"seed {seed}: {error}")
        versions = [row["version"] for row in rows]
        assert versions == sorted(versions), f"seed {seed}"
        assert len({row["round"] for row in rows}) == len(rows) == 6, f"seed {seed}"
        in_sums = sum(row["reports"] for row in rows)
        # A round that a crash broke off is abandoned: what it had acknowledged was in no committed sum.
        lost = simulation.happened["acknowledged"] - in_sums
        assert lost == 0 if not simulation.happened["crashes"] else lost >= 0, f"seed {seed}"


def test_a_storm_has_every_fault_and_follows_from_its_seed(storm):
    happened = Counter()
    for seed in range(24):
        happened += storm(seed)[1].happened
    faults = ("lost", "twice", "late", "reordered", "broken", "jumps", "crashes")
    seen = ("acknowledged", "duplicate", "refused", "committed")
    assert all(happened[name] > 0 for name in (*faults, *seen))
    (rows, one), (again, other) = storm(5), storm(5)
    assert one.happened == other.happened
    assert digest(one.coordinator.params) == digest(other.coordinator.params)
    assert [row["virtual_s"] for row in rows] == [row["virtual_s"] for row in again]


def test_the_watch_sees_a_report_that_is_counted_twice(storm, monkeypatch):
    def forgetful(self, device, frame, now, number, _count=Coordinator._count):
        self._before.clear()
        self._now.counted = set()
        self._parts._reported = set()
        return _count(self, device, frame, now, number)

    monkeypatch.setattr(Coordinator, "_count", forgetful)
    with pytest.raises(InvariantBroken):
        several(storm)


def test_the_watch_sees_a_sum_that_is_off(storm, monkeypatch):
    monkeypatch.setattr(
        "kbdfl.algorithms.aggregate.RunningSum.mean",
        lambda self: (self._total / (self._weight * WEIGHT_STEP + 1)).astype(np.float32),
    )
    with pytest.raises(InvariantBroken, match="is off by"):
        storm(2)


def test_the_watch_sees_a_report_that_was_acknowledged_and_not_counted(storm, monkeypatch):
    def generous(self, device, frame, now, number, _count=Coordinator._count):
        if self.reports == 1 and device not in {name for name, _ in self._now.counted}:
            self._now.counted.add((device, b"never added up"))
        return _count(self, device, frame, now, number)

    monkeypatch.setattr(Coordinator, "_count", generous)
    with pytest.raises((InvariantBroken, KeyError)):
        storm(0)


def test_the_watch_sees_a_refusal_that_changed_something(storm, monkeypatch):
    def leaky(self, device, report, _check=Coordinator._check):
        self._now.tokens += 1
        return _check(self, device, report)

    monkeypatch.setattr(Coordinator, "_check", leaky)
    with pytest.raises(InvariantBroken, match="refused report"):
        several(storm)


def test_the_watch_sees_a_version_that_was_skipped(storm, monkeypatch):
    def skipping(self, now, instead=None, _close=Coordinator.close):
        self.version += 1
        return _close(self, now, instead)

    monkeypatch.setattr(Coordinator, "close", skipping)
    with pytest.raises(InvariantBroken, match="was followed by"):
        storm(0)


def test_the_watch_takes_no_sum_on_trust(texts, run_config):
    config, population = run_config(), Population(texts)
    built = build_task(config, training_texts=population.texts())
    simulation = Storm(config, built, population, chances=Chances(), held_out=None)
    simulation._together = True
    with pytest.raises(InvariantBroken, match="a sum that nobody watched"):
        simulation.rounds(lambda row: None)


def test_the_watch_reckons_plain_means_only(texts, run_config):
    config = run_config()
    config = RunConfig(config.settings, Algorithm(ClientRule(scaffold=2, learning_rate=1.0)), config.rule)
    population = Population(texts)
    built = build_task(config, training_texts=population.texts())
    with pytest.raises(ConfigError, match="plain means"):
        Storm(config, built, population, held_out=None)
