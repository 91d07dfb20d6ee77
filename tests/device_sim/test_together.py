"""Updates that workers add up end in the bytes of frames that come one by one, whoever drops out or is late."""

from collections import Counter
from dataclasses import replace

import pytest

from kbdfl.algorithms import (
    Algorithm,
    ClientRule,
    Download,
    FedAvg,
    FedBuff,
    FedYogi,
    Krum,
    Median,
    Oort,
    TrimmedMean,
)
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim import simulate, work
from kbdfl.device_sim.population import Population
from kbdfl.device_sim.runtime import OverBudget
from kbdfl.device_sim.simulate import Simulation
from kbdfl.params import digest
from kbdfl.rounds import Summed
from kbdfl.run import build_task

CLIENT = ClientRule(learning_rate=1.0, batch_size=4)
UNEQUAL = {"speeds": "heavy-tailed", "availability": "nightly", "dropout": 0.2}
WEEKLY = {"availability": "weekly", "speeds": "tiers", "hazard_per_h": 9.0, "rest_s": 600.0}
RUNS = {
    "all are needed": (Algorithm(), {}, {"over_selection": 1.0}),
    "irrational weights": (
        Algorithm(CLIENT, upload="float32", weights="sqrt", server=FedAvg()),
        {"speeds": "tiers"},
        {"over_selection": 2.0},
    ),
    "bounded": (
        Algorithm(upload="compact", update_clip_norm=0.05, weights="sqrt", server=FedYogi()),
        {"dropout": 0.2},
        {"over_selection": 1.5, "min_reports": 3},
    ),
    "summable": (Algorithm(CLIENT, upload="summable", update_clip_norm=0.1), {}, {"over_selection": 1.25}),
    "each phone's own draws": (
        Algorithm(CLIENT, upload="rotate+sample:0.25+int4"),
        {"dropout": 0.1},
        {"over_selection": 1.25},
    ),
    "what was lost": (
        Algorithm(replace(CLIENT, feedback_rounds=9), upload="tiny-uplink", download=Download("grid")),
        {"dropout": 0.1},
        {"over_selection": 1.25},
    ),
    "parts": (
        Algorithm(replace(CLIENT, report_words=12, partial_model=True), upload="compact"),
        {"speeds": "tiers"},
        {"over_selection": 1.5},
    ),
    "partial work by the deadline": (
        Algorithm(replace(CLIENT, partial_work=True, epochs=9)),
        UNEQUAL,
        {"cohort": 8, "deadline_s": 0.5, "min_reports": 1},
    ),
    "late": (Algorithm(), {"speeds": "tiers", "dropout": 0.1}, {"deadline_s": 0.3, "min_reports": 1}),
    "abandoned": (Algorithm(), {"dropout": 0.4}, {"over_selection": 1.0, "min_reports": 7}),
    "ranked": (Algorithm(selection=Oort()), UNEQUAL, {"cohort": 8, "deadline_s": 5.0, "min_reports": 1}),
    "weekly": (
        Algorithm(CLIENT),
        WEEKLY,
        {"over_selection": 1.5, "deadline_s": 900.0, "pace_s": 300.0, "min_reports": 1},
    ),
}


@pytest.fixture
def travelled(monkeypatch):
    """How many reports came to coordinators as frames and as sums, and how many groups there were."""
    count, report, perform = Counter(), Coordinator.report, simulate.perform_together

    def watched(self, device, frame, now, **more):
        count["sums" if isinstance(frame, Summed) else "frames"] += 1
        return report(self, device, frame, now, **more)

    def counted(group):
        count["groups"] += 1
        count["members"] += len(group.jobs)
        return perform(group)

    monkeypatch.setattr(Coordinator, "report", watched)
    monkeypatch.setattr(simulate, "perform_together", counted)
    return count


def end(played):
    """All that a simulation leaves, but for its times."""
    rows, simulation = played
    rows = [{name: value for name, value in row.items() if name != "wall_s"} for row in rows]
    return digest(simulation.coordinator.params), rows, simulation.facts(), simulation.counted


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_sums_ends_as_one_of_frames(play, travelled, name):
    algorithm, settings, rule = RUNS[name]
    ends = []
    for together, workers in ((False, 1), (True, 1), (True, 3)):
        travelled.clear()
        played = play(
            algorithm=algorithm,
            rule={"rounds": 6, "cohort": 12} | rule,
            together=together,
            workers=workers,
            **settings,
        )
        ends.append(end(played))
        reports = sum(row["reports"] for row in played[0])
        assert travelled["sums"] + travelled["frames"] == reports > 12
        if not together:
            assert travelled["sums"] == travelled["groups"] == 0
        elif name == "weekly":  # many report before all places are taken, so that others may still join
            assert 0 < travelled["groups"] <= travelled["sums"] < reports
        else:
            assert 0 < travelled["groups"] < travelled["members"] == travelled["sums"] == reports
    assert ends[0] == ends[1] == ends[2]
    statuses = {row["status"] for row in played[0]}
    assert statuses == ({"committed", "abandoned"} if name == "abandoned" else {"committed"})


