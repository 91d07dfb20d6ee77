"""The audit of a mechanism passes what is right and catches four planted faults."""

import numpy as np
import pytest

from kbdfl.audit.epsilon import GAMES, audit_mechanism, gaussian_delta, gaussian_epsilon, lower_mu
from kbdfl.audit.mechanism import PLANTED, Released
from kbdfl.errors import ConfigError
from kbdfl.rng import stream

TRIALS = 1_000  # with fewer a fault may slip through by bad luck


def test_the_right_mechanism_keeps_its_promise():
    found = audit_mechanism(Released(2.0, 1.0, 4), delta=1e-5, trials=TRIALS)
    assert not found.refuted
    assert 0 < found.lower_epsilon < found.claimed_epsilon
    assert found.lower_mu.keys() == GAMES.keys()


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_caught(fault):
    found = audit_mechanism(PLANTED[fault](2.0, 1.0, 4), delta=1e-5, trials=TRIALS)
    assert found.refuted
    assert found.lower_epsilon > found.claimed_epsilon


@pytest.mark.parametrize(
    ("fault", "game"),
    [("no clip", "alone"), ("wrong denominator", "against the crowd"), ("seeded noise", "two rounds")],
)
def test_each_game_finds_the_fault_that_it_is_for(fault, game):
    found = audit_mechanism(PLANTED[fault](2.0, 1.0, 4), delta=1e-5, trials=TRIALS)
    assert found.lower_mu[game] > found.claimed_mu


def test_a_bound_of_mu_is_near_and_below_the_truth():
    random = stream(1, "scores")
    without, with_it = random.normal(0, 1, 20_000), random.normal(1.5, 1, 20_000)
    assert 1.3 < lower_mu(without, with_it, confidence=0.999) < 1.5


def test_nothing_is_shown_by_scores_that_are_alike():
    scores = stream(2, "scores").normal(0, 1, (2, 2_000))
    assert lower_mu(*scores, confidence=0.999) < 0.1


def test_epsilon_and_delta_of_a_gaussian_are_inverse():
    # Dong et al. 2019: a 1-GDP mechanism is (1, 0.1269)-DP.
    assert gaussian_delta(1.0, 1.0) == pytest.approx(0.12693, abs=1e-4)
    for mu in (0.1, 1.0, 5.0, 25.0):
        assert gaussian_delta(mu, gaussian_epsilon(mu, 1e-6)) == pytest.approx(1e-6, rel=1e-4)
    assert gaussian_epsilon(0.0, 1e-6) == 0.0


@pytest.mark.parametrize(("mu", "delta"), [(-1.0, 0.1), (26.0, 0.1), (1.0, 0.0), (1.0, 1.0)])
def test_what_has_no_epsilon_is_refused(mu, delta):
    with pytest.raises(ConfigError, match="must lie in"):
        gaussian_epsilon(mu, delta)


def test_two_releases_of_the_right_mechanism_share_no_noise():
    mechanism, silent = Released(1.0, 1.0, 1), np.zeros((1, 4_000), np.float32)
    first, second = (mechanism.release(silent, round=0) for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    assert np.std(first - second) == pytest.approx(2**0.5, rel=0.1)
    seeded = PLANTED["seeded noise"](1.0, 1.0, 1)
    assert np.array_equal(seeded.release(silent, round=0), seeded.release(silent, round=1))


def test_a_mechanism_that_promises_nothing_is_refused():
    for wrong in ((0.0, 1.0, 4), (1.0, 0.0, 4), (1.0, 1.0, 0)):
        with pytest.raises(ConfigError):
            Released(*wrong)
