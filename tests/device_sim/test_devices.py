"""Simulated hardware: what follows from a seed and a name, how the fleet is spread, and when a window is open."""

from dataclasses import FrozenInstanceError
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.device_sim.devices import DAY_S, MID, TIERS, Device, make_device
from kbdfl.run import AVAILABILITIES, SPEEDS

HOUR_S = 3_600.0


@pytest.fixture(scope="module")
def fleet():
    def make(*, speeds="equal", availability="always", seed=1, count=2_000):
        return [
            make_device(seed, f"phone {i}", speeds=speeds, availability=availability) for i in range(count)
        ]

    return make


def test_equal_phones_that_are_always_there_are_the_default_device(fleet):
    assert set(fleet(count=5)) == {Device()}
    assert Device().available(1e9)
    assert Device().leaves_s(1e9) == inf
    assert Device().returns_s(1e9) == 0


@pytest.mark.parametrize("speeds", SPEEDS)
@pytest.mark.parametrize("availability", AVAILABILITIES)
def test_a_device_follows_from_its_seed_and_name_alone(speeds, availability):
    def device(seed, name):
        return make_device(seed, name, speeds=speeds, availability=availability)

    assert device(3, "a") == device(3, "a")
    if (speeds, availability) != ("equal", "always"):
        assert len({device(3, f"phone {i}") for i in range(40)}) > 1
        assert [device(3, f"phone {i}") for i in range(40)] != [device(4, f"phone {i}") for i in range(40)]


def test_speed_and_window_do_not_know_of_each_other(fleet):
    """A phone keeps its window when speeds change, and its speed when windows do."""
    by_tier, heavy = fleet(speeds="tiers", availability="nightly"), fleet(speeds="heavy-tailed")
    equal = fleet(availability="nightly")
    assert [(d.opens_s, d.free_s) for d in by_tier] == [(d.opens_s, d.free_s) for d in equal]
    assert [d.tier for d in by_tier] == [d.tier for d in heavy]


def test_the_table_of_tiers_holds_whole_shares_from_fast_to_slow():
    assert sum(tier.share for tier in TIERS) == pytest.approx(1)
    assert (MID.tokens_per_s, MID.bytes_per_s) == (2_000.0, 1e6)
    for faster, slower in pairwise(TIERS):
        assert faster.tokens_per_s > slower.tokens_per_s
        assert faster.bytes_per_s > slower.bytes_per_s


def test_tiers_have_their_share_and_speed(fleet):
    phones = fleet(speeds="tiers")
    for tier in TIERS:
        own = [phone for phone in phones if phone.tier == tier.name]
        # four standard deviations of a binomial share
        assert abs(len(own) / len(phones) - tier.share) < 4 * (tier.share / len(phones)) ** 0.5
        assert {(phone.tokens_per_s, phone.bytes_per_s) for phone in own} == {
            (tier.tokens_per_s, tier.bytes_per_s)
        }


def test_heavy_tailed_speeds_are_log_normal_around_their_tiers(fleet):
    phones, of_tier = fleet(speeds="heavy-tailed"), {tier.name: tier for tier in TIERS}
    for name in ("tokens_per_s", "bytes_per_s"):
        logs = np.log([getattr(phone, name) / getattr(of_tier[phone.tier], name) for phone in phones])
        assert abs(logs.mean()) < 0.1
        assert logs.std() == pytest.approx(1.0, abs=0.08)
        assert abs(((logs - logs.mean()) ** 3).mean()) < 0.3
    times = [1_000 / phone.tokens_per_s + 2e6 / phone.bytes_per_s for phone in phones]
    assert np.quantile(times, 0.99) > 100 * np.quantile(times, 0.01)


def test_four_times_as_many_phones_are_there_at_the_best_hour_as_at_the_worst(fleet):
    phones = fleet(availability="nightly", count=4_000)
    there = [sum(phone.available(hour * HOUR_S) for phone in phones) for hour in range(24)]
    assert 3.5 < max(there) / min(there) < 5
    assert there.index(max(there)) in range(1, 7)  # at night in the east of the United States
    assert there.index(min(there)) in range(13, 20)  # in the afternoon
    assert min(there) > 0
    assert max(there) < len(phones)


def test_a_window_opens_and_closes_every_day():
    """From 22:00 for four hours, across midnight."""
    phone = Device(opens_s=22 * HOUR_S, free_s=4 * HOUR_S)
    for day in (0.0, DAY_S, 30 * DAY_S):
        at = {hour: day + hour * HOUR_S for hour in (0, 1, 2, 12, 21, 22, 23)}
        assert [phone.available(at[hour]) for hour in at] == [True, True, False, False, False, True, True]
        assert [phone.leaves_s(at[hour]) / HOUR_S for hour in at] == [2, 1, 0, 0, 0, 4, 3]
        assert [phone.returns_s(at[hour]) / HOUR_S for hour in at] == [0, 0, 20, 10, 1, 0, 0]


@given(opens_h=st.floats(0, 23.99), free_h=st.floats(2, 23.99), now_s=st.floats(0, 1e7))
def test_a_phone_is_either_there_for_a_while_or_will_return(opens_h, free_h, now_s):
    phone = Device(opens_s=opens_h * HOUR_S, free_s=free_h * HOUR_S)
    leaves_s, returns_s = phone.leaves_s(now_s), phone.returns_s(now_s)
    assert phone.available(now_s) == (leaves_s > 0) == (returns_s == 0)
    assert 0 <= leaves_s <= phone.free_s
    assert 0 <= returns_s <= DAY_S - phone.free_s + 1e-6
    if leaves_s > 2:
        assert phone.available(now_s + leaves_s - 1)
        assert not phone.available(now_s + leaves_s + 1)
    if returns_s > 2:
        assert not phone.available(now_s + returns_s - 1)
        assert phone.available(now_s + returns_s + 1)


@pytest.mark.parametrize("name", ["tokens_per_s", "opens_s"])
def test_a_device_is_frozen(name):
    with pytest.raises(FrozenInstanceError):
        setattr(Device(), name, 1.0)
