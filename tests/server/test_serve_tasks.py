"""`kbdfl serve` with several tasks: two fleets learn on one process, which is killed and goes on with both."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
import tomllib

import pytest

from kbdfl.cli.main import main
from kbdfl.device_sim import agent
from kbdfl.device_sim.agent import ServerClient
from kbdfl.device_sim.fleet import Fleet
from kbdfl.device_sim.population import Population, open_logs
from kbdfl.errors import ServerUnavailable
from kbdfl.run import RunConfig, RunFolder
from kbdfl.text import Vocabulary

PATIENCE_S = 90.0
RUN = '[run]\npreset = "tiny"\nsource = "personas"\ndevices = 20\n'
EN = RUN + "seed = 1\n[round]\ncohort = 4\ndeadline_s = 5.0\nrounds = 25\n"
DE = (
    RUN + 'seed = 7\nvocabulary = "training-users"\n[client]\nscaffold = 1\n'
    '[server]\nrule = "fedavg"\n[round]\ncohort = 3\ndeadline_s = 5.0\nrounds = 20\n'
)
SERVER = """
[tasks.en]
config = "tasks/english.toml"
[tasks.de-2]
config = "german.toml"
population = "de"
state = "paused"
[tasks.en-names]
config = "german.toml"
population = "en"
[serve]
no_evaluate = true
"""


@pytest.fixture
def files(tmp_path):
    """A file that names two tasks, in folders of their own."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "english.toml").write_text(EN)
    (tmp_path / "german.toml").write_text(DE)
    (tmp_path / "server.toml").write_text(SERVER)
    return tmp_path / "server.toml"


