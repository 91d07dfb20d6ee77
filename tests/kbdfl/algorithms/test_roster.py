"""What a server remembers of phones, and what it forgets."""

from math import inf, isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.algorithms.roster import CAPACITY, HALF_LIFE, NEVER, OUTCOMES, ROW, TIERS, Roster, Tier, faded


def row_of(roster, device):
    return roster.table[roster.row(device)]


def test_a_report_tells_how_long_the_phone_took_and_what_it_is_worth():
    roster = Roster()
    roster.seen("a", 5.0, tier="old")
    roster.assign("a", 6.0, round=0)
    assert row_of(roster, "a")["since_s"] == 6.0
    roster.counted("a", 26.5, round=2, utility=7.0)
    row = row_of(roster, "a")
    assert (row["duration_s"], row["utility"], row["assigned"], row["seen_s"]) == (20.5, 7.0, 1, 26.5)
    assert row["part_round"] == row["counted_round"] == 2
    assert isnan(row["since_s"])
    assert roster.tier(roster.row("a")).expected_s == 20.5


def test_a_phone_that_missed_its_round_is_expected_to_take_twice_as_long_and_no_less_than_it_did():
    roster = Roster()
    for now, expected in [(3.0, 3.0), (13.0, 6.0), (120.0, 100.0)]:
        roster.seen("a", now, tier="")
        roster.assign("a", now if now < 100 else 20.0, round=0)
        roster.missed("a", now + 3.0 if now < 100 else 120.0)
        assert row_of(roster, "a")["duration_s"] == expected
    assert isnan(row_of(roster, "a")["utility"])
    assert row_of(roster, "a")["part_round"] == 0
    assert row_of(roster, "a")["counted_round"] == NEVER
    roster.assign("a", 200.0, round=1)
    roster.counted("a", 202.0, round=1, utility=1.0)
    assert row_of(roster, "a")["duration_s"] == 2.0  # until it is seen to be quick


def test_what_a_phone_is_expected_to_take_stays_a_number_however_often_it_missed():
    roster = Roster()
    for round in range(200):
        roster.assign("a", 60.0 * round, round=round)
        roster.missed("a", 60.0 * round + 50.0)
    assert 1e29 < row_of(roster, "a")["duration_s"] < inf


def test_a_missed_round_that_was_over_before_the_phone_was_expected_says_nothing_of_it():
    roster = Roster()
    for now in (0.0, 100.0):
        roster.seen("a", now, tier="")
        roster.assign("a", now, round=0)
        if now == 0:
            roster.counted("a", 10.0, round=0, utility=1.0)
    roster.missed("a", 109.0)
    assert row_of(roster, "a")["duration_s"] == 10.0
    roster.assign("a", 200.0, round=1)
    roster.missed("a", 211.0)
    assert row_of(roster, "a")["duration_s"] == 20.0


@given(st.lists(st.integers(0, 400), min_size=1, max_size=20))
def test_presence_is_the_faded_count_of_epochs_in_which_a_phone_was_seen(epochs):
    roster = Roster()
    for roster.epoch in sorted(epochs):
        roster.seen("a", float(roster.epoch), tier="")
    row, last = row_of(roster, "a"), max(epochs)
    assert row["seen_epoch"] == last
    exact = sum(0.5 ** ((last - epoch) / HALF_LIFE) for epoch in set(epochs))
    assert row["presence"] == pytest.approx(exact, rel=1e-4)
    assert faded(row["presence"], HALF_LIFE) == pytest.approx(exact / 2, rel=1e-4)


def test_a_phone_that_works_is_there_in_every_round_until_it_is_counted():
    roster = Roster()
    roster.seen("works", 0.0, tier="")
    roster.assign("works", 0.0, round=0)
    for roster.epoch in range(6):
        roster.seen("waits", 0.0, tier="")
    roster.counted("works", 9.0, round=5, utility=1.0)
    waits, works = row_of(roster, "waits"), row_of(roster, "works")
    assert works["seen_epoch"] == waits["seen_epoch"] == 5
    assert works["presence"] == pytest.approx(waits["presence"])


