"""Oort's formulas by hand, and whom the rule made of them invites."""

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.algorithms.oort import (
    CLIP,
    Oort,
    draw,
    relaxed,
    statistical_utility,
    system_utility,
    temporal_uncertainty,
)
from kbdfl.algorithms.roster import Roster
from kbdfl.errors import ConfigError


def random(seed=1):
    return np.random.default_rng(seed)


def roster_of(*, counted=(), fresh=0, missed=0):
    """`counted` as (seconds, utility) of phones that took part in round 0; then some that missed it; then new ones."""
    roster = Roster()
    for number, (seconds, utility) in enumerate(counted):
        roster.seen(f"known-{number}", 0.0, tier="known")
        roster.assign(f"known-{number}", 0.0, round=0)
        roster.counted(f"known-{number}", seconds, round=0, utility=utility)
    for number in range(missed):
        roster.seen(f"missed-{number}", 0.0, tier="known")
        roster.assign(f"missed-{number}", 0.0, round=0)
        roster.missed(f"missed-{number}", 1.0)
    for number in range(fresh):
        roster.seen(f"fresh-{number}", 0.0, tier="")
    return roster, np.arange(len(roster.names))


def invited(rule, roster, *, places, round=0, seed=1):
    rows = np.arange(len(roster.names))
    return [
        roster.names[row]
        for row in rule.invite(roster, rows, places=places, round=round, random=random(seed))
    ]


def test_statistical_utility_is_the_papers_where_all_losses_are_equal():
    losses = np.full(7, 2.5)
    assert statistical_utility(7, losses.mean()) == pytest.approx(7 * sqrt((losses**2).mean()))


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=30))
def test_statistical_utility_falls_short_of_the_papers_by_the_spread_of_losses(losses):
    losses = np.array(losses)
    exact = len(losses) * sqrt((losses**2).mean())
    short = sqrt(1 + (losses.std() / losses.mean()) ** 2)
    assert statistical_utility(len(losses), losses.mean()) * short == pytest.approx(exact)


def test_temporal_uncertainty_is_by_hand():
    np.testing.assert_allclose(
        temporal_uncertainty(100, np.array([1, 4, 100])),
        [sqrt(0.1 * log(100)), sqrt(0.1 * log(100) / 4), sqrt(0.001 * log(100))],
    )
    assert temporal_uncertainty(1, np.array([1])) == 0


def test_system_utility_punishes_the_slow_and_does_not_reward_haste():
    of = system_utility(np.array([0.0, 5.0, 10.0, 20.0, 40.0]), preferred_s=10.0, penalty=2.0)
    np.testing.assert_allclose(of, [1, 1, 1, 0.25, 0.0625])
    np.testing.assert_array_equal(system_utility(np.array([1.0, 99.0]), preferred_s=10.0, penalty=0.0), 1)


def test_the_pacer_lets_go_once_for_each_window_that_is_worth_less_than_the_one_before():
    assert relaxed([], 2) == 0
    assert relaxed([9, 9, 1], 2) == 0  # the second window is not over
    assert relaxed([9, 9, 1, 1], 2) == 1
    assert relaxed([9, 9, 1, 1, 1, 1], 2) == 1  # as much is not less
    assert relaxed([9, 9, 1, 1, 5, 5, 4, 4, 3, 3], 2) == 3
    assert relaxed([9, 9, 1], 10**30) == 0


def test_exploration_decays_to_its_least():
    rule = Oort()
    assert rule.exploring(0) == 0.9
    assert rule.exploring(10) == pytest.approx(0.9 * 0.98**10)
    assert rule.exploring(1_000) == 0.2


def test_a_utility_is_clipped_scaled_and_joined_by_uncertainty_and_speed():
    seconds, worth = [1.0, 2.0, 3.0, 4.0, 10.0], [10.0, 20.0, 30.0, 40.0, 1e9]
    roster, rows = roster_of(counted=list(zip(seconds, worth, strict=True)))
    rule = Oort(quickest=0.5)
    clip = np.quantile(np.float32(worth), CLIP)
    bonus = sqrt(0.1 * log(51))
    expected = (np.minimum(worth, clip) / clip + bonus) * np.array([1, 1, 1, (3 / 4) ** 2, (3 / 10) ** 2])
    np.testing.assert_allclose(rule.utility(roster, rows, round=50), expected, rtol=1e-6)
    assert clip < 1e9  # a lie about the loss is worth no more than what is near the top anyway


def test_what_the_pacer_has_let_go_moves_the_preferred_duration():
    roster, rows = roster_of(counted=[(1.0, 1.0), (2.0, 1.0), (3.0, 1.0)])
    rule = Oort(quickest=0.0, step=0.5, window=1)
    slow = {0: 1 / 9, 1: 4 / 9, 2: 1.0, 3: 1.0}  # of the third phone, for T = 1, 2, 3 and no further
    for lets_go, share in slow.items():
        roster.utilities = [float(9 - k) for k in range(lets_go + 1)]
        assert rule.utility(roster, rows, round=0)[2] == pytest.approx(share)