@pytest.mark.parametrize("workers", [1, 2])
def test_a_phone_that_declines_in_a_group_has_its_place_taken(play, travelled, monkeypatch, workers):
    def train(assignment, *arguments, device, _train=work.train, **options):
        if assignment.seed % 4 == 0:
            raise OverBudget("too much for this phone")
        return _train(assignment, *arguments, device=device, **options)

    monkeypatch.setattr(work, "train", train)
    ends = []
    for together in (False, True):
        rule = {"rounds": 6, "cohort": 8, "over_selection": 2.0}
        ends.append(end(play(rule=rule, together=together, workers=workers, speeds="tiers")))
    assert ends[0] == ends[1]
    rows = ends[0][1]
    assert [(row["status"], row["reports"]) for row in rows] == [("committed", 8)] * 6
    assert travelled["members"] > travelled["sums"] == 6 * 8  # the declining ones were in groups, too


def test_a_round_ends_at_its_deadline_if_the_last_ones_of_its_groups_decline(play, travelled, monkeypatch):
    """What the others have added up is in its sum by then."""
    order, report = [], Coordinator.report

    def watched(self, device, frame, now, **more):
        order.append(device)
        return report(self, device, frame, now, **more)

    monkeypatch.setattr(Coordinator, "report", watched)
    rule = {"rounds": 1, "cohort": 8, "over_selection": 1.0, "min_reports": 1}
    play(rule=rule, together=False)
    last = order[-3:]

    def train(*arguments, device, _train=work.train, **options):
        if device in last:
            raise OverBudget("too much for this phone")
        return _train(*arguments, device=device, **options)

    monkeypatch.setattr(work, "train", train)
    ends = [end(play(rule=rule, together=together)) for together in (False, True)]
    assert ends[0] == ends[1]
    [row] = ends[0][1]
    assert (row["status"], row["reports"], row["dropped"]) == ("committed", 5, 3)
    assert travelled["sums"] == 5
    assert travelled["members"] == 8


def test_a_round_of_which_all_decline_is_abandoned_in_groups_too(play, monkeypatch):
    def refuse(*arguments, **options):
        raise OverBudget("too much for this phone")

    monkeypatch.setattr(work, "train", refuse)
    ends = [end(play(together=together)) for together in (False, True)]
    assert ends[0] == ends[1]
    assert [row["status"] for row in ends[0][1]] == ["abandoned"] * 3


def test_phones_that_only_say_that_they_have_learned_are_summed_too(texts, run_config, travelled):
    population, config = Population(texts), run_config(rule={"cohort": 20, "over_selection": 1.2})
    built = build_task(config, training_texts=population.texts())
    ends = []
    for together in (False, True):
        simulation, rows = Simulation(config, built, population, held_out=None, worker=work.Stated(50)), []
        simulation._together = simulation._adds_up and together
        simulation.rounds(rows.append)
        ends.append(end((rows, simulation)))
    assert ends[0] == ends[1]
    assert [row["reports"] for row in rows] == [20] * 3
    assert travelled["frames"] == travelled["sums"] == travelled["members"] == 60
    assert travelled["groups"] == 6


@pytest.mark.parametrize(
    ("algorithm", "rule"),
    [
        (Algorithm(mode=FedBuff(concurrency=6)), {}),
        (Algorithm(replace(CLIENT, scaffold=2), server=FedAvg()), {}),
        (Algorithm(aggregate=Median()), {}),
        (Algorithm(aggregate=TrimmedMean(1)), {}),
        (Algorithm(aggregate=Krum(1)), {"cohort": 5}),
    ],
    ids=["fedbuff", "scaffold", "median", "trimmed mean", "krum"],
)
def test_what_needs_its_updates_one_by_one_has_no_groups(play, travelled, algorithm, rule):
    rows, _ = play(algorithm=algorithm, rule=rule)
    assert travelled["frames"] == sum(row["reports"] for row in rows) > 0
    assert travelled["groups"] == travelled["sums"] == 0
