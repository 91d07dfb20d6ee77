"""`kbdfl simulate --resume`: killed twenty times, at any moment, and the same bytes at the end."""

import json
import os
import subprocess
import sys
import time

import pytest

from kbdfl.device_sim.keeping import STATE
from kbdfl.rng import stream

RUN = ["--preset", "tiny", "--devices", "60", "--rounds", "400", "--cohort", "5", "--algorithm", "fedbuff"]
RUN += [
    "--concurrency",
    "8",
    "--speeds",
    "heavy-tailed",
    "--feedback-rounds",
    "50",
    "--upload",
    "tiny-uplink",
]
KILLS = 20


def begin(*arguments):
    command = [sys.executable, "-m", "kbdfl", "simulate", *map(str, arguments), "--json", "--snapshot-s", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rounds_of(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_run_killed_twenty_times_ends_in_the_bytes_of_one_that_never_was(
    kbdfl, tmp_path, final_checkpoint, without_seconds
):
    code, _, err = kbdfl("simulate", *RUN, "--runs", tmp_path, "--name", "whole", "--json")
    assert (code, err) == (0, "")
    random, folder = stream(1, "kills"), tmp_path / "killed"
    running = begin(*RUN, "--runs", tmp_path, "--name", "killed")
    for kill in range(KILLS):
        while not folder.exists() and running.poll() is None:
            time.sleep(0.005)
        # At a round that is drawn, and then at some moment within it: a snapshot's or a row's writing too.
        wanted = rounds_of(folder) + int(random.integers(0, 2 * 400 // (3 * KILLS)))
        while rounds_of(folder) < wanted and running.poll() is None:
            time.sleep(0.001)
        time.sleep(float(random.uniform(0, 0.02)))
        assert running.poll() is None, f"ended before kill {kill}: {running.communicate()[1]}"
        running.kill()
        running.communicate()
        running = begin("--resume", folder)
    out, err = running.communicate()
    assert running.returncode == 0, err
    assert json.loads(out)["rounds"] == 400
    assert final_checkpoint(folder) == final_checkpoint(tmp_path / "whole")
    assert without_seconds(folder) == without_seconds(tmp_path / "whole")
    assert (folder / "fleet.json").read_bytes() == (tmp_path / "whole" / "fleet.json").read_bytes()
    assert not (folder / STATE).exists()


def test_a_disk_that_takes_no_more_ends_in_one_line_and_the_run_goes_on_later(
    kbdfl, tmp_path, final_checkpoint
):
    """A limit on the size of files stands for the full disk: the snapshot is what grows beyond it."""
    run = [*RUN, "--runs", tmp_path]
    code, _, err = kbdfl("simulate", *run, "--name", "whole", "--json")
    assert (code, err) == (0, "")
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY));"
        "from kbdfl.cli import main; sys.argv[0] = 'kbdfl'; sys.exit(main())"
    )
    arguments = ["simulate", *map(str, run), "--name", "full", "--json", "--snapshot-s", "0"]
    ended = subprocess.run([sys.executable, "-c", limited, *arguments], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("kbdfl: ")
    assert "cannot be written to" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert f"--resume {tmp_path / 'full'}" in ended.stderr
    code, _, err = kbdfl("simulate", "--resume", tmp_path / "full", "--json")
    assert (code, err) == (0, "")
    assert final_checkpoint(tmp_path / "full") == final_checkpoint(tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "nowhere"], "there is no run at nowhere"),
        (["--resume", "nowhere", "--rounds", "3"], "--rounds must not come with --resume"),
        (["--faults", "hail"], "faults must be one of none, storm, got hail"),
        (["--engine", "horses"], "engine must be one of threads, processes, ray, got 'horses'"),
        (["--rest-s", "-1"], "rest_s must be >= 0 and finite, got -1"),
        (["--availability", "none.csv"], "none.csv cannot be read as CSV"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(kbdfl, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = kbdfl("simulate", "--preset", "tiny", "--devices", "30", *arguments)
    if "--resume" in arguments:
        code, out, err = kbdfl("simulate", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not os.listdir(tmp_path)
