"""The Flower app: in this process, with Flower's own strategies, beside our simulation; and as `flwr run` starts it."""

import json
import os
import socket
import subprocess
import sys
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import urllib3

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'kbdfl[flower]'")

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from kbdfl.device_sim.population import Population, held_out_sentences, open_logs
from kbdfl.device_sim.simulate import Simulation
from kbdfl.errors import ConfigError, DataError
from kbdfl.export.bundle import load_bundle
from kbdfl.export.run import read_run
from kbdfl.interop.flower import ENVIRONMENT, OUT, client_app, command, plan_of, server_app, write_app
from kbdfl.interop.learner import Plan
from kbdfl.metrics import evaluation_set
from kbdfl.run import RunFolder, build_task

PHONES = 6
BIN = Path(sys.executable).parent  # where the commands of this environment are
pytestmark = pytest.mark.filterwarnings("ignore")  # what Flower and Ray warn of is theirs


class Here(Grid):
    """Supernodes in this process: what Flower's engines do, without them."""

    def __init__(self, devices, run_config):
        self.devices, self.run_config = devices, run_config

    def set_run(self, run_id):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, *arguments, **more):
        raise NotImplementedError

    def push_messages(self, messages):
        raise NotImplementedError

    def pull_messages(self, message_ids):
        raise NotImplementedError

    def get_node_ids(self):
        return range(1, self.devices + 1)

    def send_and_receive(self, messages, *, timeout=None):
        return [self._answered(message) for message in messages]

    def _answered(self, message):
        number = message.metadata.dst_node_id - 1
        return client_app(message, context(self.run_config, {"partition-id": number}))


@pytest.fixture(autouse=True)
def one_task(monkeypatch):
    """What Flower's engines tell a process before an app runs in it, since Flower 1.3x."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError:
        return
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def context(run_config, node_config):
    return Context(run_id=1, node_id=0, node_config=node_config, state=RecordDict(), run_config=run_config)


def config_of(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


def play(folder, plan, *, devices=None):
    """Run both apps here; the run's folder."""
    write_app(folder, plan, out=folder / "run")
    config = config_of(folder)
    server_app(Here(devices or plan.devices, config), context(config, {}))
    return folder / "run"


def plan(**more):
    return Plan(
        **{"preset": "tiny", "devices": PHONES, "cohort": PHONES, "rounds": 3, "evaluate_words": 2_000} | more
    )


# Flower averages models where we average deltas, so a bias of -20 is rounded to 1e-6; FedAdam divides that by an
# epsilon of 1e-4 and multiplies it by its rate.
@pytest.mark.parametrize(("server", "agreed"), [("fedavg", 1e-5), ("fedadam", 5e-4)])
def test_flowers_rounds_end_in_our_simulations_model(tmp_path, server, agreed):
    """With every phone in every round there is nothing that Flower draws, and its sums are ours to rounding."""
    ours = plan(server=server, rounds=4)
    config = ours.config()
    source = open_logs("personas", seed=1, devices=PHONES)
    built = build_task(config)
    words = evaluation_set(held_out_sentences(source, built.vocabulary, words=2_000, seed=1))
    simulation = Simulation(config, built, Population(source, devices=PHONES), workers=1, held_out=words)
    rows = []
    simulation.rounds(rows.append)

    theirs = read_run(play(tmp_path, ours))
    moved = simulation.coordinator.published - built.params
    assert np.abs(moved).max() > 100 * agreed
    np.testing.assert_allclose(theirs.params, simulation.coordinator.published, rtol=0, atol=agreed)
    off = np.linalg.norm(theirs.params - simulation.coordinator.published) / np.linalg.norm(moved)
    assert off < 1e-4
    noted = RunFolder(tmp_path / "run").rows()
    for name in ("round", "status", "version", "reports", "dropped", "tokens"):
        assert [row[name] for row in noted] == [row[name] for row in rows]
    assert [row["train_loss"] for row in noted] == pytest.approx(
        [row["train_loss"] for row in rows], rel=1e-5
    )
    assert noted[-1]["recall_top1"] == pytest.approx(rows[-1]["recall_top1"], abs=2e-3)


def test_a_rate_of_the_server_stretches_flowers_mean(tmp_path):
    one, half = (
        read_run(play(tmp_path / name, plan(server="fedavg", rounds=1, server_rate=rate))).params
        for name, rate in (("one", 1.0), ("half", 0.5))
    )
    start = build_task(plan().config()).params
    np.testing.assert_allclose(half - start, (one - start) / 2, rtol=0, atol=1e-6)


def test_a_run_leaves_what_every_run_leaves(tmp_path):
    run = play(tmp_path, plan(rounds=2))
    bundle = load_bundle(run / "model")
    assert bundle.manifest["rounds"] == 2
    assert bundle.manifest["recall"]["version"] == 2
    assert "plain (unmasked) updates" in bundle.manifest["privacy"]
    assert sorted(entry.name for entry in run.iterdir()) == [
        "checkpoints", "config.toml", "metrics.jsonl", "model", "report.html", "tokenizer.json",
    ]  # fmt: skip
    assert (run / "config.toml").read_text() == plan(rounds=2).config().to_toml()
    with pytest.raises(ConfigError, match="there is a run at"):
        server_app(Here(PHONES, config_of(tmp_path)), context(config_of(tmp_path), {}))