def test_a_phone_waited_for_in_vain_is_absent_until_it_is_seen_again():
    roster = Roster()
    roster.seen("a", 5.0, tier="")
    roster.absent("a", since_s=4.0)
    assert row_of(roster, "a")["seen_s"] == 5.0
    roster.absent("a", since_s=5.0)
    assert row_of(roster, "a")["seen_s"] == -inf
    roster.seen("a", 6.0, tier="")
    assert row_of(roster, "a")["seen_s"] == 6.0


@given(capacity=st.integers(1, 40), more=st.integers(1, 60))
def test_the_phones_unseen_longest_are_forgotten_first(capacity, more):
    roster = Roster(capacity)
    for number in range(capacity + more):
        roster.seen(f"phone-{number}", float(number), tier="")
    kept = len(roster.names)
    assert capacity - max(1, capacity // 16) < kept <= capacity
    assert roster.names == [f"phone-{number}" for number in range(capacity + more - kept, capacity + more)]
    for row, name in enumerate(roster.names):
        assert roster.row(name) == row
        assert f"phone-{roster.table['seen_s'][row]:.0f}" == name


def test_a_phone_forgotten_while_it_worked_still_counts():
    roster = Roster(1)
    roster.seen("a", 0.0, tier="old")
    roster.assign("a", 0.0, round=0)
    roster.seen("b", 1.0, tier="old")
    roster.counted("a", 9.0, round=0, utility=3.0)
    assert roster.names == ["a"]
    assert isnan(row_of(roster, "a")["duration_s"])  # since when it worked is forgotten
    assert row_of(roster, "a")["utility"] == 3.0


def test_a_row_is_small():
    assert ROW.itemsize < 64
    assert len(Roster().table) == 0
    assert Roster()._table.nbytes < 64 * ROW.itemsize + 1  # nothing is set aside for CAPACITY phones
    assert CAPACITY * (ROW.itemsize + 160) < 64e6


def test_a_liar_cannot_invent_tiers_without_end():
    roster = Roster()
    for number in range(10 * TIERS):
        roster.seen("liar", 0.0, tier=f"tier {number}")
    assert len(roster.tiers) == TIERS
    assert roster.tier(roster.row("liar")) is roster.tiers[0]  # as one that states none
    roster.seen("liar", 0.0, tier="tier 3")
    assert roster.tier(roster.row("liar")) is not roster.tiers[0]


def test_four_odd_outcomes_do_not_move_a_tiers_expectation():
    tier = Tier()
    for duration_s in [10.0] * 5 + [0.0, 1e9, 1e9, 1e9]:
        tier.counted(duration_s)
    assert tier.expected_s == 10.0
    for _ in range(OUTCOMES // 2 + 1):
        tier.counted(30.0)
    assert tier.expected_s == 30.0


def test_a_missed_round_tells_of_a_tier_only_what_was_not_expected():
    tier = Tier()
    assert isnan(tier.expected_s)
    tier.missed(8.0)
    assert tier.expected_s == 8.0
    for _ in range(OUTCOMES):
        tier.missed(7.0)  # it may yet take 8 s
    assert tier.expected_s == 8.0
    for _ in range(OUTCOMES):
        tier.missed(40.0)
    assert tier.expected_s == 40.0


def test_an_epoch_lasts_a_round_and_a_poll_at_least():
    roster, epochs = Roster(epoch_s=1.5), []
    roster.seen("a", 10.0, tier="")
    for now in (10.5, 11.0, 11.5, 20.0, 20.1, 22.0):
        roster.closed(now)
        epochs.append(roster.epoch)
    assert epochs == [0, 0, 1, 2, 2, 3]


def test_a_closed_round_is_worth_the_sum_of_its_reports():
    roster = Roster()
    for utilities in ([1.0, 2.0], [], [4.0]):
        for number, utility in enumerate(utilities):
            roster.counted(f"phone-{number}", 0.0, round=0, utility=utility)
        roster.closed(0.0)
    np.testing.assert_array_equal(roster.utilities, [3.0, 0.0, 4.0])
