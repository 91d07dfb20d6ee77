"""`selection`: every rule is tried, one target for all, and the table says whom each rule heard."""

from dataclasses import replace

import pytest

from kbdfl.algorithms import SELECTIONS
from kbdfl.device_sim.experiments.selection import (
    RULES,
    SHARE,
    UNIFORM,
    Heard,
    Selecting,
    choose,
    columns,
    figures,
    settings,
)
from kbdfl.device_sim.experiments.study import Run, Study, Tried
from kbdfl.task import RoundRule


def learnt(last_hour, recall=0.2):
    return [{"hours": 0.0, "recall_top1": 0.1}, {"hours": last_hour, "recall_top1": recall}]


def run(method, seed, curve, heard=0.5, slow=0.25):
    details = {"heard": heard, "slow": slow}
    return Run(method, "-", seed, curve[-1]["recall_top1"], 0.0, 1, 1.0, curve, details)


@pytest.fixture
def study():
    tried = [Tried(method, "-", 0.2, 0.0, learnt(1.0), {}) for method in (UNIFORM, "oort")]
    return Study(
        tried,
        [
            run(UNIFORM, 0, learnt(4.0)),
            run("oort", 0, learnt(1.0), heard=0.2, slow=0.1),
            run(UNIFORM, 1, learnt(4.0)),
            run("oort", 1, learnt(2.0), heard=0.3, slow=0.0),
        ],
    )


def test_every_rule_that_there_is_is_compared():
    compared = {type(one.inner.algorithm.selection) for one in settings(rounds=10, quick=False)}
    assert compared == set(SELECTIONS.values())
    assert {one.method for one in settings(rounds=10, quick=True)} == set(RULES)


def test_rules_differ_in_nothing_but_the_selection():
    def alike(one):
        algorithm = replace(one.inner.algorithm, selection=SELECTIONS["uniform"]())
        return replace(one.inner, method="", value="", algorithm=algorithm)

    assert len({alike(one) for one in settings(rounds=10, quick=False)}) == 1


def test_figures_say_how_many_times_sooner_than_uniform(study):
    assert figures(study) == pytest.approx({"oort_speedup": (4.0 + 2.0) / 2})


def test_a_rule_that_never_has_the_target_is_no_speedup(study):
    slow = [replace(one, curve=learnt(1.0, 0.18)) for one in study.of("oort")]
    failed = Study(study.tried, [*study.of(UNIFORM), *slow])
    assert figures(failed) == {"oort_speedup": 0.0}
    assert columns(failed)["hours to target"]["oort"] == "never"


def test_the_table_says_whom_the_rules_heard(study):
    reached = (SHARE * 0.2 - 0.1) / 0.1
    assert columns(study) == {
        "hours to target": {UNIFORM: f"{4 * reached:.3f}", "oort": f"{1.5 * reached:.3f}"},
        "phones heard": {UNIFORM: "50 %", "oort": "25 %"},
        "reports of slow tiers": {UNIFORM: "25 %", "oort": "5 %"},
    }


def test_the_value_that_has_uniforms_recall_soonest_is_chosen():
    def one(method, value, hour, recall):
        return Tried(method, value, recall, 0.0, learnt(hour, recall), {})

    uniform, quick = one(UNIFORM, "-", 4.0, 0.2), one("oort", "quick", 1.0, 0.195)
    best, weak = one("oort", "best", 5.0, 0.25), one("oort", "weak", 0.1, 0.15)
    assert choose([uniform, best, quick, weak]) == {UNIFORM: uniform, "oort": quick}


def test_a_model_knows_whom_it_heard():
    tiers = {"a": "flagship", "b": "mid", "c": "low", "d": "old"}
    heard = Heard((), None, 0, 0.0, counted={"a": 6, "c": 1, "d": 1}, tiers=tiers)
    assert heard.details(None) == {"heard": 0.75, "slow": 0.25}


def test_a_run_hears_phones_of_all_tiers(data):
    one = settings(rounds=4, quick=True)[0]
    short = Selecting(replace(one.inner, points=2, rule=RoundRule(cohort=5)))
    trained = short.train(data, seed=1, workers=2)
    assert sum(trained.counted.values()) == 20
    assert set(trained.tiers) == set(data.population.users)
    assert 0 < trained.details(data.validation)["heard"] <= 20 / 120
