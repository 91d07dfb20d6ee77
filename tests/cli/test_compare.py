"""`kbdfl simulate --compare`: what it prints and writes, and what it refuses."""

import json

import pytest

from kbdfl.run import RunConfig, RunFolder, Settings

ROW = {
    "round": 0,
    "status": "committed",
    "version": 1,
    "reports": 4,
    "dropped": 1,
    "train_loss": 5.0,
    "recall_top1": 0.125,
    "recall_top3": 0.25,
    "uplink_bytes": 4_000,
    "downlink_bytes": 8_000,
    "wall_s": 2.5,
    "virtual_s": 3600.0,
}


@pytest.fixture
def runs(tmp_path):
    """Two run folders of different seeds."""
    for seed, name in ((1, "one"), (2, "two")):
        folder = RunFolder.create(tmp_path / "runs", name, default="x")
        folder.write_config(RunConfig(settings=Settings(seed=seed)).to_toml())
        folder.add_row(ROW)
    return [tmp_path / "runs" / "one", tmp_path / "runs" / "two"]


def test_runs_are_compared_in_a_table_and_a_page(kbdfl, runs, tmp_path):
    code, out, err = kbdfl("simulate", "--compare", *runs, "--runs", tmp_path / "runs")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["one", "two"]
    assert ["reports", "counted", "4", "4"] in lines
    assert ["run.seed", "1", "2"] in lines
    assert "differ in run.seed" in out
    page = tmp_path / "runs" / "compare.html"
    assert lines[-1] == ["page", "in", str(page)]
    assert "2 kbdfl runs compared" in page.read_text("utf-8")
    assert not (runs[0] / "report.html").exists()


def test_json_is_one_object(kbdfl, runs, tmp_path):
    page = tmp_path / "new" / "page.html"
    code, out, err = kbdfl("simulate", "--json", "--compare", *runs, "--out", page)
    assert (code, err) == (0, "")
    printed = json.loads(out)
    assert printed["page"] == str(page)
    assert page.is_file()
    assert [run["run"] for run in printed["runs"]] == [str(path) for path in runs]
    assert printed["runs"][0]["recall_top1"] == 0.125
    assert printed["runs"][0]["virtual_h"] == 1.0
    assert printed["differences"] == {"run.seed": [1, 2]}


def test_runs_of_the_same_settings_have_nothing_that_differs(kbdfl, runs, tmp_path):
    (runs[1] / "config.toml").write_bytes((runs[0] / "config.toml").read_bytes())
    _, out, _ = kbdfl("simulate", "--compare", *runs, "--runs", tmp_path)
    assert "no setting differs" in out


def test_help_says_where_the_page_goes(kbdfl):
    _, out, _ = kbdfl("simulate", "--help")
    words = " ".join(out.split())
    assert "[RUN]..." in words
    assert "[default: compare.html in --runs]" in words


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--rounds", 5], "--rounds must not come with --compare"),
        (["--seed", 1], "--seed must not come with --compare"),
        (["--workers", 1], "--workers must not come with --compare"),
        (["--name", "x"], "--name must not come with --compare"),
        (["--no-partial-work"], "--partial-work must not come with --compare"),
    ],
)
def test_options_of_a_run_are_not_ignored(refused, runs, tmp_path, options, reason):
    assert reason in refused("simulate", "--compare", *runs, "--runs", tmp_path, *options)
    assert not (tmp_path / "compare.html").exists()


def test_a_page_goes_to_one_place(refused, runs, tmp_path):
    line = refused("simulate", "--compare", *runs, "--runs", tmp_path, "--out", tmp_path / "page.html")
    assert "--runs must not come with --compare and --out" in line


def test_what_belongs_to_a_comparison_is_refused_without_one(refused, runs, tmp_path):
    assert "must come with --compare, got" in refused("simulate", runs[0])
    assert "--out must come with --compare" in refused("simulate", "--out", tmp_path / "page.html")


def test_a_run_that_is_none_is_one_line_and_leaves_nothing(refused, runs, tmp_path):
    place = tmp_path / "elsewhere"
    for bad in (tmp_path / "none", runs[0] / "metrics.jsonl"):
        assert f"no run folder at {bad}" in refused("simulate", "--compare", *runs, bad, "--runs", place)
    assert "no run folder: it has no config.toml" in refused("simulate", "--compare", tmp_path, *runs)
    assert "takes 2 to 32 runs, got 1" in refused("simulate", "--compare", runs[0])
    assert "takes 2 to 32 runs, got 0" in refused("simulate", "--compare")
    (runs[1] / "config.toml").write_text("[run]\nsede = 1\n")
    assert "sede" in refused("simulate", "--compare", *runs, "--runs", place)
    assert not place.exists()


def test_a_page_that_cannot_be_written_is_one_line(refused, runs, tmp_path):
    assert "--out must be a file" in refused("simulate", "--compare", *runs, "--out", tmp_path)
    file = tmp_path / "file"
    file.write_text("in the way")
    assert "file" in refused("simulate", "--compare", *runs, "--out", file / "page.html")
