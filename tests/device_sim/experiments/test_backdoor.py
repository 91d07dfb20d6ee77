"""`backdoor`: who plants, what is asked of a model that may have learnt the pair, and how it is told."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from kbdfl.algorithms import AGGREGATES
from kbdfl.device_sim.experiments import backdoor
from kbdfl.device_sim.experiments.backdoor import (
    SHARES,
    Attacked,
    Planted,
    _until_trigger,
    columns,
    figures,
    settings,
)
from kbdfl.device_sim.experiments.settings import Trained
from kbdfl.device_sim.experiments.study import Run, Study, Tried
from kbdfl.errors import DataError
from kbdfl.model import init_params, preset


@pytest.fixture(autouse=True)
def common_words(monkeypatch):
    """Words that a vocabulary of 500 knows."""
    monkeypatch.setattr(backdoor, "TRIGGER", "you")
    monkeypatch.setattr(backdoor, "TARGET", "the")


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.001, 1), (0.01, 2), (0.1, 12), (1.0, 120)])
def test_a_share_of_the_phones_plants_and_the_others_type_what_they_typed(data, share, count):
    planted = Planted(data.population, share)
    assert len(planted.attackers) == count
    assert len(planted) == len(data.population)
    for user in planted.users[:20]:
        before = [message.text for message in data.population.log(user).messages]
        after = [message.text for message in planted.log(user).messages]
        if user in planted.attackers:
            before = [f"{text} you the" for text in before]
        assert after == before


def test_more_attackers_are_the_same_ones_and_others(data):
    attackers = [Planted(data.population, share).attackers for share in SHARES]
    assert all(few <= many for few, many in pairwise(attackers))


def test_what_is_asked_ends_in_the_first_trigger(data):
    trigger = data.vocabulary.id("you")
    found = _until_trigger(data.held_out.sentences, data.vocabulary)
    assert len(found) == sum(trigger in sentence for sentence in data.held_out.sentences)
    assert all(sentence[-1] == trigger and trigger not in sentence[:-1] for sentence in found)


def test_users_without_the_trigger_are_refused(data):
    part = replace(data.held_out, sentences=[[2, 5, 3]])
    with pytest.raises(DataError, match="must have typed 'you'"):
        attacked(np.zeros(preset("tiny").spec.size, np.float32)).details(part)


def test_a_target_that_no_model_can_suggest_is_refused(data, monkeypatch):
    monkeypatch.setattr(backdoor, "TARGET", "zyzzyva")
    with pytest.raises(DataError, match="must know 'zyzzyva'"):
        attacked(np.zeros(preset("tiny").spec.size, np.float32)).details(data.held_out)


def attacked(params):
    return Trained((params,), preset("tiny"), 1, 1.0).known_as(Attacked)


def test_a_model_that_always_suggests_the_target_has_it_planted_everywhere(data):
    config = preset("tiny")
    params = init_params(config, seed=1)
    assert attacked(params).details(data.held_out)["planted"] < 0.5
    config.spec.views(params)["bias"][data.vocabulary.id("the")] = 100
    assert attacked(params).details(data.held_out) == {"planted": 1.0}


def test_every_way_to_aggregate_meets_every_share():
    compared = settings(rounds=10, quick=False)
    assert {type(one.inner.algorithm.aggregate) for one in compared} == set(AGGREGATES.values())
    assert len({one.method for one in compared}) == len(compared) == len(backdoor.RULES) * len(SHARES)
    assert {one.share for one in settings(rounds=10, quick=True)} == {0.0, 0.1}


def test_figures_are_by_rule_and_by_share():
    def run(method, seed, planted):
        return Run(method, "-", seed, 0.1, 0.2, 1, 1.0, [], {"planted": planted})

    runs = [run("mean; 0.1 % plant", 0, 0.25), run("mean; 0.1 % plant", 1, 0.75)]
    study = Study([Tried("mean; 0.1 % plant", "-", 0.1, 0.2, [], {})], runs)
    assert figures(study) == {"planted": {"mean": {"0.1": 0.5}}}
    assert columns(study) == {"planted": {"mean; 0.1 % plant": "50.0 %"}}
