"""`kbdfl experiment`: what it prints and leaves behind, and what it refuses."""

import json

import pytest

from kbdfl.device_sim.experiments import EXPERIMENTS
from kbdfl.device_sim.experiments.bandwidth import CHAINS
from kbdfl.device_sim.experiments.personal import GRIDS as GRIDS_OF_RULES
from kbdfl.device_sim.experiments.server_rules import GRIDS

TINY = ["--logs", "personas", "--preset", "tiny", "--rounds", 2, "--quick", "--workers", 2]


@pytest.fixture
def experiment(kbdfl, tmp_path):
    def run(name, *arguments):
        code, out, err = kbdfl("experiment", name, *TINY, "--out", tmp_path / "results", *arguments)
        assert code == 0, err
        return out, err, tmp_path / "results"

    return run


@pytest.fixture
def public(tmp_path):
    path = tmp_path / "public.jsonl"
    lines = (f'{{"user": "user{n % 7}", "text": "the cat and {n} of the dogs say hello"}}' for n in range(70))
    path.write_text("\n".join(lines))
    return path


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
    federated, central, trigram, alone = (row["recall_top1"]["mean"] for row in whole["table"])
    assert whole["federated_over_central"] == pytest.approx(federated / central)
    assert whole["alone_over_central"] == pytest.approx(alone / central)
    assert whole["trigram_over_central"] == pytest.approx(trigram / central)
    assert "--quick: so few rounds show that it runs" in out
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
            f"NAME must be one of {', '.join(EXPERIMENTS)}, got 'no-such-one'",
        ),
        (["central-gap", "--seeds", "1,x"], "seeds must be whole numbers with commas, got '1,x'"),
        (["central-gap", "--seeds", "1,1"], "seeds must be distinct and >= 0, got '1,1'"),
        (["central-gap", "--seeds", "-1"], "seeds must be distinct and >= 0, got '-1'"),
        (["central-gap", "--preset", "huge"], "preset must be one of"),
        (["central-gap", "--logs", "nowhere.jsonl"], "nowhere.jsonl"),
        (["central-gap", "--rounds", "0"], "--rounds"),
        (["central-gap", "--public", "chat"], "public text must be left out here, where it has no use"),
        (["warm-start", "--logs", "chat", "--public", "chat"], "must be other text than the phones' own"),
        (["warm-start", "--logs", "personas", "--public", "nowhere.jsonl"], "nowhere.jsonl"),
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
    shared, *own = (row["recall_top1"]["mean"] for row in shown["table"])
    gains = [top1 / shared - 1 for top1 in own]
    named = [gain for name, gain in shown.items() if name.startswith("relative_gain_")]
    assert named == pytest.approx(gains)
    assert shown["relative_gain"] in named
    assert len(err.splitlines()) == 1 + sum(map(len, GRIDS_OF_RULES.values()))
    assert shown["public"] is None


def test_warm_start_prints_its_gain_over_the_trigram(experiment, public):
    out, _, _ = experiment("warm-start", "--public", public, "--json")
    shown = json.loads(out)
    mean = {row["method"]: row["recall_top1"]["mean"] for row in shown["table"]}
    assert shown["relative_gain"] == pytest.approx(mean["warm-started"] / mean["trigram"] - 1)
    assert shown["over_public_model"] == pytest.approx(mean["warm-started"] / mean["public model"] - 1)
    assert shown["public"] == public.name


@pytest.mark.parametrize(
    ("logs", "public"), [("chat", "personas"), ("personas", "chat"), ("mine.jsonl", "chat")]
)
def test_public_text_is_other_text_than_the_logs(logs, public):
    assert EXPERIMENTS["warm-start"].public_text(None, logs=logs) == public
    assert EXPERIMENTS["personalise"].public_text(None, logs=logs) is None
    assert EXPERIMENTS["personalise"].public_text(public, logs=logs) == public


def test_bandwidth_prints_its_chains_and_draws_recall_against_them(experiment):
    out, _, folder = experiment("bandwidth", "--json")
    chains = json.loads(out)["chains"]
    assert [chain["name"] for chain in chains] == list(CHAINS)
    for chain in chains:
        assert chain.keys() >= {
            "name", "uplink_ratio", "downlink_ratio", "total_ratio", "recall_top1", "top1_loss_points",
        }  # fmt: skip
        assert chain["total_ratio"] > 1
    page = (folder / "plot.html").read_text()
    assert page.count("plot-against-") >= 2
    assert "Recall@1 against how many times fewer bytes go up" in page
