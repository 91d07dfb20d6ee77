"""`kbdfl serve` as a process: its lines, its port file, a kill, and a restart."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from itertools import pairwise

import pytest

from kbdfl.run import RunFolder
from kbdfl.tracking.rows import scalars, step_of
from tests.kbdfl.test_tracking import Mlflow, Tensorboard
from tests.server.test_connections import certified

SMALL = ["--preset", "tiny", "--source", "personas", "--devices", "20", "--rounds", "5", "--cohort", "2"]
PATIENCE_S = 60.0


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
            [*command, "--port-file", str(port_file), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        deadline = time.monotonic() + PATIENCE_S
        while not port_file.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return process, f"http://127.0.0.1:{port_file.read_text().strip()}" if port_file.exists() else ""

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def status(url: str) -> dict:
    with urllib.request.urlopen(f"{url}/v1/status", timeout=PATIENCE_S) as answer:
        return json.load(answer)


def test_it_serves_ends_on_a_signal_and_resumes_after_a_kill(serve, tmp_path):
    process, url = serve(*SMALL, "--no-evaluate")
    assert url, process.communicate()[1]
    assert status(url)["rounds"] == 5
    process.kill()
    process.communicate()

    process, url = serve()  # the folder knows the rest
    assert url, process.communicate()[1]
    assert status(url)["rounds"] == 5
    with urllib.request.urlopen(f"{url}/v1/config", timeout=PATIENCE_S) as answer:
        assert b'preset = "tiny"' in answer.read()
    other = subprocess.run(
        [sys.executable, "-m", "kbdfl", "serve", "--folder", str(tmp_path / "served"), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (other.returncode, len(other.stderr.splitlines())) == (2, 1)
    assert "already being served" in other.stderr

    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert out.splitlines() == [f"dashboard  {url}/", f"keyboard   {url}/keyboard"]
    assert err == ""

    refused = subprocess.run(
        [sys.executable, "-m", "kbdfl", "serve", "--folder", str(tmp_path / "served"), "--rounds", "9"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert refused.returncode == 2
    assert "another configuration" in refused.stderr


def test_a_port_in_use_ends_in_one_line_and_leaves_no_folder(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = subprocess.run(
            [
                sys.executable,
                "-m",
                "kbdfl",
                "serve",
                "--port",
                str(port),
                "--folder",
                str(tmp_path / "new"),
                *SMALL,
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=os.environ,
        )
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.strip().endswith(f"port {port} on 127.0.0.1 is in use; choose another with --port")
    assert not (tmp_path / "new").exists()


def test_a_guarded_server_lets_in_a_fleet_with_tokens_and_nobody_else(serve, tmp_path):
    folder, tokens, secret = tmp_path / "served", tmp_path / "tokens", tmp_path / "secret"
    folder.mkdir()
    secret.write_text("the operator's token\n")

    def kbdfl(*arguments):
        command = [sys.executable, "-m", "kbdfl", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)

    tokens.write_text(kbdfl("admin", "tokens", folder, "--count", 20).stdout)
    guarded = ["--enrolment", "token", "--admin-token-file", str(secret)]
    process, url = serve(*SMALL, "--no-evaluate", *guarded)
    assert url, process.communicate()[1]
    fleet = ["fleet", "--server", url, "--devices", 20, "--runs", tmp_path / "runs"]
    without = kbdfl(*fleet)
    assert without.returncode == 2
    assert "an enrolment token of 32 hex digits is needed here" in without.stderr
    few = tmp_path / "few"
    few.write_text("0" * 32)
    assert "need as many enrolment tokens, got 1" in kbdfl(*fleet, "--tokens-file", few).stderr
    played = kbdfl(*fleet, "--tokens-file", tokens, "--json")
    assert played.returncode == 0, played.stderr
    assert status(url)["totals"]["committed"] == 5

    request = urllib.request.Request(
        f"{url}/v1/admin/rounds", headers={"Authorization": "Bearer the operator's token"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert [row["round"] for row in json.load(answer)["rounds"]] == [4, 3, 2, 1, 0]
    whole = kbdfl("audit-log", "verify", folder)
    assert whole.stdout.startswith("11 entries are whole"), whole.stderr
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert f"admin      {url}/admin" in out.splitlines()


def test_a_fleet_learns_over_tls(serve, tmp_path):
    certificate, key = certified(tmp_path / "tls")
    process, url = serve(
        *SMALL, "--no-evaluate", "--tls-certificate", str(certificate), "--tls-key", str(key)
    )
    assert url, process.communicate()[1]
    secure = url.replace("http://127.0.0.1", "https://localhost")
    command = [sys.executable, "-m", "kbdfl", "fleet", "--server", secure, "--devices", "20"]
    command += ["--runs", str(tmp_path / "runs"), "--json"]

    def fleet(**environment):
        environment = os.environ | environment
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment)

    played = fleet(SSL_CERT_FILE=str(certificate))
    assert played.returncode == 0, played.stderr
    assert json.loads(played.stdout)["reports"] == 10
    stranger = fleet()
    assert stranger.returncode == 2
    assert stranger.stderr.count("\n") == 1
    assert "certificate" in stranger.stderr
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert "https://127.0.0.1" in out


def test_one_file_says_which_task_is_served_and_how(serve, tmp_path):
    file = tmp_path / "server.toml"
    file.write_text(
        '[run]\npreset = "tiny"\nsource = "personas"\ndevices = 20\n[round]\nrounds = 4\ncohort = 2\n'
        '[serve]\nlog_level = "info"\nno_evaluate = true\nport = 1\n'
    )
    process, url = serve("--config", str(file))  # the port that is given here goes before the file's
    assert url, process.communicate()[1]
    assert status(url)["rounds"] == 4
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "GET run_api.status 200" in err
    process, url = serve("--config", str(file))  # the folder's own file has the task alone
    assert status(url)["rounds"] == 4
    assert "[serve]" not in (tmp_path / "served" / "config.toml").read_text()


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("serve = 3", "serve must be a table, got 3"),
        ("[serve]\nthread = 3", "serve has no field 'thread'; its fields are folder, host, port"),
        ("[serve]\npreset = 'tiny'", "serve has no field 'preset'"),
        ("[serve]\nthreads = 400", "400 is not in the range 1<=x<=64"),
        ("[serve]\nport = 'x'", "'x' is not a valid integer"),
    ],
)
def test_a_table_that_no_server_can_have_ends_in_one_line(table, reason, tmp_path):
    file = tmp_path / "server.toml"
    file.write_text(table)
    command = [
        sys.executable,
        "-m",
        "kbdfl",
        "serve",
        "--config",
        str(file),
        "--folder",
        str(tmp_path / "new"),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    assert reason in answer.stderr
    assert not (tmp_path / "new").exists()


def kbdfl(*arguments):
    command = [sys.executable, "-m", "kbdfl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def until(true):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "that takes too long"
        time.sleep(0.05)


def test_each_round_is_tracked_once_though_the_server_was_killed(serve, tmp_path, mlflow_store, monkeypatch):
    libraries, folder = [Tensorboard(), Mlflow()], tmp_path / "served"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(mlflow_store, tmp_path)
    rounds = 80
    task = (
        f"--preset tiny --devices 20 --rounds {rounds} --cohort 2 --evaluate-every 5 --deadline-s 5".split()
    )
    track = [word for library in libraries for word in ("--track", library.name)]
    process, url = serve(*task, *track)
    assert url, process.communicate()[1]
    until(lambda: (folder / "tensorboard").exists() and libraries[1].runs(folder))
    fleet = ["fleet", "--server", url, "--devices", 20, "--runs", tmp_path / "fleets"]
    phones = subprocess.Popen(
        [sys.executable, "-m", "kbdfl", *map(str, fleet)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: status(url)["totals"]["committed"])
    finally:
        phones.kill()
        phones.wait()
    until(lambda: libraries[1].runs(folder)[0].data.metrics.get("reports"))
    before = status(url)["totals"]["committed"]
    process.kill()
    process.communicate()
    assert before < rounds, "it was killed too late"

    process, url = serve(*track)
    assert url, process.communicate()[1]
    fleet[2] = url
    played = kbdfl(*fleet)
    assert played.returncode == 0, played.stderr
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    rows = RunFolder(folder).rows()
    assert len(rows) == rounds
    for library in libraries:
        read, times = library.read(folder)
        found = [(name, *each) for name, figures in read.items() for each in figures]
        expected = [(name, step_of(row), value) for row in rows for name, value in scalars(row).items()]
        assert [each[:2] for each in sorted(found)] == [each[:2] for each in sorted(expected)]
        assert [value for *_, value in sorted(found)] == pytest.approx(
            [value for *_, value in sorted(expected)]
        )
        # A round whose entry in the audit log was not there yet has the time at which it was read.
        assert all(later - earlier > -1.0 for earlier, later in pairwise(times))
    assert [run.info.status for run in libraries[1].runs(folder)] == ["FINISHED"]


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_a_tracker_whose_library_is_missing_is_refused_in_one_line_and_leaves_no_folder(
    name, package, tmp_path
):
    code = f"import sys; sys.modules[{package!r}] = None; from kbdfl.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "serve",
        *SMALL,
        "--track",
        name,
        "--folder",
        str(tmp_path / "new"),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    assert f"pip install 'kbdfl[{name}]'" in answer.stderr
    assert not (tmp_path / "new").exists()
