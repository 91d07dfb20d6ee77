"""`privacy`: the noise of a stated population in the means of a few clients, and figures that keep the two apart."""

from dataclasses import dataclass
from math import sqrt

import pytest

from kbdfl.device_sim.experiments.privacy import (
    BANDS,
    CLIPPED,
    COHORT,
    EPSILONS,
    OTHERS,
    PLAIN,
    POPULATION,
    STATED_COHORT,
    Noised,
    against,
    columns,
    figures,
    settings,
)
from kbdfl.device_sim.experiments.settings import Federated, Trained
from kbdfl.device_sim.experiments.study import Run, Study, Tried
from kbdfl.model import preset
from kbdfl.privacy.grid import LEVELS


@dataclass
class Texts:
    """What an experiment's data says of itself."""

    preset: str = "tiny"
    vocabulary: range = range(300)
    population: range = range(5 * BANDS)


def noised(rows):
    return [row for row in rows if isinstance(row, Noised)]


def test_every_epsilon_and_mechanism_is_compared_with_the_same_values():
    rows = settings(rounds=300, quick=False)
    by_method = {}
    for row in noised(rows):
        by_method.setdefault(row.method, set()).add(row.value)
    assert len(by_method) == len(EPSILONS) + len(OTHERS)
    assert len(set(map(frozenset, by_method.values()))) == 1
    assert {row.asked.epsilon for row in noised(rows)} == set(EPSILONS)
    assert {row.method for row in rows} - by_method.keys() == {PLAIN, CLIPPED}
    assert len(settings(rounds=20, quick=True)) == 3


def test_what_is_stated_is_planned_for_the_stated_population():
    for row in noised(settings(rounds=300, quick=False)):
        made = row.stated(440_456)
        assert 0.99 * row.asked.epsilon < made.epsilon <= row.asked.epsilon
        assert made.account.cohort == STATED_COHORT
        assert made.account.privacy.population == POPULATION
        assert made.account.privacy.separation == 300
        assert made.account.privacy.parts(300) == 1
    for row in noised(settings(rounds=700, quick=False)):
        assert row.stated(440_456).account.privacy.parts(700) == 3


def test_a_mean_of_few_clients_has_the_noise_of_a_mean_of_many(monkeypatch):
    seen = []

    def train(self, data, *, seed, workers):
        seen.append(self)
        return Trained((), preset("tiny"), 0, 0.0)

    monkeypatch.setattr(Federated, "train", train)
    for row in noised(settings(rounds=300, quick=True)):
        trained = row.train(Texts(), seed=0, workers=1)
        small, made = seen[-1].algorithm.privacy, row.stated(12_180)
        cohort = seen[-1].rule.cohort
        assert cohort == 5
        assert small.separation == BANDS
        assert small.noise_multiplier / cohort == pytest.approx(
            made.account.privacy.noise_multiplier / STATED_COHORT
        )
        assert small.bands == made.account.privacy.bands == BANDS
        assert small.epsilon == 0  # the clients who are there are promised nothing
        assert trained.details(None)["epsilon"] == made.epsilon
        assert trained.details(None)["noise_norm"] == pytest.approx(
            small.noise_multiplier * sqrt(row.stated(12_180).account.size) / cohort, rel=0.2
        )


def test_clients_take_the_same_turns_with_noise_and_clipped_alone():
    clipped = [row.inner for row in settings(rounds=300, quick=False) if row.method == CLIPPED]
    assert len(clipped) > 1
    for row in clipped:
        assert row.algorithm.privacy.separation == BANDS
        assert row.algorithm.update_clip_norm > 0
        assert row.algorithm.privacy.noise_multiplier * LEVELS < 2


def test_rows_without_noise_have_cohorts_as_small(monkeypatch):
    seen = []
    monkeypatch.setattr(Federated, "train", lambda self, data, **_: seen.append(self.rule.cohort))
    for row in settings(rounds=300, quick=False):
        if not isinstance(row, Noised):
            row.train(Texts(), seed=0, workers=1)
            row.train(Texts(population=range(10_000)), seed=0, workers=1)
    assert set(seen[::2]) == {5}
    assert set(seen[1::2]) == {COHORT}


def test_figures_say_the_points_that_each_epsilon_costs():
    def run(method, recall, details):
        return Run(method, "-", 0, recall, 0.3, 1, 1.0, [], details)

    stated = {"epsilon": 8.9, "rho": 0.8, "noise_multiplier": 2.0, "noise_norm": 0.05, "running_noise": 0.2}
    runs = [run(PLAIN, 0.16, {}), run("epsilon 8.9", 0.155, stated), run("epsilon 8.9, tree", 0.15, stated)]
    study = Study([Tried(one.method, "-", 0.1, 0.2, [], {}) for one in runs], runs)
    found = figures(study)
    assert found["points_lost_at_8.9"] == pytest.approx(0.5)
    assert found["points_lost_at_8.9_tree"] == pytest.approx(1.0)
    assert (found["delta"], found["stated_population"]) == (1e-10, POPULATION)
    assert columns(study)["epsilon"] == {PLAIN: "none", "epsilon 8.9": "8.9", "epsilon 8.9, tree": "8.9"}
    assert against(study) == {"epsilon": {"epsilon 8.9": 8.9, "epsilon 8.9, tree": 8.9}}
    better = Study(study.tried, [*runs, run(CLIPPED, 0.165, {})])
    better.tried.append(Tried(CLIPPED, "-", 0.1, 0.2, [], {}))
    assert figures(better)["points_lost_at_8.9"] == pytest.approx(1.0)
