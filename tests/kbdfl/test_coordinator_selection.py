"""Selection rules through the coordinator, in rounds of a cohort and asynchronously."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.algorithms import (
    SELECTIONS,
    Algorithm,
    AvailabilityAware,
    DeadlineAware,
    FedAvg,
    FedBuff,
    Oort,
    Synchronous,
    Uniform,
)
from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator, Wait
from kbdfl.errors import ConfigError, ModelError
from kbdfl.model import CifgConfig, init_params
from kbdfl.rounds import MemoryStore
from kbdfl.task import RoundRule, Task
from kbdfl.transform import encode_chain
from kbdfl.wire import encode_report

CONFIG = CifgConfig(vocab=8, embed=2, hidden=3)
MODES = [Synchronous(), FedBuff(concurrency=4)]
DELTA = np.full(CONFIG.spec.size, 1e-3, np.float32)


def make_task(selection, mode=None, **rounds):
    return Task(
        name="test keyboard",
        config=CONFIG,
        algorithm=Algorithm(
            server=FedAvg(), upload="float32", selection=selection, mode=mode or Synchronous()
        ),
        rule=RoundRule(**({"cohort": 2, "over_selection": 2.0, "deadline_s": 100.0, "rounds": 50} | rounds)),
        vocabulary_sha256="ab" * 32,
        seed=1,
    )


def coordinate(task, store=None):
    store = store or MemoryStore()
    return Coordinator(task, init_params(CONFIG, seed=1), store=store, random=np.random.default_rng(1))


def report(coordinator, device, assignment, now, *, train_loss=2.0, examples=3, **changes):
    fields = {
        "task": assignment.task,
        "round": assignment.round,
        "device": device,
        "model_sha256": assignment.model_sha256,
        "spec_hash": assignment.spec,
        "upload": assignment.upload,
        "examples": examples,
        "tokens": 10,
        "train_loss": train_loss,
    } | changes
    update = encode_chain(coordinator.task.algorithm.transforms, DELTA, assignment.draws)
    return coordinator.report(device, encode_report(update, **fields), now)


def play(coordinator, phones, *, now, seconds=lambda _: 1.0, loss=lambda _: 2.0, tier=lambda _: ""):
    """All phones check in, a little apart, then those that got work report in order; who got work, and the time."""
    given = {}
    for device in phones:
        answer = coordinator.check_in(device, now, tier=tier(device))
        if isinstance(answer, Assignment):
            given[device] = answer, now
        now += 0.01
    done = sorted((since + seconds(device), device) for device, (_, since) in given.items())
    for when, device in done:
        now, (assignment, _) = max(now, when), given[device]
        if isinstance(coordinator.task.algorithm.mode, FedBuff) or assignment.round == coordinator.round:
            report(coordinator, device, assignment, now, train_loss=loss(device))
    return list(given), now


def shuffled(phones, seed):
    return [phones[place] for place in np.random.default_rng(seed).permutation(len(phones))]


def names(count, stem="phone"):
    return [f"{stem}-{number}" for number in range(count)]


def test_uniform_selection_takes_the_first_to_come_and_draws_nothing():
    coordinator, source = coordinate(make_task(Uniform())), np.random.default_rng(1)
    given, _ = play(coordinator, names(9), now=0.0)
    assert given == names(4)
    source.uniform(0.5, 1.5, size=5)  # how long the other five are to wait
    assert coordinator._random.bit_generator.state == source.bit_generator.state


@pytest.mark.parametrize("mode", MODES, ids=["synchronous", "fedbuff"])
@pytest.mark.parametrize("kind", SELECTIONS.values())
def test_a_phone_counts_at_most_once_in_min_separation_rounds(kind, mode):
    coordinator, counted, now = coordinate(make_task(kind(min_separation=3), mode)), {}, 0.0
    while coordinator.round < 20:
        before = coordinator.round
        _, now = play(coordinator, names(12), now=now + 2.0)
        for number, reports in zip(
            range(coordinator.round - 1, before - 1, -1), coordinator._before, strict=False
        ):
            for device, _ in reports:
                counted.setdefault(device, set()).add(number)
    assert sum(len(rounds) for rounds in counted.values()) == 2 * coordinator.round
    assert min(np.diff(sorted(rounds)).min() for rounds in counted.values() if len(rounds) > 1) >= 3


@pytest.mark.parametrize("mode", MODES, ids=["synchronous", "fedbuff"])
def test_the_deadline_rule_leaves_a_slow_tier_out_but_not_an_unknown_one(mode):
    coordinator, now = coordinate(make_task(DeadlineAware(target_s=5.0, retry_rounds=1_000), mode)), 0.0
    tier = lambda device: device.split("-")[0]  # noqa: E731
    seconds = lambda device: {"quick": 1.0, "slow": 20.0, "new": 2.0}[tier(device)]  # noqa: E731
    taught, now = play(coordinator, ["slow-0", "slow-1"], now=now, seconds=seconds, tier=tier)
    assert taught == ["slow-0", "slow-1"]  # of whom nothing was known
    for _ in range(5):
        given, now = play(
            coordinator,
            ["slow-2", "slow-3", "quick-0", "new-0", "quick-1"],
            now=now + 1.0,
            seconds=seconds,
            tier=tier,
        )
        assert given == ["quick-0", "new-0", "quick-1"]


def test_a_phone_that_is_passed_over_is_told_when_to_come_back():
    coordinator = coordinate(make_task(DeadlineAware(target_s=5.0)))
    _, now = play(coordinator, ["a", "b"], now=0.0, seconds=lambda _: 50.0, tier=lambda _: "old")
    answer = coordinator.check_in("c", now, tier="old")
    assert isinstance(answer, Wait)
    assert 0.5 <= answer.retry_after_s <= 1.5
    assert coordinator.device_states()["waiting"] == 1


def test_a_phone_that_comes_again_keeps_its_place_whatever_the_rule():
    coordinator = coordinate(make_task(Oort(min_separation=9)))
    first = coordinator.check_in("a", 0.0)
    again = coordinator.check_in("a", 3.0)
    assert again == replace(first, deadline_s=first.deadline_s - 3.0)


@pytest.mark.parametrize("mode", MODES, ids=["synchronous", "fedbuff"])
def test_oort_prefers_phones_of_high_utility_and_still_explores(mode):
    rule = Oort(exploration_decay=0.5)
    coordinator, now, parts = coordinate(make_task(rule, mode, rounds=400)), 0.0, {}
    rich = lambda device: device.endswith("0")  # noqa: E731
    for turn in range(150):
        phones = names(20) if turn < 100 else names(40)
        order = shuffled(phones, turn)
        given, now = play(coordinator, order, now=now + 2.0, loss=lambda device: 8.0 if rich(device) else 1.0)
        for device in given:
            parts.setdefault(device, []).append(turn)
    late = {device: [turn for turn in turns if 60 <= turn < 100] for device, turns in parts.items()}
    of_rich = [len(turns) for device, turns in late.items() if rich(device)]
    of_others = [len(turns) for device, turns in late.items() if not rich(device)]
    assert np.mean(of_rich) > 3 * np.mean(of_others)
    assert len(parts) == 40  # those that came late were tried as well


def test_a_phone_that_always_misses_its_round_is_asked_less_and_less():
    coordinator, now, parts = coordinate(make_task(Oort(), rounds=400)), 0.0, []
    for _ in range(80):
        given, now = play(
            coordinator, names(8), now=now + 2.0, seconds=lambda device: 60.0 if device == "phone-0" else 1.0
        )
        parts.append("phone-0" in given)
    assert sum(parts[40:]) < sum(parts[:40]) / 2 < 20


def test_the_least_available_come_first():
    coordinator, now, guest = coordinate(make_task(AvailabilityAware())), 0.0, []
    for turn in range(12):
        phones = names(10) + (["guest"] if turn % 6 >= 4 else [])
        given, now = play(coordinator, phones, now=now + 2.0)
        guest.append("guest" in given)
    assert [guest[5], guest[11]] == [True, True]  # each time that it was there, once it had been seen


def test_a_refused_report_is_a_missed_round():
    coordinator = coordinate(make_task(Oort()))
    bad, good, other = (coordinator.check_in(device, 0.0) for device in ("bad", "good", "other"))
    with pytest.raises(ModelError, match="another model"):
        report(coordinator, "bad", bad, 1.0, model_sha256="00" * 32)
    report(coordinator, "good", good, 2.0)
    assert report(coordinator, "other", other, 3.0).closed.refused == 1
    roster = coordinator._selector._roster
    row = roster.table[roster.row("bad")]
    assert np.isnan(row["utility"])
    assert row["duration_s"] == 3.0


def test_a_phone_whose_part_expired_takes_a_new_one():
    """Asynchronous: it is known to have missed the first before it begins the second."""
    coordinator = coordinate(make_task(Oort(), FedBuff(concurrency=4)))
    coordinator.check_in("a", 0.0)
    assert isinstance(coordinator.check_in("a", 150.0), Assignment)
    roster = coordinator._selector._roster
    row = roster.table[roster.row("a")]
    assert (row["since_s"], row["duration_s"], row["assigned"]) == (150.0, 150.0, 2)


def test_a_claim_of_many_examples_buys_no_more_utility_than_weight():
    coordinator = coordinate(make_task(Oort()))
    assignment = coordinator.check_in("a", 0.0)
    report(coordinator, "a", assignment, 1.0, examples=10**9, train_loss=3.0)
    roster = coordinator._selector._roster
    assert roster.table[roster.row("a")]["utility"] == 3.0 * coordinator.task.algorithm.max_weight


@pytest.mark.parametrize("mode", MODES, ids=["synchronous", "fedbuff"])
@pytest.mark.parametrize("rule", [kind() for kind in SELECTIONS.values()], ids=str)
def test_a_coordinator_that_starts_again_knows_nobody_and_goes_on(rule, mode):
    task, store = make_task(rule, mode), MemoryStore()
    before, now = coordinate(task, store), 0.0
    while before.round < 5:
        _, now = play(before, names(12), now=now + 2.0)
    after, now = coordinate(task, store), 3.0  # another clock, too
    assert after.round == before.round
    for _ in range(20):
        _, now = play(after, names(12), now=now + 2.0)
    assert after.round >= before.round + 10


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(list(SELECTIONS.values())), seed=st.integers(0, 1_000), mode=st.sampled_from(MODES)
)
def test_the_same_check_ins_make_the_same_choices(kind, seed, mode):
    def run():
        coordinator, now, choices = coordinate(make_task(kind(), mode)), 0.0, []
        for turn in range(8):
            phones = shuffled(names(10), seed + turn)
            given, now = play(
                coordinator, phones, now=now + 1.0, seconds=lambda device: 1 + float(device[-1])
            )
            choices.append(given)
        return choices, coordinator.params.tobytes()

    assert run() == run()


def test_a_target_beyond_the_rounds_deadline_is_refused():
    with pytest.raises(ConfigError, match=r"^target_s must be < deadline_s = 30 of the round, got 60$"):
        make_task(DeadlineAware(), deadline_s=30.0)
