"""A whole audit of a run folder, and what it says was shown."""

from functools import partial

import pytest

from kbdfl.device_sim.attacks import whole
from kbdfl.device_sim.attacks.canary import CanaryPlan
from kbdfl.device_sim.attacks.whole import AuditPlan, audit_run, verdicts
from kbdfl.errors import ConfigError
from kbdfl.report import write_report
from kbdfl.report.audit import summary_lines
from kbdfl.run import RunConfig, RunFolder, Settings, build_task, checkpoint_facts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has not learnt anything yet, on generated text."""
    config = RunConfig(Settings(preset="tiny", source="personas", devices=200))
    built = build_task(config)
    folder = RunFolder.create(tmp_path_factory.mktemp("runs"), "young", default="x")
    folder.write_config(config.to_toml())
    folder.save(built.params, built, checkpoint_facts(config, built, round=0, version=0))
    return folder


def test_an_audit_of_all_modes_says_what_each_gives_away(run, monkeypatch):
    monkeypatch.setattr(whole, "audit_mechanism", partial(whole.audit_mechanism, trials=40))
    few = whole.Size(1, CanaryPlan(canaries=2, copies=20, others=4, rounds=3), 20)
    monkeypatch.setattr(whole, "QUICK", few)
    lines = []
    found = audit_run(run.path, AuditPlan(frames=32, quick=True, noise_multiplier=1.0), watch=lines.append)
    assert found["modes"].keys() == {"plain", "compressed", "masked", "noised"}
    assert found["modes"]["plain"]["f1"] > 0.9
    assert found["modes"]["masked"]["auc"] < 0.55
    assert found["planted"].keys() == {"no clip", "half noise", "wrong denominator", "seeded noise"}
    assert found["canary"]["control"]["mean_bits"] >= 0
    assert found["mechanism"]["claimed_epsilon"] > 0
    assert len(found["verdicts"]) == 6
    assert found["passed"] == all(found["verdicts"].values())
    assert any("planted fault" in line for line in lines)
    assert any("exposure with no protection" in line for line in summary_lines(found))


def test_only_what_was_attacked_is_judged(run):
    found = audit_run(run.path, AuditPlan(modes=("plain",), frames=10))
    assert found["modes"].keys() == {"plain"}
    assert list(found["verdicts"].values()) == [True]
    assert "canary" not in found
    assert write_report(run)["rounds"] == 0


def test_verdicts_fail_where_something_was_learnt():
    canary = {
        "control": {"mean_bits": 9.0}, "protected": {"mean_bits": 5.0}, "null_limit_bits": 3.0,
    }  # fmt: skip
    document = {
        "modes": {"plain": {"f1": 0.5}, "masked": {"auc": 0.7}},
        "canary": canary,
        "mechanism": {"refuted": True},
        "planted": {"no clip": {"refuted": False}},
    }
    assert list(verdicts(document).values()) == [False] * 6


def test_the_runs_own_noise_is_the_default():
    plan = AuditPlan().of_run(RunConfig())
    assert (plan.clip_norm, plan.noise_multiplier, plan.delta) == (2.0, 4.0, 1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"modes": ("loud",)}, "mode must be one of"),
        ({"frames": 31}, "frames must lie in"),
        ({"modes": ("plain",), "frames": 1}, "frames must lie in"),
        ({"clip_norm": -1.0}, "clip_norm must be >= 0"),
        ({"noise_multiplier": 50.0}, "noise_multiplier must lie"),
        ({"delta": 1.0}, "delta must lie"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        AuditPlan(**wrong)
