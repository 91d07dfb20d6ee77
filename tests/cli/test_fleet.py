"""`kbdfl fleet` against `kbdfl serve`, and against addresses where none is."""

import json
import subprocess
import sys
import time

import pytest

from kbdfl.device_sim import agent
from kbdfl.export.bundle import load_bundle
from kbdfl.run import RunConfig, RunFolder

PATIENCE_S = 60.0
SAME = ["--source", "personas", "--devices", "40"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A `kbdfl serve` of its own process; gives its address."""
    folder = tmp_path_factory.mktemp("serve")
    options = [
        "--preset",
        "tiny",
        *SAME,
        "--rounds",
        "4",
        "--cohort",
        "5",
        "--over-selection",
        "1",
        "--port",
        "0",
    ]
    command = [sys.executable, "-m", "kbdfl", "serve", *options, "--folder", str(folder / "served")]
    process = subprocess.Popen(
        [*command, "--port-file", str(folder / "port"), "--evaluate-every", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + PATIENCE_S
    while not (folder / "port").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (folder / "port").exists(), process.communicate()
    yield f"http://127.0.0.1:{(folder / 'port').read_text().strip()}"
    process.terminate()
    process.communicate(timeout=PATIENCE_S)


def test_a_fleet_plays_the_task_and_brings_the_run_home(server, kbdfl, tmp_path):
    code, out, err = kbdfl("fleet", "--server", server, *SAME, "--runs", tmp_path, "--name", "home", "--json")
    assert (code, err) == (0, "")
    printed = json.loads(out)
    folder = RunFolder(tmp_path / "home")
    assert printed["run"] == str(folder.path)
    assert (printed["devices"], printed["committed"], printed["reports"]) == (40, 4, 20)
    assert printed["outcomes"]["reported"] == 20
    rows = folder.rows()
    assert printed["uplink_bytes"] == sum(row["uplink_bytes"] for row in rows)
    assert printed["downlink_bytes"] == sum(row["downlink_bytes"] for row in rows)
    assert rows[-1]["recall_top1"] is not None
    assert RunConfig.load(folder.path / "config.toml").rule.cohort == 5
    assert load_bundle(folder.path / "model").manifest["version"] == 4
    assert (folder.path / "report.html").stat().st_size > 10_000
    # a second fleet comes too late to train and still brings the run home
    code, out, _ = kbdfl("fleet", "--server", server, *SAME, "--runs", tmp_path, "--json")
    assert code == 0
    late = json.loads(out)
    assert late["outcomes"].keys() == {"finished"}
    assert (late["uplink_bytes"], late["reports"]) == (0, 20)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--dropout", "1"], "dropout must lie in [0, 1), got 1.0"),
        (["--workers", "0"], "workers must be >= 1, got 0"),
        (["--devices", "-1"], "devices must be >= 0, got -1"),
        (["--seed", "-1"], "seed"),
        (["--server", "localhost:8000"], "must begin with http:// or https://"),
        (["--server", "http://[::1"], "no answer from"),
    ],
)
def test_impossible_options_are_one_line_and_leave_nothing(refused, tmp_path, monkeypatch, options, reason):
    monkeypatch.setattr(agent, "_RETRY", agent._RETRY.new(total=0))
    runs = tmp_path / "runs"
    line = refused("fleet", "--server", "http://127.0.0.1:9", "--devices", 5, "--runs", runs, *options)
    assert reason in line
    assert not runs.exists()


def test_no_server_there_is_one_line(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(agent, "_RETRY", agent._RETRY.new(total=0))
    line = refused("fleet", "--server", "http://127.0.0.1:9", "--runs", tmp_path / "runs")
    assert "no answer from http://127.0.0.1:9" in line
    assert not (tmp_path / "runs").exists()


def test_phones_of_a_population_find_its_tasks(server, kbdfl, refused, tmp_path):
    to = ("fleet", "--server", server, *SAME, "--runs", tmp_path)
    line = refused(*to, "--population", "nobody")
    assert f"population must be one that {server} serves (default), got nobody" in line
    assert not list(tmp_path.iterdir())
    code, out, _ = kbdfl(*to, "--population", "default", "--json")
    assert code == 0
    assert json.loads(out)["committed"] == 4


def test_phones_that_are_to_be_summed_unseen_find_no_task_where_none_is(server, refused, tmp_path):
    line = refused("fleet", "--server", server, *SAME, "--runs", tmp_path, "--require-secure")
    assert "no task there sums updates unseen" in line
    assert not list(tmp_path.iterdir())


def test_bad_logs_and_names_are_one_line(refused, server, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "taken").mkdir()
    to = ("fleet", "--server", server, "--runs", tmp_path)
    assert "is empty" in refused(*to, "--logs", tmp_path / "empty.jsonl")
    assert "no typing log" in refused(*to, "--logs", tmp_path / "none.jsonl")
    assert "a source must be" in refused(*to, "--source", "nowhere")
    assert "choose another --name" in refused(*to, *SAME, "--name", "taken")
    assert "devices must lie in" in refused(*to, "--devices", 10**12)
