"""Client selection: whom each rule lets in, and that a round fills while phones poll."""

import heapq
from math import ceil, log2

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kbdfl.algorithms.oort import Oort
from kbdfl.algorithms.roster import HALF_LIFE, OUTCOMES, Roster, Tier
from kbdfl.algorithms.selection import SELECTIONS, AvailabilityAware, DeadlineAware, Uniform
from kbdfl.algorithms.selector import PATIENCE, Selector
from kbdfl.errors import ConfigError

PACE_S, DEADLINE_S = 1.0, 60.0
RANKING = [AvailabilityAware(), Oort()]


def selector(rule, *, seed=1):
    return Selector(rule, pace_s=PACE_S, deadline_s=DEADLINE_S, random=np.random.default_rng(seed))


def comes(desk, device, now, *, round=0, free=1, tier=""):
    """A phone checks in; whether it got a place."""
    desk.seen(device, now, tier=tier)
    return desk.admit(device, now, round=round, free=free)


def polls(desk, device, now, *, round=0):
    """A phone checks in while no place is free."""
    desk.seen(device, now, tier="")


def tier_of(*durations_s, tried_round=0):
    tier = Tier()
    tier.tried_round = tried_round
    for duration_s in durations_s:
        tier.counted(duration_s)
    return tier


# uniform


def test_uniform_selection_keeps_nothing_and_draws_nothing():
    source = np.random.default_rng(1)
    desk = Selector(Uniform(), pace_s=1.0, deadline_s=1.0, random=source)
    assert all(comes(desk, f"phone-{number}", 0.0) for number in range(100))
    desk.counted("phone-1", 1.0, round=0, utility=1.0)
    desk.missed("phone-2", 1.0)
    desk.closed(9.0)
    assert desk._roster is None
    assert source.bit_generator.state == np.random.default_rng(1).bit_generator.state


@pytest.mark.parametrize("rule", [kind(min_separation=3) for kind in SELECTIONS.values()], ids=str)
def test_a_phone_takes_part_at_most_once_in_min_separation_rounds(rule):
    desk, parts = selector(rule), []
    for round in range(12):
        if comes(desk, "phone", 30.0 * round, round=round):
            parts.append(round)
            desk.counted("phone", 30.0 * round + 1, round=round, utility=1.0)
        desk.closed(9.0)
    assert parts == [0, 3, 6, 9]


def test_separation_counts_from_the_round_that_a_report_is_counted_in():
    desk = selector(Uniform(min_separation=3))
    assert comes(desk, "phone", 0.0, round=0)
    desk.counted("phone", 1.0, round=2, utility=1.0)
    assert [comes(desk, "phone", 2.0, round=round) for round in (3, 4, 5)] == [False, False, True]


def test_a_phone_that_was_not_counted_has_not_taken_part():
    desk = selector(Uniform(min_separation=3))
    assert comes(desk, "phone", 0.0, round=0)
    desk.missed("phone", 1.0)
    desk.closed(9.0)
    assert comes(desk, "phone", 2.0, round=1)


# deadline-aware


def test_a_tier_is_admitted_if_it_is_unknown_or_expected_in_time():
    rule = DeadlineAware(target_s=10.0)
    assert rule.admits(tier_of(), round=1, idle_s=0.0)
    assert rule.admits(tier_of(9.0, 10.0, 99.0), round=1, idle_s=0.0)
    assert not rule.admits(tier_of(9.0, 10.1, 99.0), round=1, idle_s=0.0)


def test_a_slow_tier_is_tried_again_with_one_phone_at_a_time():
    desk = selector(DeadlineAware(target_s=2.0, retry_rounds=5))
    assert comes(desk, "old-0", 0.0, tier="old")
    desk.counted("old-0", 9.0, round=0, utility=1.0)
    tried = []
    for round in range(1, 16):
        desk.closed(9.0)
        for number in range(3):
            if comes(desk, f"old-{number}", 10.0 * round, round=round, tier="old"):
                tried.append(round)
                desk.missed(f"old-{number}", 10.0 * round + 9)
    assert tried == [5, 10, 15]


