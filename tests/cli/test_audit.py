"""`kbdfl audit`: what it leaves in the run's folder, what it prints, and what it refuses."""

import json

import pytest

from kbdfl.run import RunConfig, RunFolder, Settings, build_task, checkpoint_facts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has not learnt anything yet, on generated text."""
    config = RunConfig(Settings(preset="tiny", source="personas", devices=200))
    built = build_task(config)
    folder = RunFolder.create(tmp_path_factory.mktemp("runs"), "young", default="x")
    folder.write_config(config.to_toml())
    folder.save(built.params, built, checkpoint_facts(config, built, round=0, version=0))
    return folder.path


def test_it_attacks_a_run_and_adds_to_its_report(kbdfl, run):
    arguments = (
        "audit",
        run,
        "--mode",
        "plain",
        "--frames",
        12,
        "--sentence",
        "call me after work",
        "--json",
    )
    code, out, err = kbdfl(*arguments)
    found = json.loads(out)
    assert code == 0
    assert found["passed"] is True
    assert found["modes"]["plain"]["f1"] > 0.9
    assert found["example"] == {"sentence": "call me after work", "known": ["call", "me", "after", "work"]}
    assert found["modes"]["plain"]["example"]["right"] == ["call", "me", "after", "work"]
    assert json.loads((run / "audit.json").read_text()) == found
    assert "<mark>work</mark>" in (run / "report.html").read_text()
    assert "phones trained on text" in err
    assert kbdfl(*arguments)[1] == out


def test_it_prints_a_table_and_ends_in_1_where_an_attack_failed(kbdfl, run, monkeypatch):
    monkeypatch.setattr("kbdfl.device_sim.attacks.whole.LEAST_F1", 1.1)
    code, out, _ = kbdfl("audit", run, "--mode", "plain", "--frames", 12)
    assert code == 1
    assert out.splitlines()[0].split() == ["precision", "recall", "F1", "AUC"]
    assert out.rstrip().splitlines()[-1].startswith("NO   plain frames")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mode", "loud"), "loud"),
        (("--frames", 8), "frames must lie in [32, 1000], got 8"),
        (("--noise-multiplier", -1), "noise_multiplier must lie in"),
        (("--mode", "plain", "--frames", 900), "frames must be <= "),
        (("--mode", "plain", "--sentence", "xyzzyx"), "the model must know a word of the example"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(refused, run, arguments, message):
    assert message in refused("audit", run, *arguments)


def test_a_folder_that_is_no_run_is_refused(refused, tmp_path):
    assert "there is no run at" in refused("audit", tmp_path)