def test_phones_come_from_a_log_of_ones_own_and_one_without_a_word_takes_no_part(tmp_path):
    log = tmp_path / "log.jsonl"
    typed = [{"user": f"user {number}", "text": "the cat sat on the mat"} for number in range(30)]
    typed[0]["text"] = "qqqzzz"
    log.write_text("".join(json.dumps(one) + "\n" for one in typed))
    users = Population(open_logs(str(log), seed=1, devices=0)).users
    own = plan(source=str(log), devices=len(users), cohort=len(users), rounds=1)
    row = RunFolder(play(tmp_path / "app", own)).rows()[0]
    assert "user 0" in users
    assert (row["reports"], row["dropped"]) == (len(users) - 1, 1)


def test_without_any_phone_there_is_no_model(tmp_path):
    log = tmp_path / "log.jsonl"
    typed = [{"user": f"user {number}", "text": "qqqzzz"} for number in range(30)]
    log.write_text("".join(json.dumps(one) + "\n" for one in typed))
    own = plan(source=str(log), devices=5, cohort=5, rounds=1)
    with pytest.raises(DataError, match="no phone took part"):
        play(tmp_path / "app", own)


def test_another_number_of_supernodes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"devices must be the number of supernodes, 7 .*got 6"):
        play(tmp_path, plan(), devices=7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"server": "fedyogi"}, "server must be one of fedavg, fedadam, got 'fedyogi'"),
        ({"cohort": 7}, r"cohort must lie in \[1, devices = 6\], got 7"),
        ({"rounds": "many"}, "rounds must be int, got 'many'"),
        ({"temperature": 1}, "has no field 'temperature'"),
        ({"server-rate": -1.0}, "learning_rate must be > 0"),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(tmp_path, change, words):
    write_app(tmp_path, plan(), out=tmp_path / "run")
    with pytest.raises(ConfigError, match=words):
        plan_of(config_of(tmp_path) | change)


def test_an_app_says_its_plan_and_is_not_written_over(tmp_path):
    write_app(tmp_path, plan(seed=7), out=tmp_path / "run")
    assert plan_of(config_of(tmp_path)) == plan(seed=7)
    assert config_of(tmp_path)[OUT] == str(tmp_path / "run")
    with pytest.raises(ConfigError, match="choose another folder"):
        write_app(tmp_path, plan(), out=tmp_path / "run")


def free_ports(count):
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(one.getsockname()[1]) for one in taken]
    for one in taken:
        one.close()
    return ports


@contextmanager
def superlink(environment, http, control):
    """The SuperLink that `flwr run` would start, with its arguments; but it gives one 15 seconds to be there."""
    arguments = f"--insecure --simulation --isolation subprocess --control-api-address 127.0.0.1:{control}"
    process = subprocess.Popen(
        [BIN / "flower-superlink", *arguments.split(), "--host", "127.0.0.1", "--port", http],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + 200
        while not answers(f"http://127.0.0.1:{http}/health"):
            assert process.poll() is None, "the SuperLink ended"
            assert time.monotonic() < until, "the SuperLink does not answer"
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(address):
    try:
        return urllib3.request("GET", address, retries=False, timeout=2).status == 200
    except urllib3.exceptions.HTTPError:
        return False


@pytest.mark.timeout(900)
def test_flwr_run_starts_the_app_that_the_command_line_writes(tmp_path):
    """The documented commands, in a shell, with the simulation engine on Ray."""
    pytest.importorskip(
        "ray", reason="Flower's simulation engine is not installed: pip install 'kbdfl[flower]'"
    )
    folder = tmp_path / "a keyboard"
    http, control = free_ports(2)
    environment = os.environ | ENVIRONMENT
    environment |= {
        "FLWR_HOME": str(tmp_path / "home"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": http,
        "FLWR_LOCAL_CONTROL_API_PORT": control,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    options = ["--preset", "tiny", "--devices", "8", "--cohort", "3", "--rounds", "2"]
    write = [BIN / "kbdfl", "interop", "flower", str(folder), *options]
    said = subprocess.run(write, env=environment, capture_output=True, text=True, check=True).stdout
    commands = said.partition("\n")[2]
    assert commands.strip() == command(folder, Plan(preset="tiny", devices=8, cohort=3, rounds=2))
    with superlink(environment, http, control):
        run = ["bash", "-ec", commands]
        ended = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=600)
    log = ended.stdout + ended.stderr
    assert ended.returncode == 0, log
    assert f"run and bundle in {folder / 'run'}" in log
    rows = RunFolder(folder / "run").rows()
    assert [row["reports"] for row in rows] == [3, 3], log
    assert load_bundle(folder / "run" / "model").manifest["rounds"] == 2
