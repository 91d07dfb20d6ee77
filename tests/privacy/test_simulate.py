"""Whole simulations with privacy, by the command line: what they leave behind, and that they can be killed."""

import json

import numpy as np
import pytest

from kbdfl.cli import main
from kbdfl.privacy import FileBooks
from kbdfl.privacy.ledger import check_rows

BASE = ["--preset", "tiny", "--devices", "60", "--rounds", "4", "--cohort", "3", "--min-reports", "1"]
BASE += ["--evaluate-every", "100", "--dp-separation", "4", "--workers", "1", "--seed", "3"]


@pytest.fixture
def run(tmp_path, capsys):
    """Runs `kbdfl`; its exit code, standard output and standard error."""

    def run(*arguments):
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def simulated(run, tmp_path, *more):
    code, out, err = run("simulate", *BASE, "--runs", tmp_path, "--name", "a", "--json", *more)
    assert code == 0, err
    return json.loads(out), tmp_path / "a"


@pytest.mark.parametrize("preset", ["dp-fedavg", "dp-ftrl", "dp-banded"])
def test_a_run_leaves_a_ledger_and_its_statement_everywhere(preset, run, tmp_path):
    said, folder = simulated(run, tmp_path, "--algorithm", preset)
    rows = check_rows(FileBooks(folder).rows())
    assert [row.round for row in rows] == [0, 1, 2, 3]
    assert 8.89 < rows[-1].epsilon <= 8.9
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epsilon"] for row in metrics] == [row.epsilon for row in rows]
    manifest = json.loads((folder / "model" / "manifest.json").read_text())
    assert manifest["privacy"] == said["privacy"]
    assert "(epsilon, delta) = (8.9, 1e-10) for the 4 models published" in manifest["privacy"]
    assert "(8.9, 1e-10)" in (folder / "report.html").read_text()
    parts = FileBooks(folder).participations()
    assert all(each.count == 1 for each in parts.values())
    assert len(parts) == sum(row.devices for row in rows)


SECURE = ["--algorithm", "dp-secure", "--cohort", "12", "--min-reports", "10", "--secure-devices", "10"]


def test_phones_that_noise_their_sums_leave_a_ledger_and_say_whom_nobody_need_trust(run, tmp_path):
    said, folder = simulated(run, tmp_path, *SECURE)
    rows = check_rows(FileBooks(folder).rows())
    assert [row.round for row in rows] == [0, 1, 2, 3]
    assert 8.89 < rows[-1].epsilon <= 8.9
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epsilon"] for row in metrics] == [row.epsilon for row in rows]
    assert [row["train_loss"] for row in metrics] == [None] * 4
    manifest = json.loads((folder / "model" / "manifest.json").read_text())
    assert manifest["privacy"] == said["privacy"]
    for part in (
        "Skellam noise of at least",
        "need not be trusted",
        "(8.9, 1e-10) for the 4 models",
        "without masks",
    ):
        assert part in said["privacy"]
    page = (folder / "report.html").read_text()
    assert "Privacy spent" in page
    assert "need not be trusted" in page
    parts = FileBooks(folder).participations()
    assert all(each.count == 1 for each in parts.values())
    assert len(parts) == sum(row.devices for row in rows)


def test_without_privacy_there_is_no_ledger_and_no_claim(run, tmp_path):
    at = BASE.index("--dp-separation")
    code, _, err = run("simulate", *BASE[:at], *BASE[at + 2 :], "--runs", tmp_path, "--name", "a", "--json")
    assert code == 0, err
    assert not (tmp_path / "a" / "ledger.jsonl").exists()
    manifest = json.loads((tmp_path / "a" / "model" / "manifest.json").read_text())
    assert "no differential privacy is claimed" in manifest["privacy"]


def test_two_runs_of_one_seed_differ_in_their_noise(run, tmp_path):
    models = []
    for name in ("one", "two"):
        said, _ = simulated(
            run, tmp_path / name, "--dp", "gaussian", "--dp-noise", "0.5", "--update-clip-norm", "1"
        )
        models.append(said["checkpoint"])
    from pathlib import Path

    from kbdfl.params import load_checkpoint

    first, second = (load_checkpoint(Path(path))[0] for path in models)
    assert np.abs(first - second).max() > 0


