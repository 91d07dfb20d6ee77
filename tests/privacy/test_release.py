"""The central mechanism whole: what it releases, how much noise is in it, what it never does."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.errors import ConfigError, WireError
from kbdfl.privacy import Account, Central, FileBooks, MemoryBooks, Privacy, Source
from kbdfl.privacy.grid import LEVELS
from kbdfl.privacy.statement import statement

SIZE, COHORT, CLIP = 20_000, 8, 0.5
PRIVACY = Privacy("gaussian", noise_multiplier=2.0)


def central(privacy=PRIVACY, *, books=None, rounds=20, source=Source, size=SIZE):
    return Central(Account(privacy, CLIP, rounds, COHORT, size), books or MemoryBooks(), source=source)


def updates(count=COHORT, *, norm=3.0, size=SIZE, seed=1):
    drawn = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return drawn * np.float32(norm / np.sqrt(size))


def summed(mechanism, deltas):
    total = mechanism.summing(deltas.shape[1])
    for delta in deltas:
        total.add(delta)
    return total


def clipped_mean(deltas):
    norms = np.linalg.norm(deltas.astype(float), axis=1, keepdims=True)
    return (deltas * np.minimum(1, CLIP / norms)).sum(axis=0) / COHORT


def names(deltas):
    return [f"phone-{number}" for number in range(len(deltas))]


@pytest.mark.parametrize("mechanism", ["gaussian", "tree", "banded"])
def test_the_noise_of_a_first_release_has_its_variance_within_one_per_cent(mechanism, sources):
    noised = central(replace(PRIVACY, mechanism=mechanism, separation=4), source=sources, size=60_000)
    deltas = updates(size=60_000)
    noise = noised.release(0, summed(noised, deltas), names(deltas)) - clipped_mean(deltas)
    assert noise.var() == pytest.approx((2.0 * CLIP / COHORT) ** 2, rel=0.01)
    assert abs(noise.mean()) < 4 * noise.std() / np.sqrt(60_000)


def test_the_divisor_is_fixed_however_many_report():
    loud = replace(PRIVACY, noise_multiplier=1e-6)
    for count in (1, 5, 8):
        noised, deltas = central(loud), updates(count)
        mean = noised.release(0, summed(noised, deltas), names(deltas))
        np.testing.assert_allclose(mean, clipped_mean(deltas), atol=1e-6)
    noised = central(replace(loud, denominator=100))
    mean = noised.release(0, summed(noised, deltas), names(deltas))
    np.testing.assert_allclose(mean, clipped_mean(deltas) * COHORT / 100, atol=1e-6)


def test_one_device_moves_the_sum_by_one_clip_norm_at_most():
    noised, deltas = central(), updates()
    whole = summed(noised, deltas).total
    for gone in range(COHORT):
        moved = whole - summed(noised, np.delete(deltas, gone, axis=0)).total
        assert float(moved @ moved) <= LEVELS**2
        assert float(moved @ moved) > 0.99 * LEVELS**2
    monstrous = summed(noised, np.r_[deltas, 1e12 * deltas[:1]]).total - whole
    assert float(monstrous @ monstrous) <= LEVELS**2


def test_the_sum_is_the_same_in_any_order_and_by_any_parts():
    noised, deltas = central(), updates()
    forward, backward = summed(noised, deltas), summed(noised, deltas[::-1])
    first, second = summed(noised, deltas[:3]), summed(noised, deltas[3:])
    first.merge(second)
    third = summed(noised, deltas[:3])
    third.add_state(second.state())
    fourth = noised.summing(SIZE)
    fourth.restore(forward.state())
    for other in (backward, first, third, fourth):
        assert np.array_equal(other.total, forward.total)
        assert (other.count, other.within) == (forward.count, forward.within)


def test_two_releases_never_share_noise():
    noised, deltas, noises = central(), updates(), []
    for number in range(3):
        mean = noised.release(number, summed(noised, deltas), names(deltas))
        noised.settle()
        noises.append(mean - clipped_mean(deltas))
    noises.append(central().release(0, summed(noised, deltas), names(deltas)) - clipped_mean(deltas))
    correlations = np.corrcoef(noises)[~np.eye(4, dtype=bool)]
    assert np.abs(correlations).max() < 0.04


def test_a_release_that_is_asked_for_again_is_the_same_and_booked_once():
    books, deltas = MemoryBooks(), updates()
    noised = central(books=books)
    first = noised.release(0, summed(noised, deltas), names(deltas))
    assert np.array_equal(noised.release(0, summed(noised, deltas), names(deltas)), first)
    assert len(books.rows()) == 1
    noised.settle()
    assert not np.array_equal(noised.release(1, summed(noised, deltas), names(deltas)), first)


def test_nothing_is_released_that_cannot_be_booked():
    class Full(MemoryBooks):
        def book(self, row, devices):
            raise OSError("no space left")

    noised, deltas = central(books=Full()), updates()
    with pytest.raises(OSError, match="no space"):
        noised.release(0, summed(noised, deltas), names(deltas))
    assert noised.epsilon == 0
    assert noised.may("phone-0")


def test_the_budget_ends_the_task():
    privacy = replace(PRIVACY, epsilon=Account(PRIVACY, CLIP, 20, COHORT, SIZE).epsilon(2))
    noised, deltas = central(privacy), updates()
    for number in range(2):
        assert noised.open
        noised.release(number, summed(noised, deltas), names(deltas))
        assert noised.open  # until it is settled it may be asked for again
        noised.settle()
    assert not noised.open
    with pytest.raises(ConfigError, match="budget"):
        noised.release(2, summed(noised, deltas), names(deltas))


def test_devices_that_were_counted_are_barred_and_a_crash_does_not_forget_them(tmp_path):
    privacy, deltas = replace(PRIVACY, separation=3, participations=2), updates()
    noised = central(privacy, books=FileBooks(tmp_path))
    noised.release(0, summed(noised, deltas), ["ann"])
    noised.settle()
    again = central(privacy, books=FileBooks(tmp_path))
    for known in (noised, again):
        assert not known.may("ann")
        assert known.may("bob")
    for number in (1, 2):
        again.release(number, summed(again, deltas), ["bob"] if number == 1 else ["cid"])
        again.settle()
    assert again.may("ann")
    again.release(3, summed(again, deltas), ["ann"])
    again.settle()
    for number in (4, 5, 6):
        again.release(number, summed(again, deltas), [])
        again.settle()
    assert not again.may("ann")  # two parts are all that was promised
    assert again.may("bob")


def test_banded_noise_is_taken_back_by_later_releases(sources):
    """Sums of many means carry less of it than independent noise would leave, at the same cost."""
    errors = {}
    for mechanism in ("gaussian", "banded"):
        asked = Privacy(mechanism, epsilon=8.0, separation=8)
        noised = central(asked.with_noise(rounds=40, cohort=COHORT), rounds=40, source=sources, size=2_000)
        deltas, gone = updates(size=2_000), np.zeros(2_000)
        for number in range(40):
            gone += noised.release(number, summed(noised, deltas), []) - clipped_mean(deltas)
            noised.settle()
        errors[mechanism] = gone.std()
        assert noised.epsilon <= 8.0
    assert errors["banded"] < 0.6 * errors["gaussian"]


def test_a_moving_clip_norm_follows_the_quantile_and_survives_a_crash(tmp_path, sources):
    privacy = Privacy("gaussian", noise_multiplier=0.1, quantile=0.5, clip_rate=0.3, count_noise=0.2)
    norms = np.linspace(1.0, 3.0, COHORT)
    deltas = updates(norm=1.0, size=50) / np.linalg.norm(updates(norm=1.0, size=50), axis=1, keepdims=True)
    deltas = (deltas * norms[:, None]).astype(np.float32)
    clip_norms = []
    for number in range(40):
        noised = central(
            privacy, books=FileBooks(tmp_path), rounds=40, source=sources, size=50
        )  # crashes every round
        clip_norms.append(noised.clip_norm)
        assert noised.device_clip_norm == 2 * noised.clip_norm
        noised.release(number, summed(noised, deltas), [])
        noised.settle()
    assert clip_norms[0] == CLIP
    assert 1.5 < np.mean(clip_norms[-10:]) < 2.5
    assert {row.clip_norm for row in FileBooks(tmp_path).rows()} == set(clip_norms)


def test_a_clip_norm_that_stays_is_what_phones_are_told():
    noised = central()
    assert noised.clip_norm == noised.device_clip_norm == CLIP


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_update_that_is_not_finite_changes_nothing(bad):
    noised, deltas = central(), updates()
    total = summed(noised, deltas)
    before = total.state()
    deltas[0, 5] = bad
    with pytest.raises(WireError):
        total.add(deltas[0])
    assert np.array_equal(total.total, before["steps"])
    assert (total.count, total.within) == (before["count"], before["within"])


def test_what_would_not_fit_into_whole_numbers_is_refused():
    with pytest.raises(ConfigError, match="noise_multiplier must be > 0 and at most"):
        central(replace(PRIVACY, noise_multiplier=1e6))
    with pytest.raises(ConfigError, match="cohort must be at most"):
        Central(Account(PRIVACY, CLIP, 5, 2**21, 9), MemoryBooks())
    with pytest.raises(ConfigError, match="noise_multiplier must be > 0 and at most"):
        central(Privacy("gaussian", epsilon=1.0))


def test_a_whole_cohort_of_the_longest_updates_and_the_loudest_noise_stays_in_its_range():
    """The largest that is allowed of everything, in every bit: C x + z is exact in int64."""
    from kbdfl.privacy.banded import UNIT
    from kbdfl.privacy.mechanisms import LARGEST
    from kbdfl.privacy.release import MOST_DEVICES
    from kbdfl.privacy.streams import Banded

    c = Banded(2_000, 400).coefficients
    assert sum(abs(value) for value in c) * MOST_DEVICES * LEVELS + 18 * LARGEST < 2**63
    assert c[0] == UNIT


def test_noise_that_is_too_little_is_said_to_be_worth_nothing():
    books = MemoryBooks()
    noised, deltas = central(replace(PRIVACY, noise_multiplier=1e-4), books=books), updates()
    noised.release(0, summed(noised, deltas), names(deltas))
    (row,) = books.rows()
    assert row.epsilon is None
    assert noised.epsilon == float("inf")
    assert "Infinity" not in row.to_json()
    assert "too much for any (epsilon, 1e-10) to be claimed" in statement(row)


@pytest.mark.parametrize("mechanism", ["gaussian", "tree", "banded"])
def test_the_statement_is_made_of_the_ledger(mechanism):
    books = MemoryBooks()
    noised = central(
        replace(PRIVACY, mechanism=mechanism, separation=4, participations=3, population=900), books=books
    )
    deltas = updates()
    for number in range(6):
        noised.release(number, summed(noised, deltas), names(deltas))
        noised.settle()
    row = books.rows()[-1]
    said = statement(row)
    assert f"rho = {row.rho:.3g}" in said
    assert f"(epsilon, delta) = ({row.epsilon:.3g}, 1e-10)" in said
    assert "for the 6 models published" in said
    assert "at most 2 releases, at least 4 releases apart" in said
    assert "one device of 900" in said
    assert {"gaussian": "independent", "tree": "each node", "banded": "banded matrix of 4 bands"}[
        mechanism
    ] in said
    for word in ("trusted", "no amplification", "Not covered", "clipped to a norm of 0.5", "divided by 8"):
        assert word in said
    assert "\n" not in said