def test_a_tier_that_has_become_quick_is_let_in_again():
    desk = selector(DeadlineAware(target_s=2.0, retry_rounds=1))
    for number in range(OUTCOMES):
        assert comes(desk, f"old-{number}", 0.0, tier="old")
    for number in range(OUTCOMES):
        desk.counted(f"old-{number}", 9.0, round=0, utility=1.0)
    for round in range(1, OUTCOMES // 2 + 2):
        desk.closed(9.0)
        assert comes(desk, "old-0", 10.0 * round, round=round, tier="old")
        assert not comes(desk, "old-1", 10.0 * round, round=round, tier="old")
        desk.counted("old-0", 10.0 * round + 1, round=round, utility=1.0)
    assert comes(desk, "old-1", 99.0, round=round, tier="old")


def test_the_target_grows_by_the_time_a_place_stays_empty():
    desk = selector(DeadlineAware(target_s=2.0))
    assert comes(desk, "old-0", 0.0, tier="old")
    desk.counted("old-0", 9.0, round=0, utility=1.0)
    came = [comes(desk, "old-1", 50.0 + waited, tier="old") for waited in (0.0, 3.0, 6.9, 7.0)]
    assert came == [False, False, False, True]  # 2 s and 7 s of waiting are the 9 s that it takes
    assert not comes(desk, "old-2", 57.0, tier="old")


def test_nobody_asking_for_a_place_does_not_let_it_stay_empty():
    desk = selector(DeadlineAware(target_s=2.0))
    assert comes(desk, "old-0", 0.0, tier="old")
    desk.counted("old-0", 9.0, round=0, utility=1.0)
    desk.closed(9.0)
    assert not comes(desk, "old-1", 1e6, round=1, tier="old")


def test_lies_about_the_tier_do_not_shut_it_out():
    """Slow phones that call themselves quick take places, but a tier stands by what most of its phones do."""
    desk = selector(DeadlineAware(target_s=5.0))
    for number in range(60):
        liar = number % 3 == 2
        assert comes(desk, f"phone-{number}", 100.0 * number, round=number, tier="quick")
        desk.counted(f"phone-{number}", 100.0 * number + (80 if liar else 2), round=number, utility=1.0)


# availability-aware


def test_the_phones_that_are_there_least_often_are_invited_first():
    desk = selector(AvailabilityAware())
    for round in range(6):
        for number in range(6):
            if round >= number:  # phone-0 is always there, phone-5 has just come
                polls(desk, f"phone-{number}", 20.0 * round)
        desk.closed(20.0 * round + 9)
    came = [f"phone-{n}" for n in range(6) if comes(desk, f"phone-{n}", 121.0, round=6, free=2)]
    assert came == ["phone-4", "phone-5"]


def test_presence_long_ago_counts_less():
    roster = Roster()
    for roster.epoch in range(4):
        roster.seen("formerly", 0.0, tier="")
    for roster.epoch in (3 * HALF_LIFE - 1, 3 * HALF_LIFE):
        roster.seen("lately", 0.0, tier="")
    roster.seen("formerly", 0.0, tier="")
    rows = AvailabilityAware().invite(
        roster, np.arange(2), places=1, round=roster.epoch, random=np.random.default_rng(1)
    )
    assert [roster.names[row] for row in rows] == ["formerly"]


def test_phones_that_are_there_as_often_are_invited_at_random():
    roster = Roster()
    for number in range(10):
        roster.seen(f"phone-{number}", 0.0, tier="")
    source = np.random.default_rng(1)
    first = [
        AvailabilityAware().invite(roster, np.arange(10), places=1, round=0, random=source)[0]
        for _ in range(200)
    ]
    assert set(first) == set(range(10))


# invitations


@pytest.mark.parametrize("rule", RANKING, ids=str)
def test_a_server_that_knows_nobody_takes_whoever_comes(rule):
    desk = selector(rule)
    free = 5
    for number in range(5):
        assert comes(desk, f"phone-{number}", 0.1 * number, free=free)
        free -= 1


def test_the_best_are_waited_for():
    desk = selector(Oort(exploration=0.0, least_exploration=0.0))
    for number in range(10):
        assert comes(desk, f"phone-{number}", 0.0, free=10 - number)
    for number in range(10):
        desk.counted(f"phone-{number}", 1.0, round=0, utility=100.0 * (number > 6))
    desk.closed(9.0)
    came, free = [], 3
    for number in range(10):
        if comes(desk, f"phone-{number}", 2.0, round=1, free=free):
            came.append(number)
            free -= 1
    assert came == [7, 8, 9]


def desk_with_a_rare_guest_gone():
    """`rare` was seen in one of three rounds and does not come again; `often` and `always` do, from 10 s on."""
    desk = selector(AvailabilityAware())
    for round in range(3):
        for device, rounds in (("rare", 1), ("often", 2), ("always", 3)):
            if round < rounds:
                polls(desk, device, 2.0 * round)
        desk.closed(2.0 * round + 1.9)
    assert not comes(desk, "always", 10.0, round=3)
    assert not comes(desk, "often", 10.1, round=3)
    return desk


def test_a_phone_that_is_gone_is_replaced_by_the_next_best():
    desk = desk_with_a_rare_guest_gone()
    assert not comes(desk, "always", 10.0 + 0.9 * PATIENCE * PACE_S, round=3)
    assert comes(desk, "often", 10.0 + PATIENCE * PACE_S, round=3)


def test_a_place_that_stays_empty_is_offered_to_twice_as_many():
    desk = desk_with_a_rare_guest_gone()
    assert comes(desk, "always", 10.0 + PATIENCE * PACE_S, round=3)


def test_a_phone_that_was_waited_for_in_vain_is_not_invited_again():
    desk = desk_with_a_rare_guest_gone()
    assert comes(desk, "often", 12.0, round=3)
    desk.counted("often", 13.0, round=3, utility=1.0)
    desk.closed(13.0)
    assert comes(desk, "often", 20.0, round=4)


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from([*RANKING, AvailabilityAware(2), DeadlineAware(target_s=3.0)]),
    living=st.integers(1, 30),
    dead=st.integers(0, 30),
    places=st.integers(1, 8),
    slowest_s=st.floats(0.1, 5.0),
    rounds=st.integers(1, 5),
    seed=st.integers(0, 1_000),
)
def test_a_round_fills_while_enough_phones_poll(rule, living, dead, places, slowest_s, rounds, seed):
    """Whatever the paces, whoever is gone for ever, whichever phones never report: in bounded time."""
    places = min(places, living // max(1, rule.min_separation))
    assume(places > 0)
    random, desk, now = np.random.default_rng(seed), selector(rule, seed=seed), 0.0
    phones = [f"phone-{number}" for number in range(living + dead)]
    for device in phones:
        polls(desk, device, now)
    every_s = {device: random.uniform(0.05, slowest_s) for device in phones[:living]}
    # After so many doublings all that were seen are invited; and no tier is slower than the slowest report.
    all_invited_s, slowest_report_s = PATIENCE * PACE_S * (1 + ceil(log2(len(phones)))), 0.0
    polling = [(random.uniform(0, every), device) for device, every in every_s.items()]
    for round in range(rounds):
        polling = [(max(when, now), device) for when, device in polling]
        heapq.heapify(polling)
        inside, last_s = {}, now
        while len(inside) < places:
            now, device = heapq.heappop(polling)
            heapq.heappush(polling, (now + every_s[device], device))
            if device in inside:
                continue
            assert now - last_s <= max(all_invited_s, slowest_report_s) + 2 * slowest_s
            if comes(desk, device, now, round=round, free=places - len(inside), tier=f"tier {len(device)}"):
                inside[device] = last_s = now
        for device, since_s in inside.items():
            now += random.uniform(0, 5.0)
            slowest_report_s = max(slowest_report_s, now - since_s)
            if random.random() < 0.7:
                desk.counted(device, now, round=round, utility=random.uniform(0, 100))
            else:
                desk.missed(device, now)
        desk.closed(now)


# settings


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [(kind, "min_separation", -1) for kind in SELECTIONS.values()]
    + [
        (DeadlineAware, "target_s", 0.0),
        (DeadlineAware, "target_s", float("inf")),
        (DeadlineAware, "target_s", float("nan")),
        (DeadlineAware, "retry_rounds", 0),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(kind, field, value):
    with pytest.raises(ConfigError, match=f"^{field} must .*, got {value}$"):
        kind(**{field: value})


def test_a_place_that_stays_empty_lets_slow_tiers_in_however_often_quick_phones_report():
    desk = selector(DeadlineAware(target_s=5.0, retry_rounds=1_000))
    desk.seen("old 1", 0.0, tier="old")
    assert desk.admit("old 1", 0.0, round=0, free=9)
    desk.counted("old 1", 50.0, round=0, utility=1.0)
    desk.closed(50.0)
    admitted_s = None
    for second in range(50, 150):
        now = float(second)
        desk.seen("quick", now, tier="quick")
        if desk.admit("quick", now, round=second, free=9):
            desk.counted("quick", now + 0.5, round=second, utility=1.0)
        desk.seen("old 2", now + 0.7, tier="old")
        if desk.admit("old 2", now + 0.7, round=second, free=9):
            admitted_s = now
            break
    assert admitted_s == 50 + 45  # when the target and the time that places were empty are its 50 seconds