@pytest.mark.parametrize("more", [["--algorithm", "dp-banded"], [*SECURE, "--devices", "120"]])
def test_a_run_that_was_killed_goes_on_with_its_ledger(more, run, tmp_path, monkeypatch):
    from kbdfl.run import RunFolder

    real, rounds = RunFolder.add_row, []

    def killed(self, row):
        rounds.append(row["round"])
        if rounds == [0, 1, 2]:
            raise KeyboardInterrupt
        real(self, row)

    monkeypatch.setattr(RunFolder, "add_row", killed)
    more = [*more, "--snapshot-s", "0"]
    code, _, _ = run("simulate", *BASE, *more, "--runs", tmp_path, "--name", "a", "--json")
    assert code == 130
    monkeypatch.setattr(RunFolder, "add_row", real)
    code, out, err = run("simulate", "--resume", tmp_path / "a", "--json")
    assert code == 0, err
    rows = check_rows(FileBooks(tmp_path / "a").rows())
    # Round 2 was released, and then lost: it stays booked, and so do its phones.
    assert [row.round for row in rows] == [0, 1, 2, 2]
    assert max(row.epsilon for row in rows) <= 8.9
    assert all(parts.count == 1 for parts in FileBooks(tmp_path / "a").participations().values())
    assert "4 models published" in json.loads(out)["privacy"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--dp", "gaussian"], "must have a noise_multiplier or an epsilon"),
        (["--dp", "gaussian", "--dp-noise", "1"], "update_clip_norm must be > 0 with privacy"),
        (["--dp", "magic", "--dp-noise", "1"], "mechanism must be one of"),
        (["--algorithm", "dp-banded", "--weights", "examples"], "weights must be uniform"),
        (["--algorithm", "dp-banded", "--cohort", "20"], "separation must be at most"),
        (
            ["--algorithm", "dp-banded", "--faults", "storm", "--min-reports", "0"],
            "faults must be none with privacy",
        ),
        (["--algorithm", "dp-banded", "--dp", "none"], "separation must come with a mechanism"),
        (["--algorithm", "dp-fedavg", "--dp-bands", "3"], "bands must come with banded"),
        (["--algorithm", "dp-banded", "--secure"], "privacy must be skellam or none with secure aggregation"),
        (["--algorithm", "dp-ftrl", "--secure"], "share noise of one round alone, got tree"),
        (["--algorithm", "dp-secure", "--not-secure"], "must not be skellam without secure aggregation"),
        ([*SECURE, "--upload", "int8"], "upload must be summable"),
        ([*SECURE, "--dp-quantile", "0.5"], "quantile must be 0 with noise that devices add"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(more, said, run, tmp_path):
    code, _, err = run("simulate", *BASE, "--runs", tmp_path, *more)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


PLAN = ["privacy", "plan", "--rounds", "2000", "--population", "4000000", "--cohort", "6500"]


def test_a_plan_says_the_noise_the_cohort_and_the_sentence(run):
    code, out, _ = run(*PLAN, "--epsilon", "8.9", "--json")
    figures = json.loads(out)
    assert code == 0
    assert 8.89 < figures["epsilon"] <= 8.9
    assert (figures["mechanism"], figures["separation"], figures["participations"]) == ("banded", 307, 7)
    assert figures["cohort_for_signal"] > 1_000
    assert "(epsilon, delta) = (8.9, 1e-10)" in figures["statement"]
    code, out, _ = run(*PLAN, "--epsilon", "8.9")
    assert figures["statement"] in out


def test_a_plan_of_given_noise_says_its_epsilon(run):
    _, out, _ = run(*PLAN, "--noise", "4.83", "--json")
    assert json.loads(out)["epsilon"] == pytest.approx(8.9, abs=0.01)


def test_a_plan_of_noise_that_phones_add_says_for_how_few_it_is_made(run):
    skellam = ["--epsilon", "8.9", "--mechanism", "skellam"]
    code, out, _ = run(*PLAN, *skellam, "--json")
    figures = json.loads(out)
    assert code == 0
    assert 8.89 < figures["epsilon"] <= 8.9
    assert (figures["survivors"], figures["mechanism"]) == (2_601, "skellam")
    _, out, _ = run(*PLAN, *skellam, "--secure-devices", "32", "--json")
    few = json.loads(out)
    # The same noise is promised; shares that a handful must be enough of make a whole cohort's far more.
    assert few["noise_multiplier"] == figures["noise_multiplier"]
    assert few["survivors"] == 14
    assert few["noise_norm"] > 10 * figures["noise_norm"]
    assert few["bound"] > 10 * figures["bound"]
    _, out, _ = run(*PLAN, *skellam)
    assert "made for 2,601 honest ones in a sum" in out
    assert "need not be trusted" in out


def test_a_clip_norm_that_moves_is_paid_for_in_the_plan(run):
    gaussian = ["--epsilon", "8.9", "--mechanism", "gaussian", "--json"]
    still, moving = (json.loads(run(*PLAN, *gaussian, *more)[1]) for more in ([], ["--quantile", "0.5"]))
    assert moving["noise_multiplier"] > still["noise_multiplier"]
    assert moving["epsilon"] <= 8.9
    assert "following their 0.5 quantile by a noised count that is charged" in moving["statement"]


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--epsilon", "0"],
        ["--epsilon", "-1"],
        ["--epsilon", "nan"],
        ["--epsilon", "1", "--delta", "0"],
        ["--epsilon", "1", "--mechanism", "none"],
        ["--epsilon", "1", "--mechanism", "magic"],
        ["--epsilon", "1", "--cohort", "0"],
        ["--epsilon", "1", "--population", "10"],
        ["--epsilon", "1", "--separation", "4000"],
        ["--epsilon", "1", "--bands", "400"],
        ["--epsilon", "1", "--clip-norm", "0"],
        ["--epsilon", "1", "--preset", "huge"],
        ["--epsilon", "1", "--signal", "0"],
        ["--epsilon", "1", "--upload", "summable"],
        ["--epsilon", "1", "--secure-devices", "100"],
        ["--epsilon", "1", "--mechanism", "skellam", "--upload", "int8"],
        ["--epsilon", "1", "--mechanism", "skellam", "--secure-devices", "7000"],
        ["--epsilon", "1", "--mechanism", "skellam", "--quantile", "0.5"],
        ["--epsilon", "500"],
    ],
)
def test_a_plan_of_bad_input_ends_in_one_line(more, run):
    code, out, err = run(*PLAN, *more)
    assert (code, out) == (2, "")
    assert err.startswith("kbdfl: ")
    assert err.count("\n") == 1