def test_a_phone_whose_reports_never_counted_is_worth_the_mean_and_takes_longer():
    roster, rows = roster_of(counted=[(0.5, 10.0), (0.5, 30.0)], missed=1)
    clip = np.quantile([10.0, 30.0], CLIP)
    utility = Oort(quickest=0.5).utility(roster, rows, round=0)
    assert utility[2] == pytest.approx((10.0 / clip + 1.0) / 2 / 4)  # T = 0.5 s, t = 1 s


def test_nothing_known_of_any_report_is_no_obstacle():
    roster, rows = roster_of(missed=4)
    np.testing.assert_array_equal(Oort().utility(roster, rows, round=0), 1)
    worthless, rows = roster_of(counted=[(1.0, 0.0)] * 3)
    np.testing.assert_array_equal(Oort().utility(worthless, rows, round=0), 0)
    assert len(invited(Oort(), worthless, places=2)) == 2


def test_phones_too_often_selected_come_last_but_come():
    roster, _ = roster_of(counted=[(1.0, 10.0)] * 4)
    for _ in range(3):
        roster.assign("known-0", 0.0, round=0)
    rule = Oort(most_parts=2)
    assert all("known-0" not in invited(rule, roster, places=3, seed=seed) for seed in range(20))
    assert "known-0" in invited(rule, roster, places=4)


def test_most_places_are_explored_at_first_and_a_fifth_at_last():
    roster, _ = roster_of(counted=[(1.0, 10.0)] * 40, fresh=40)

    def fresh(round):
        return np.mean(
            [
                sum("fresh" in name for name in invited(Oort(), roster, places=10, round=round, seed=seed))
                for seed in range(100)
            ]
        )

    assert fresh(0) == 9
    assert fresh(1_000) == 2


def test_exploration_is_exact_on_average_where_one_place_is_free():
    roster, _ = roster_of(counted=[(1.0, 10.0)] * 4, fresh=4)
    of = ["fresh" in invited(Oort(), roster, places=1, round=10_000, seed=seed)[0] for seed in range(2_000)]
    assert np.mean(of) == pytest.approx(0.2, abs=0.04)  # more than four standard deviations


def test_only_phones_near_the_cut_off_are_exploited():
    """c = 95 %: of these four, two places go to phones worth at least 95 % of the second best."""
    roster, _ = roster_of(counted=[(1.0, 100.0), (1.0, 100.0), (1.0, 96.0), (1.0, 90.0)])
    rule = Oort(exploration=0.0, least_exploration=0.0)
    seen = {name for seed in range(60) for name in invited(rule, roster, places=2, seed=seed)}
    assert seen == {"known-0", "known-1", "known-2"}


def test_the_exploring_share_prefers_tiers_known_to_be_quick():
    roster = Roster()
    for tier, seconds in (("quick", 1.0), ("slow", 9.0)):
        roster.seen(tier, 0.0, tier=tier)
        roster.assign(tier, 0.0, round=0)
        roster.counted(tier, seconds, round=0, utility=1.0)
        for number in range(5):
            roster.seen(f"new {tier} {number}", 0.0, tier=tier)
    rule = Oort(exploration=1.0)
    drawn = [invited(rule, roster, places=1, seed=seed)[0] for seed in range(1_000)]
    assert np.mean(["quick" in name for name in drawn]) == pytest.approx(0.9, abs=0.04)


@given(
    counted=st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e12)), max_size=12),
    fresh=st.integers(0, 12),
    missed=st.integers(0, 5),
    places=st.integers(0, 20),
    round=st.integers(0, 5_000),
)
def test_as_many_phones_are_invited_as_there_are_places_or_all_and_none_twice(
    counted, fresh, missed, places, round
):
    roster, rows = roster_of(counted=counted, fresh=fresh, missed=missed)
    names = invited(Oort(), roster, places=places, round=round)
    assert len(names) == len(set(names)) == min(places, len(rows))


def test_a_draw_is_in_proportion_to_the_weights():
    weights = np.array([1.0, 2.0, 0.0, 5.0])
    source = random()
    first = np.array([draw(weights, 1, source)[0] for _ in range(8_000)])
    shares = np.bincount(first, minlength=4) / len(first)
    np.testing.assert_allclose(shares, weights / 8, atol=0.025)  # four standard deviations


def test_what_weighs_nothing_is_drawn_last():
    drawn = draw(np.array([0.0, 1e-300, 0.0, 1e300]), 4, random())
    assert set(drawn[:2]) == {1, 3}
    assert sorted(drawn) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("exploration", 1.1),
        ("exploration_decay", -0.1),
        ("least_exploration", float("nan")),
        ("penalty", -1.0),
        ("penalty", float("inf")),
        ("quickest", 2.0),
        ("step", -1.0),
        ("window", 0),
        ("most_parts", -1),
        ("min_separation", -1),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"^{field} must .*, got {value}$"):
        Oort(**{field: value})
