"""The FLARE job: what a site answers, what the server makes of it, and the whole of it in FLARE's simulator."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed: pip install 'kbdfl[flare]'")

from nvflare.apis.fl_constant import FLMetaKey
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

from kbdfl.device_sim.experiments import silos as experiment
from kbdfl.device_sim.experiments.study import Run, Study
from kbdfl.errors import ConfigError
from kbdfl.interop.flare.job import run_silos, silos_job, table
from kbdfl.interop.flare.server import figures
from kbdfl.interop.flare.silos import SITES, Beginning, Shared, Site, write_silos
from kbdfl.interop.flare.site import ALONE, JOINT, PART, WANTED, answer
from kbdfl.interop.learner import flat, named
from kbdfl.params import load_checkpoint
from kbdfl.rng import stream


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """240 users who say much of the same things."""
    random, words = (
        stream(1, "users"),
        ["the", "cat", "sat", "on", "a", "mat", "and", "she", "went", "home", "to", "him"],
    )
    lines = [
        json.dumps({"user": f"user{i}", "text": " ".join(random.choice(words, 8).tolist())})
        for i in range(240)
        for _ in range(4)
    ]
    path = tmp_path_factory.mktemp("flare") / "log.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def shared(log):
    return Shared(
        logs=str(log), preset="tiny", rounds=5, joint_rates=(0.03,), rates_alone=(0.01,), epochs_alone=0.5
    )


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory):
    path = tmp_path_factory.mktemp("organisations") / "eight"
    path.mkdir()
    write_silos(path, shared, words=1_000)
    return path


@pytest.fixture(scope="module")
def site(folder):
    return Site(folder, "organisation-1")


@pytest.fixture(scope="module")
def start(folder):
    return Beginning.read(folder).built(0.03).params


def sent(site, params, **meta):
    return FLModel(params=named(params, site.spec), meta=meta, current_round=2)


def test_a_site_answers_with_the_difference_that_it_learned(site, start):
    reply = answer(site, sent(site, start, **{WANTED: JOINT}), asked=False)
    learned = site.learn(start, round=2)
    assert reply.params_type == ParamsType.DIFF
    np.testing.assert_array_equal(flat(reply.params, site.spec), learned.delta)
    assert reply.meta[FLMetaKey.NUM_STEPS_CURRENT_ROUND] == learned.examples


def test_a_site_answers_with_a_model_of_its_own(site, start):
    reply = answer(site, sent(site, start, **{WANTED: ALONE}), asked=False)
    own = site.alone()
    np.testing.assert_array_equal(flat(reply.params, site.spec), own.params)
    assert reply.metrics == {"rate": 0.01, "recall_top1": own.recall_top1}


@pytest.mark.parametrize("part", ["validation", "held_out"])
def test_a_site_says_how_well_a_model_predicts(site, start, part):
    reply = answer(site, sent(site, start, **{PART: part}), asked=True)
    assert reply.params is None
    assert reply.metrics == site.ask(start, part)


def test_the_figures_are_the_experiments(folder):
    """Made-up recalls, reckoned with by both."""
    random, rows, runs = stream(3, "recalls"), {}, []
    ours = {site: experiment.alone(name) for site, name in SITES.items()}
    for name in (JOINT, *(f"{site} alone" for site in SITES)):
        by = {site: float(random.uniform(0.1, 0.2)) for site in SITES}
        top1 = float(np.mean(list(by.values())))
        rows[name] = {"recall_top1": top1, "recall_top3": 0.3, "rate": 0.01, "by_organisation": by}
        method = experiment.JOINT if name == JOINT else ours[name.removesuffix(" alone")]
        details = {SITES[site]: value for site, value in by.items()}
        runs.append(Run(method, "", 1, top1, 0.3, 0, 0.0, [], details))
    found, expected = figures(rows), experiment.figures(Study(runs=runs, tried=[]))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["best_single"] == max(row["recall_top1"] for name, row in rows.items() if name != JOINT)
    shown = table({"models": rows, "figures": found})
    assert f"| joint | 0.01 | {100 * rows[JOINT]['recall_top1']:.2f} | 30.00 |  |  |" in shown
    assert len(shown.splitlines()) == 2 + len(rows) + 1 + len(found)


def test_the_job_carries_no_code_of_ours(folder, shared, tmp_path):
    """Every site has kbdfl; what travels is how to start it."""
    silos_job(folder, shared).export_job(str(tmp_path))
    assert {path.name for path in tmp_path.rglob("*.py")} == {"client.py"}
    (server,) = tmp_path.rglob("config_fed_server.json")
    assert json.loads(server.read_text())["workflows"][0]["path"] == "kbdfl.interop.flare.server.Silos"


def test_a_path_that_flare_would_split_is_refused(tmp_path, shared):
    with pytest.raises(ConfigError, match="without spaces in its path"):
        run_silos(tmp_path / "the organisations", shared, words=1_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(900)
def test_the_simulator_runs_the_experiment_that_the_command_line_asks_for(tmp_path, log):
    folder = tmp_path / "organisations"
    options = ["--logs", log, "--preset", "tiny", "--rounds", "5", "--words", "1000", "--quick", "--json"]
    ended = subprocess.run(
        [sys.executable, "-m", "kbdfl", "interop", "flare", folder, *options],
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = json.loads(ended.stdout)
    written = json.loads((folder / "results.json").read_text())
    assert {name: said[name] for name in written} == written
    assert set(written["models"]) == {JOINT, *(f"{site} alone" for site in SITES)}
    built = Beginning.read(folder).built(0.03)
    for name, row in written["models"].items():
        params, spec, _ = load_checkpoint(folder / f"{name.replace(' ', '-')}.safetensors")
        assert spec == built.task.config.spec
        assert np.abs(params - built.params).max() > 1e-3
        for site in ("organisation-1", "organisation-8"):
            found = Site(folder, site).ask(params, "held_out")["recall_top1"]
            assert row["by_organisation"][site] == found
    again = subprocess.run(
        [sys.executable, "-m", "kbdfl", "interop", "flare", folder, *options[:2]],
        capture_output=True,
        text=True,
    )
    assert again.returncode == 2
    assert "there are organisations in" in again.stderr.strip().splitlines()[-1]