@pytest.fixture
def serve(tmp_path):
    """Start a server process on a free port; gives it and its address. All are ended by their id."""
    processes = []

    def start(*arguments):
        port_file = tmp_path / f"port-{len(processes)}"
        command = [
            sys.executable,
            "-m",
            "kbdfl",
            "serve",
            "--folder",
            str(tmp_path / "served"),
            "--port",
            "0",
        ]
        process = subprocess.Popen(
            [*command, "--port-file", str(port_file), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        deadline = time.monotonic() + PATIENCE_S
        while not port_file.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert port_file.exists(), process.communicate()[1]
        return process, f"http://127.0.0.1:{port_file.read_text().strip()}"

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def kbdfl(capsys):
    def run(*arguments):
        with contextlib.suppress(SystemExit):
            main([str(argument) for argument in arguments])
        return capsys.readouterr()

    return run


def rounds_of(url: str) -> dict[str, int]:
    return {task["name"]: task["round"] for task in ServerClient(url).get_json("/v1/tasks")["tasks"]}


def fleet(url: str, population: str) -> Fleet:
    users = Population(open_logs("personas", seed=1, devices=20), devices=20)
    phones = Fleet(ServerClient(url), users, workers=1, seed=1, belong_to=population)
    phones.enrol()
    return phones


def test_two_fleets_learn_on_one_server_that_is_killed_and_goes_on_with_both(
    serve, files, kbdfl, tmp_path, monkeypatch
):
    monkeypatch.setattr(agent, "_RETRY", agent._RETRY.new(total=1))
    process, url = serve("--config", files)
    token, served = tmp_path / "token", tmp_path / "served"
    token.write_text(kbdfl("admin", "token", served).out)
    of_de = ("--server", url, "--token-file", token, "--task", "de-2")
    assert kbdfl("admin", "task", *of_de).out == (
        "de-2 is paused: round 0 of 20, version 0; it can go back to none\n"
    )
    both = [fleet(url, "en"), fleet(url, "de")]
    assert both[1].phones[0].cycle(workspace=None).outcome == "wait"
    assert "de-2 is open" in kbdfl("admin", "start", *of_de).out

    def play(phones):
        with contextlib.suppress(ServerUnavailable):  # it is killed
            phones.run()

    players = [threading.Thread(target=play, args=(phones,)) for phones in both]
    for player in players:
        player.start()
    deadline = time.monotonic() + PATIENCE_S
    while min((before := rounds_of(url)).values()) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    for player in players:
        player.join()
    assert 3 <= before["en"] < 25
    assert 3 <= before["de-2"] < 20

    process, url = serve()  # the folder knows the rest
    after = rounds_of(url)
    assert all(after[name] >= before[name] for name in before)
    runs = tmp_path / "runs"
    for population in ("en", "de"):
        command = ("fleet", "--server", url, "--devices", 20, "--population", population, "--runs", runs)
        printed = json.loads(kbdfl(*command, "--name", population, "--json").out)
        assert printed["outcomes"]["reported"] > 0
        if population == "en":  # has two tasks, each of which brings a run home
            assert printed["tasks"].keys() == {"en", "en-names"}
            assert printed["tasks"]["en-names"]["run"] == str(runs / "en-en-names")
            assert printed["tasks"]["en-names"]["committed"] >= 19
            printed |= printed["tasks"]["en"]
        # Phones that the kill took out of a round may have left it without reports.
        assert printed["committed"] >= {"en": 25, "de": 20}[population] - 1
        assert printed["committed"] + printed["abandoned"] == {"en": 25, "de": 20}[population]
    homes = {"en": runs / "en-en", "de": runs / "de"}
    rows = {name: RunFolder(home).rows() for name, home in homes.items()}
    assert [row["round"] for row in rows["en"]] == list(range(25))
    for name in ("en", "de"):  # a round's few phones differ much
        loss = [row["train_loss"] for row in rows[name] if row["status"] == "committed"]
        assert sum(loss[-5:]) < sum(loss[:5]), loss
    assert RunConfig.load(runs / "de" / "config.toml").algorithm.client.scaffold == 1
    words = [Vocabulary.load(home / "tokenizer.json").sha256 for home in homes.values()]
    assert words[0] != words[1]
    shown = kbdfl("admin", "rounds", "--server", url, *of_de[2:]).out.splitlines()
    assert len(shown) == 20
    assert shown[0].startswith("round committed    19: 3 reports")
    assert kbdfl("audit-log", "verify", served).out.split()[1:4] == ["entries", "are", "whole;"]

    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == [
        *("dashboard", "keyboard", "admin", "en", "de-2", "en-names")
    ]
    assert {path.name for path in served.iterdir()} >= {
        "tasks",
        "config.toml",
        "server.sqlite3",
        "admin.json",
    }
    assert not (served / "checkpoints").exists()
    for name, count in (("en", 25), ("de-2", 20)):
        assert len((served / "tasks" / name / "metrics.jsonl").read_text().splitlines()) == count
    kept = tomllib.loads((served / "config.toml").read_text())["tasks"]
    assert kept["de-2"] == {"config": "tasks/de-2/config.toml", "population": "de", "state": "paused"}


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        ("tasks = 3", [], "tasks must be tables, one a task, got 3"),
        ("[tasks]\n", [], "tasks must be tables, one a task"),
        ("[tasks]\nen = 3", [], "tasks.en must be a table, got 3"),
        ("[tasks.en]\n", [], "tasks.en must name its file as config"),
        ("[tasks.en]\nconfig = 3", [], "tasks.en.config must be str, got 3"),
        ("[tasks.en]\nconfig = 'none.toml'", [], "no configuration file at"),
        (
            "[tasks.en]\nconfig = 'german.toml'\nphones = 'en'",
            [],
            "tasks.en has no field 'phones'; its fields are",
        ),
        (
            "[tasks.en]\nconfig = 'german.toml'\nstate = 'stopped'",
            [],
            "tasks.en.state must be open or paused",
        ),
        (
            "[tasks.en]\nconfig = 'german.toml'\npopulation = 'E'",
            [],
            "a population must be called by 1 to 40",
        ),
        ("[tasks.'../x']\nconfig = 'german.toml'", [], "a task must be called by 1 to 40 lowercase letters"),
        (
            "[run]\nseed = 3\n[tasks.en]\nconfig = 'german.toml'",
            [],
            "must stand in its own file, got the table 'run'",
        ),
        (
            "[tasks.en]\nconfig = 'german.toml'",
            ["--cohort", "3"],
            "--cohort must not come with several tasks",
        ),
        (
            "[tasks.en]\nconfig = 'german.toml'",
            ["--task", "a=b"],
            "--task must not come with a file that has tasks",
        ),
        ("", ["--task", "a"], "--task must be NAME=CONFIG, got 'a'"),
        ("", ["--task", "a=x.toml", "--task", "a=y.toml"], "tasks must have different names, got 'a' twice"),
        ("", ["--task", "a/b=x.toml"], "a task must be called by 1 to 40 lowercase letters"),
    ],
)
def test_tasks_that_cannot_be_end_in_one_line(files, kbdfl, tmp_path, text, options, reason):
    files.write_text(text)
    err = kbdfl("serve", "--config", files, "--folder", tmp_path / "new", *options).err
    assert reason in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_folder_of_one_kind_is_not_served_as_the_other(files, kbdfl, tmp_path):
    one, several = tmp_path / "one", tmp_path / "several"
    one.mkdir()
    (one / "config.toml").write_text(EN)
    assert "holds one task, which has no name" in kbdfl("serve", "--config", files, "--folder", one).err
    several.mkdir()
    (several / "config.toml").write_text("[tasks.en]\nconfig = 'tasks/en/config.toml'\n")
    assert "holds several tasks" in kbdfl("serve", "--folder", several, "--preset", "tiny").err
    (several / "tasks" / "en").mkdir(parents=True)
    (several / "tasks" / "en" / "config.toml").write_text(DE)
    err = kbdfl("serve", "--task", f"en={files.parent}/tasks/english.toml", "--folder", several).err
    assert "en holds a run with another configuration" in err


def test_what_is_asked_of_a_server_is_refused_in_one_line(kbdfl, tmp_path):
    (tmp_path / "token").write_text("a token of some length")
    of = ("--server", "http://127.0.0.1:9", "--token-file", tmp_path / "token")
    err = kbdfl("admin", "stop", *of, "--task", "../en").err
    assert "a task must be called by" in err
    assert err.count("\n") == 1
