"""Runs beside each other: what is read, what differs, what compare.html holds."""

import json
import re
from dataclasses import replace

import pytest

from kbdfl.algorithms import Algorithm, FedAvg
from kbdfl.errors import ConfigError, DataError
from kbdfl.report.compare import (
    caution,
    differences,
    differences_table,
    facts_table,
    read_runs,
    write_comparison,
)
from kbdfl.run import RunConfig, RunFolder, Settings

ROW = {
    "status": "committed",
    "reports": 4,
    "dropped": 1,
    "train_loss": 5.0,
    "recall_top1": 0.1,
    "recall_top3": 0.2,
    "uplink_bytes": 1_000_000,
    "downlink_bytes": 3_000_000,
    "wall_s": 2.5,
    "virtual_s": 1800.0,
}


@pytest.fixture
def run(tmp_path):
    """Make a run folder of so many rounds."""

    def make(name, config=None, *, rounds=2, base=tmp_path, **changes):
        folder = RunFolder.create(base, name, default="x")
        folder.write_config((config or RunConfig()).to_toml())
        rows = [ROW | {"round": n, "version": n + 1} | changes for n in range(rounds)]
        folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder.path

    return make


def test_the_facts_of_a_run_sum_up_its_rows(run):
    one, other = read_runs([run("one"), run("other", virtual_s=None, recall_top1=None, recall_top3=None)])
    assert (one.name, other.name) == ("one", "other")
    assert one.facts == {
        "recall_top1": 0.1,
        "recall_top3": 0.2,
        "rounds": 2,
        "committed": 2,
        "reports": 8,
        "uplink_bytes_per_report": 250_000,
        "downlink_bytes_per_report": 750_000,
        "megabytes": 8.0,
        "virtual_h": 0.5,
        "wall_s": 2.5,
    }
    texts = {title: cells for title, *cells in facts_table([one, other])}
    assert texts["recall@1, last measured"] == ["10.00%", "–"]
    assert texts["virtual hours"] == ["0.50", "–"]


def test_settings_that_differ_are_listed_and_no_others(run):
    seeded = RunConfig(settings=Settings(seed=2, source="chat"))
    runs = read_runs([run("a"), run("b", replace(seeded, algorithm=Algorithm(server=FedAvg())))])
    found = differences(runs)
    assert found["run.seed"] == [1, 2]
    assert found["server.rule"] == ["fedadam", "fedavg"]
    assert found["server.beta1"] == [0.9, None]
    assert "run.preset" not in found
    assert ["server.beta1", "0.9", "–"] in differences_table(runs)
    assert caution(runs).endswith("run.seed, run.source.")


def test_runs_that_were_measured_alike_need_no_caution(run):
    runs = read_runs([run("a"), run("b")])
    assert differences(runs) == {}
    assert caution(runs) == ""


def test_folders_of_the_same_name_go_by_their_paths(run, tmp_path):
    paths = [run("server", base=tmp_path / "a"), run("server", base=tmp_path / "b"), run("c")]
    assert [found.name for found in read_runs(paths)] == [str(paths[0]), str(paths[1]), "c"]


def test_a_comparison_is_one_page_that_overlays_every_run(run, tmp_path):
    runs = read_runs([run("a"), run("b", rounds=3_000)])
    page = tmp_path / "compare.html"
    write_comparison(page, runs)
    html = page.read_text("utf-8")
    assert "<script src=" not in html
    assert html.count('<div id="plot-') == 1
    (data,) = re.findall(r'Plotly\.newPlot\(\s*"plot-0",\s*(\[.*?\]),\s*\{"', html)
    assert [(line["name"], len(line["x"])) for line in json.loads(data)] == [("a", 2), ("b", 1_000)]
    body = html[html.index("<body>") :]
    assert all(text in body for text in ("by virtual hour", "by megabyte", "12,000.0", "<p>None.</p>"))


def test_a_page_says_which_runs_have_no_virtual_hours(run, tmp_path):
    runs = read_runs([run("simulated"), run("served", virtual_s=None)])
    write_comparison(tmp_path / "compare.html", runs)
    assert "Without virtual hours: served." in (tmp_path / "compare.html").read_text("utf-8")


def test_a_configuration_is_no_markup(run, tmp_path):
    runs = read_runs([run("a"), run("b", RunConfig(settings=Settings(source="<b>logs</b>.jsonl")))])
    write_comparison(tmp_path / "compare.html", runs)
    html = (tmp_path / "compare.html").read_text("utf-8")
    assert "<b>logs" not in html
    assert "&lt;b&gt;logs" in html


def test_one_run_is_nothing_to_compare(run):
    with pytest.raises(ConfigError, match="takes 2 to 32 runs, got 1"):
        read_runs([run("a")])


def test_a_run_is_not_compared_with_itself(run):
    path = run("a")
    with pytest.raises(ConfigError, match="was given twice"):
        read_runs([path, run("b"), path / ".." / "a"])


def test_a_folder_that_is_no_runs_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, reason in (("none", "no run folder at"), ("empty", "is no run folder: it has no config.toml")):
        with pytest.raises(DataError, match=reason):
            read_runs([run(f"beside-{name}"), tmp_path / name])


def test_a_run_without_a_round_is_refused(run):
    with pytest.raises(DataError, match="has no closed round to compare"):
        read_runs([run("a"), run("b", rounds=0)])


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", "3", "{}", json.dumps(ROW), json.dumps(ROW | {"round": 0, "recall_top1": "high"})],
)
def test_rows_that_are_none_are_refused(run, line):
    path = run("b")
    (path / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl must hold a round's JSON object a line"):
        read_runs([run("a"), path])
