"""Phones by topic hold the same messages in the same numbers; slow phones' partial work is FedProx's alone."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from kbdfl.device_sim.experiments import heterogeneity as experiment
from kbdfl.device_sim.experiments.data import open_data
from kbdfl.device_sim.experiments.heterogeneity import FEWEST, PHONES, REGIMES, RULES, by_topic, natural
from kbdfl.device_sim.experiments.study import Run, Study
from kbdfl.errors import DataError
from kbdfl.rng import stream
from kbdfl.text import public_words

SUBJECTS = 10


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """170 users who write of ten subjects in turn, each of which has words of its own; every tenth hardly writes."""
    words, random = public_words(180)[0][60:], stream(1, "subjects")
    path = tmp_path_factory.mktemp("heterogeneity") / "mixed.jsonl"
    with path.open("w") as file:
        for number in range(170):
            for i in range(FEWEST + number % 10 * 5 - 5):
                own = words[12 * (i % SUBJECTS) :][:12]
                text = " ".join(own[int(random.integers(12))] for _ in range(6))
                file.write(json.dumps({"user": f"user{number}", "text": text}) + "\n")
    return open_data(str(path), preset_name="tiny", seed=1, words=900)


def subjects(log):
    words = public_words(180)[0][60:]
    return {words.index(word) // 12 for message in log.messages for word in message.text.split()}


def test_phones_that_take_part_have_messages_enough(mixed):
    phones = natural(mixed)
    assert len(phones) == PHONES == len(set(phones.users) & set(mixed.population.users))
    assert min(len(phones.log(user)) for user in phones.users) == FEWEST


def test_by_topic_the_same_messages_are_on_phones_of_the_same_sizes(mixed):
    users = natural(mixed)
    topics = by_topic(users, mixed.held_out.vocabulary)
    assert topics.users == users.users
    assert [len(topics.log(u)) for u in users.users] == [len(users.log(u)) for u in users.users]
    written, dealt = (
        Counter(m for u in users.users for m in some.log(u).messages) for some in (users, topics)
    )
    assert written == dealt


def test_by_topic_most_phones_hold_one_subject(mixed):
    users = natural(mixed)
    topics = by_topic(users, mixed.held_out.vocabulary)
    assert min(len(subjects(users.log(user))) for user in users.users) == SUBJECTS
    held = [len(subjects(topics.log(user))) for user in users.users]
    assert sum(count == 1 for count in held) > 0.8 * PHONES


def test_too_few_talkative_users_are_refused(data, make_texts):
    few = replace(data, population=experiment.Population(make_texts({f"user{i}": ["hi"] for i in range(60)})))
    with pytest.raises(DataError, match="10 training users must have 50 messages, got 0"):
        natural(few)


def first(rule, **rounds):
    """A rule's first setting on natural users, in rounds that are to end as `rounds` say."""
    name = experiment.method(rule, REGIMES[0])
    setting = next(one for one in experiment.settings(rounds=2, quick=True) if one.method == name)
    rounds = replace(setting.inner.rule, **rounds)
    return replace(setting, inner=replace(setting.inner, rule=rounds))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_trains(mixed, rule):
    assert first(rule).train(mixed, seed=1, workers=2).tokens > 0


def test_only_fedprox_takes_a_part_of_slow_phones_work(mixed):
    soon = {rule: first(rule, deadline_s=0.3).train(mixed, seed=1, workers=2).tokens for rule in RULES}
    late = {rule: first(rule, deadline_s=1e6).train(mixed, seed=1, workers=2).tokens for rule in RULES}
    assert soon["fedavg"] < soon["fedprox"] < late["fedprox"] == late["fedavg"]


def test_both_kinds_of_phones_try_the_same_values():
    settings = experiment.settings(rounds=3, quick=False)
    tried = {
        regime: [(s.method.split(",")[0], s.value) for s in settings if s.regime == regime]
        for regime in REGIMES
    }
    assert tried[REGIMES[0]] == tried[REGIMES[1]]
    assert {rule for rule, _ in tried[REGIMES[0]]} == set(RULES)


def test_figures_are_points_above_fedavg_and_points_lost():
    top1 = dict(zip(RULES, (0.15, 0.16, 0.13), strict=True))
    runs = [
        Run(
            experiment.method(rule, regime),
            "",
            0,
            top1[rule] - 0.01 * i * (rule == "fedavg"),
            0.2,
            1,
            1.0,
            [],
            {},
        )
        for i, regime in enumerate(REGIMES)
        for rule in RULES
    ]
    assert experiment.figures(Study([], runs)) == pytest.approx(
        {
            "fedprox_over_fedavg_natural_users": 1.0,
            "scaffold_over_fedavg_natural_users": -2.0,
            "fedprox_over_fedavg_by_topic": 2.0,
            "scaffold_over_fedavg_by_topic": -1.0,
            "fedavg_lost_by_topic": 1.0,
            "fedprox_lost_by_topic": 0.0,
            "scaffold_lost_by_topic": 0.0,
        }
    )
