"""Secrets are learnt without protection, and are not with it."""

import pytest

from kbdfl.algorithms import ClientRule
from kbdfl.audit.mechanism import Released
from kbdfl.device_sim.attacks.canary import CanaryPlan, local_updates, plain_mean, plant, protected
from kbdfl.errors import ConfigError
from kbdfl.model import CifgConfig, init_params
from kbdfl.rng import stream

MODEL = CifgConfig(vocab=120, embed=8, hidden=12)
PLAN = CanaryPlan(canaries=3, copies=100, others=5, rounds=40)


@pytest.fixture(scope="module")
def logs():
    random = stream(1, "logs")
    return [[[2, *random.integers(4, 120, 6).tolist(), 3] for _ in range(10)] for _ in range(8)]


def planted(logs, release):
    return plant(logs, init_params(MODEL, seed=1), MODEL, plan=PLAN, release=release, seed=1)


def test_secrets_are_learnt_without_protection_and_hidden_by_noise(logs):
    control = planted(logs, plain_mean)
    hidden = planted(logs, protected(Released(1.0, 10.0, PLAN.cohort)))
    assert control.mean > hidden.mean + 4
    assert control.mean > control.limit
    assert hidden.mean < hidden.limit
    assert control.chance < 1e-6 < hidden.chance


def test_updates_follow_from_the_seed(logs):
    params = init_params(MODEL, seed=1)
    first, again = (local_updates(logs, params, MODEL, ClientRule(), seed=3) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert len(first) == len(logs)


def test_a_plan_without_phones_is_refused():
    with pytest.raises(ConfigError, match="canaries must be >= 1"):
        CanaryPlan(canaries=0)
