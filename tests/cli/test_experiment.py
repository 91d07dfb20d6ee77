"""`kbdfl experiment`: what it prints and leaves behind, and what it refuses."""

import json

import pytest

from kbdfl.device_sim.experiments import EXPERIMENTS
from kbdfl.device_sim.experiments.server_rules import GRIDS

TINY = ["--logs", "personas", "--preset", "tiny", "--rounds", 2, "--quick", "--workers", 2]


@pytest.fixture
def experiment(kbdfl, tmp_path):
    def run(name, *arguments):
        code, out, err = kbdfl("experiment", name, *TINY, "--out", tmp_path / "results", *arguments)
        assert code == 0, err
        return out, err, tmp_path / "results"

    return run


def test_server_rules_are_compared_over_their_grids_and_seeds(experiment):
    out, err, folder = experiment("compare-server-rules", "--seeds", "0,2", "--json")
    shown = json.loads(out)
    assert [row["method"] for row in shown["table"]] == list(GRIDS)
    assert shown["adaptive_over_others"] == pytest.approx(
        100 * max(row["recall_top1"]["mean"] for row in shown["table"][2:])
        - 100 * max(row["recall_top1"]["mean"] for row in shown["table"][:2])
    )
    whole = json.loads((folder / "results.json").read_text())
    assert whole["table"] == shown["table"]
    assert len(whole["tried"]) == sum(map(len, GRIDS.values()))
    assert [(run["method"], run["seed"]) for run in whole["runs"]] == [
        (method, seed) for seed in (0, 2) for method in GRIDS
    ]
    assert len(err.splitlines()) == len(whole["tried"]) + len(GRIDS)
    assert {path.name for path in folder.iterdir()} == {"results.json", "table.md", "plot.html"}
    page = (folder / "plot.html").read_text()
    assert "plot-judged" in page
    assert "plot-learned" in page


def test_the_central_gap_prints_its_ratio_and_table(experiment):
    out, _, folder = experiment("central-gap")
    whole = json.loads((folder / "results.json").read_text())
    federated, central, alone = (row["recall_top1"]["mean"] for row in whole["table"])
    assert whole["federated_over_central"] == pytest.approx(federated / central)
    assert whole["alone_over_central"] == pytest.approx(alone / central)
    assert f"federated_over_central: {federated / central:.3f}" in out
    assert (folder / "table.md").read_text() in out


def test_results_are_not_written_over(experiment, refused):
    _, _, folder = experiment("central-gap")
    line = refused("experiment", "central-gap", *TINY, "--out", folder)
    assert f"there are results in {folder} already" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["no-such-one"],
            "NAME must be one of compare-server-rules, central-gap, personalise, got 'no-such-one'",
        ),
        (["central-gap", "--seeds", "1,x"], "seeds must be whole numbers with commas, got '1,x'"),
        (["central-gap", "--seeds", "1,1"], "seeds must be distinct and >= 0, got '1,1'"),
        (["central-gap", "--seeds", "-1"], "seeds must be distinct and >= 0, got '-1'"),
        (["central-gap", "--preset", "huge"], "preset must be one of"),
        (["central-gap", "--logs", "nowhere.jsonl"], "nowhere.jsonl"),
        (["central-gap", "--rounds", "0"], "--rounds"),
    ],
)
def test_bad_input_is_one_line(refused, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused("experiment", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_experiment(kbdfl):
    _, out, _ = kbdfl("experiment", "--help")
    assert all(name in out for name in EXPERIMENTS)


def test_personalise_prints_its_relative_gain(experiment):
    out, err, _ = experiment("personalise", "--json")
    shown = json.loads(out)
    shared, tuned = (row["recall_top1"]["mean"] for row in shown["table"])
    assert shown["relative_gain"] == pytest.approx(tuned / shared - 1)
    assert len(err.splitlines()) == 5
