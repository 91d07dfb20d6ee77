"""When the phones of a country are awake: what follows from a number, and how the week looks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.device_sim.devices import DAY_S, MID, TIERS, Device
from kbdfl.device_sim.hours import (
    EARLY_S,
    HOUR_S,
    LONGEST_H,
    UNCHARGED,
    Weekly,
    hardware,
    normals,
    tiers,
    uniforms,
)

MANY = np.arange(20_000)


def test_uniforms_are_uniform_and_normals_normal():
    found = uniforms(1, "a test", phones=MANY)
    assert 0 <= found.min() < found.max() < 1
    counts = np.histogram(found, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 45  # chi squared of 19 degrees of freedom, p = .001
    normal = normals(1, "a test", phones=MANY)
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.02
    assert abs((np.abs(normal) > 1.96).mean() - 0.05) < 0.006


def test_streams_of_other_names_seeds_and_days_are_others():
    draws = [
        uniforms(*name, phones=MANY) for name in ((1, "a"), (2, "a"), (1, "b"), (1, "a", 0), (1, "a", 1))
    ]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


@given(seed=st.integers(0, 1 << 64), phone=st.integers(0, 1 << 40), day=st.integers(-1, 400))
def test_a_phone_is_the_same_whoever_is_asked_for_beside_it(seed, phone, day):
    alone = Weekly(seed).windows(day, np.array([phone]))
    among = Weekly(seed).windows(day, np.arange(max(0, phone - 2), phone + 3))
    at = among[0] == phone
    for one, many in zip(alone, among, strict=True):
        np.testing.assert_array_equal(one, many[at])


def test_windows_of_a_phone_never_meet_and_belong_to_their_day():
    hours = Weekly(3)
    last = np.full(len(MANY), -np.inf)
    for day in range(-1, 15):
        phones, opens, closes = hours.windows(day, MANY)
        assert (opens >= day * DAY_S - EARLY_S).all()
        assert (opens < (day + 1) * DAY_S + EARLY_S).all()
        assert (closes > opens).all()
        assert (closes - opens <= LONGEST_H * HOUR_S).all()
        assert (opens >= last[phones]).all()
        last[phones] = closes


def test_most_phones_have_a_window_a_day_and_longer_ones_at_the_weekend():
    hours = Weekly(1)
    lengths = {}
    for day in range(7):
        phones, opens, closes = hours.windows(day, MANY)
        assert abs(len(phones) / len(MANY) - (1 - UNCHARGED)) < 0.01
        lengths[day] = (closes - opens).mean() / HOUR_S
    assert 7.5 < lengths[0] < 8.5
    assert min(lengths[4], lengths[5]) > max(lengths[day] for day in (0, 1, 2, 3, 6)) + 0.5


def test_four_times_as_many_phones_are_awake_by_night_as_by_day():
    hours, awake = Weekly(1), np.zeros(24)
    for day in range(1, 4):
        _, opens, closes = hours.windows(day, MANY)
        for hour in range(24):
            for shift in (0, 1):
                at = (day + shift) * DAY_S + hour * HOUR_S
                awake[hour] += ((opens <= at) & (at < closes)).sum()
    assert 3 < awake.max() / awake.min() < 6
    assert awake.argmax() in (1, 2, 3, 4, 5, 6)
    assert awake.argmin() in range(13, 21)


def test_tiers_have_their_shares():
    counts = np.bincount(tiers(1, MANY), minlength=len(TIERS)) / len(MANY)
    for share, tier in zip(counts, TIERS, strict=True):
        assert abs(share - tier.share) < 0.015


@pytest.mark.parametrize("speeds", ["equal", "tiers", "heavy-tailed"])
def test_hardware_follows_from_the_phones_number(speeds):
    phones = [hardware(1, phone, 3, speeds=speeds) for phone in range(200)]
    assert phones == [hardware(1, phone, 3, speeds=speeds) for phone in range(200)]
    if speeds == "equal":
        assert set(phones) == {Device()}
        assert phones[0].tier == MID.name
    else:
        assert {phone.tier for phone in phones} == {TIERS[3].name}
        assert {phone.memory_bytes for phone in phones} == {TIERS[3].memory_bytes}
        assert len({phone.tokens_per_s for phone in phones}) == (1 if speeds == "tiers" else 200)
