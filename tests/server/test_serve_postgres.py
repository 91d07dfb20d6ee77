"""`kbdfl serve --database`: two processes on one task, a third that does not fit, and commands on a server's folder."""

import json
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from kbdfl.device_sim.agent import ServerClient
from kbdfl.identity import generate_key, public_key

PATIENCE_S = 90.0
TASK = ["--preset", "tiny", "--source", "personas", "--devices", "20", "--rounds", "5", "--cohort", "2"]


@pytest.fixture
def kbdfl(tmp_path):
    """Run a command, or start a server whose address is given once it answers. All are ended by their id."""
    processes = []

    def run(*arguments):
        command = [sys.executable, "-m", "kbdfl", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    def serve(name, *arguments):
        port_file = tmp_path / f"{name}-{len(processes)}.port"
        command = [sys.executable, "-m", "kbdfl", "serve", "--folder", name, "--port", "0", "--no-evaluate"]
        process = subprocess.Popen(
            [*command, "--port-file", str(port_file), *arguments],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        until = time.monotonic() + PATIENCE_S
        while not port_file.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        return process, f"http://127.0.0.1:{port_file.read_text().strip()}" if port_file.exists() else ""

    yield run, serve
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def status(url):
    with urllib.request.urlopen(f"{url}/v1/status", timeout=PATIENCE_S) as answer:
        return json.load(answer)


def test_two_servers_share_a_task_and_a_third_that_does_not_fit_is_told_so(kbdfl, postgres, tmp_path):
    run, serve = kbdfl
    one, first = serve("one", "--database", postgres, *TASK)
    _, second = serve("two", "--database", postgres, *TASK)
    key = generate_key()
    ServerClient(first, connections=1).enrol(public_key(key))
    answer = json.loads(ServerClient(second, connections=1).signed(key, "POST", "/v1/check-in"))
    assert (answer["status"], answer["round"]) == ("assigned", 0)
    for url in (first, second):
        assert status(url)["phones"] == {
            "training": 1, "reported": 0, "waiting": 0, "dropped": 0, "enrolled": 1,
        }  # fmt: skip
    other, _ = serve("three", "--database", postgres, *TASK[:-1], "3")
    assert other.wait(PATIENCE_S) == 2
    (line,) = other.stderr.read().splitlines()
    assert "kbdfl_default is a task of another configuration" in line
    one.send_signal(signal.SIGTERM)
    assert one.wait(PATIENCE_S) == 0
    _, first = serve("one")  # the folder is enough, and the database knows the rest
    assert status(first)["phones"]["training"] == 1

    tokens = json.loads(run("admin", "tokens", "two", "--count", "3", "--json").stdout)["tokens"]
    assert len(tokens) == 3
    log = run("audit-log", "verify", "one", "--json")
    assert json.loads(log.stdout)["entries"] >= 2
    copied = run("backup", "one", "copy.tar.gz")
    assert copied.returncode == 2
    assert "pg_dump" in copied.stderr
    assert copied.stderr.count("\n") == 1


def test_two_servers_share_two_tasks(kbdfl, postgres, tmp_path):
    run, serve = kbdfl
    of_all = (
        '[run]\npreset = "tiny"\nsource = "personas"\ndevices = 6\n[round]\ncohort = 2\ndeadline_s = 5.0\n'
    )
    named = []
    for name, rounds in (("en", 3), ("de", 2)):
        (tmp_path / f"{name}.toml").write_text(f"{of_all}rounds = {rounds}\n")
        named += ["--task", f"{name}={name}.toml"]
    _, first = serve("one", "--database", postgres, *named)
    second_process, second = serve("two", "--database", postgres, *named)
    # Each population's phones know one of the servers; what they did is known to both.
    for population, server in (("en", first), ("de", second)):
        done = run(
            "fleet", "--server", server, "--devices", "6", "--population", population,
            "--name", population, "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["committed"] + told["abandoned"], told["committed"] > 0) == (
            {"en": 3, "de": 2}[population],
            True,
        )
    tasks = [ServerClient(url).get_json("/v1/tasks")["tasks"] for url in (first, second)]
    assert [{task["name"]: (task["round"], task["state"]) for task in each} for each in tasks] == [
        {"en": (3, "finished"), "de": (2, "finished")}
    ] * 2
    for name, rounds in (("en", 3), ("de", 2)):
        rows = [ServerClient(url).get_json(f"/v1/tasks/{name}/metrics")["rounds"] for url in (first, second)]
        assert [row["round"] for row in rows[0]] == list(range(rounds))
        assert rows[0] == rows[1]
    second_process.send_signal(signal.SIGTERM)
    assert second_process.wait(PATIENCE_S) == 0


def test_a_database_that_cannot_be_is_one_line(kbdfl, tmp_path):
    pytest.importorskip("psycopg")
    run, _ = kbdfl
    done = run(
        "serve", "--folder", "run", "--port", "0", "--no-evaluate",
        "--database", f"postgresql://kbdfl@/x?host={tmp_path}", *TASK,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "PostgreSQL: " in line
    assert not (tmp_path / "run" / "postgres.json").exists()
