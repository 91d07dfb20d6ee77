"""`kbdfl demo`: the whole loop once, for real, and what it refuses. The slowest tests there are."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from kbdfl.export.bundle import load_bundle
from kbdfl.run import RunFolder


def demo(*arguments):
    return [sys.executable, "-m", "kbdfl", "demo", "--quick", *map(str, arguments)]


@pytest.mark.timeout(240)
def test_the_quick_demo_does_all_of_it(tmp_path):
    command = demo("--no-serve", "--json", "--rounds", 12, "--runs", tmp_path, "--name", "quick")
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    result = json.loads(done.stdout)
    folder = RunFolder(tmp_path / "quick")
    assert result["run"] == str(folder.path)
    assert result["devices"] >= 1000
    assert (result["rounds"], result["reports"]) == (12, 96)
    assert result["onnx_max_abs_diff"] <= 1e-4
    assert 0.02 < result["recall_top1"] < result["recall_top3"] < 1
    assert abs(result["recall_top1"] - result["int8_recall_top1"]) < 0.01
    assert abs(result["recall_top1"] - result["int4_recall_top1"]) < 0.02
    assert 0.1 < result["trigram_top1"] < result["trigram_top3"] < 0.6
    for who in ("", "int8_", "int4_", "trigram_", "trigram_own_words_"):
        assert 0.1 < result[f"{who}ksr"] < 0.9
    assert result["uplink_bytes_per_report"] < result["float32_bytes_per_report"] / 3
    assert result["int8_model_bytes"] < result["model_bytes"] / 3
    assert result["int4_model_bytes"] < result["model_bytes"] / 6
    assert result["float32_bytes_per_report"] == 4 * result["parameters"]
    assert result["held_out_users"] == 100
    assert result["perplexity"] > 1
    assert 0 <= result["oov_rate"] < 0.5
    assert 0 < result["train_s"] < result["total_s"]
    rows = folder.rows()
    assert [row["round"] for row in rows] == list(range(12))
    assert rows[-1]["recall_top1"] is not None
    for name, precision in (("model", "float32"), ("model-int8", "int8"), ("model-int4", "int4")):
        bundle = load_bundle(folder.path / name)
        assert bundle.precision == precision
        assert bundle.manifest["version"] == 12
        assert bundle.manifest["recall"]["version"] == 12
    assert (folder.path / "report.html").exists()
    with pytest.raises(OSError, match="refused"):  # its server is gone
        socket.create_connection(("127.0.0.1", int(result["url"].rpartition(":")[2])), timeout=5)


def test_a_terminated_demo_takes_its_server_along(tmp_path):
    process = subprocess.Popen(
        demo("--runs", tmp_path, "--name", "cut"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        port_file, deadline = tmp_path / "cut" / "server" / "port", time.monotonic() + 60
        while not port_file.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        port = int(port_file.read_text())
        os.kill(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--rounds", "0"], "rounds"),
        (["--rounds", "-4"], "rounds"),
        (["--port", "-1"], "port"),
        (["--workers", "0"], "workers"),
        (["--seed", "-1"], "seed"),
        (["--name", "a/b"], "a run's name must be"),
    ],
)
def test_impossible_options_are_one_line(tmp_path, options, reason):
    done = subprocess.run(
        demo("--runs", tmp_path / "runs", *options), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kbdfl: ")
    assert done.stderr.count("\n") == 1
    assert reason in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_name_that_is_taken_is_one_line(tmp_path):
    (tmp_path / "mine").mkdir()
    done = subprocess.run(
        demo("--runs", tmp_path, "--name", "mine"), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kbdfl: there is a run at")
    assert done.stderr.count("\n") == 1


def test_a_port_in_use_ends_the_demo_with_the_servers_reason(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = demo("--no-serve", "--json", "--runs", tmp_path, "--port", port)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("kbdfl: the server did not start: ")
    assert f"port {port} on 127.0.0.1 is in use" in last
    assert "Traceback" not in done.stderr
