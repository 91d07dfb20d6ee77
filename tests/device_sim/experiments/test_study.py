"""Values are chosen on validation users, reported on held-out ones, and nothing is trained twice."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from kbdfl.device_sim.experiments.report import rows, table, write_results
from kbdfl.device_sim.experiments.settings import Trained
from kbdfl.device_sim.experiments.study import Run, Study, Tried, carry_out


class Answers(Trained):
    """A model that knows what it will be asked: recall by the name of the users' part."""

    def recall(self, part):
        top1 = self.models[0][part]
        return {"recall_top1": top1, "recall_top3": top1 + 0.1}


@dataclass(frozen=True)
class Parts:
    validation: str = "validation"
    held_out: str = "held out"


@dataclass
class Planted:
    method: str
    value: str
    validation: float
    held_out: float
    log: list

    def train(self, data, *, seed, workers):
        self.log.append((self.method, self.value, seed))
        recalls = {"validation": self.validation, "held out": self.held_out + seed / 100}
        return Answers((recalls,), None, tokens=100 * (seed + 1), wall_s=1.0)


@pytest.fixture
def log():
    return []


@pytest.fixture
def study(log):
    settings = [
        Planted("a", "1", 0.10, 0.50, log),
        Planted("a", "2", 0.20, 0.30, log),  # chosen, though held-out users would like the first one better
        Planted("a", "3", 0.15, 0.40, log),
        Planted("b", "only", 0.12, 0.20, log),
    ]
    return carry_out(settings, Parts(), seeds=(4, 0), workers=1, watch=log.append)


def test_validation_users_choose_and_held_out_users_judge(study):
    assert [(tried.value, tried.chosen) for tried in study.tried if tried.method == "a"] == [
        ("1", False), ("2", True), ("3", False),
    ]  # fmt: skip
    assert [(run.method, run.value, run.seed, run.recall_top1) for run in study.runs] == [
        ("a", "2", 4, pytest.approx(0.34)),
        ("b", "only", 4, pytest.approx(0.24)),
        ("a", "2", 0, pytest.approx(0.30)),
        ("b", "only", 0, pytest.approx(0.20)),
    ]
    assert study.mean("a") == pytest.approx(0.32)


def test_nothing_is_trained_twice_and_each_training_is_told(study, log):
    trained = [entry for entry in log if isinstance(entry, tuple)]
    told = [entry for entry in log if isinstance(entry, str)]
    assert len(trained) == len(set(trained)) == 6
    assert [line.split()[0] for line in told] == [f"[{number}/6]" for number in range(1, 7)]


def test_a_choice_at_an_end_of_its_grid_is_marked(log):
    settings = [Planted("a", str(value), value / 10, 0.1, log) for value in range(3)]
    study = carry_out(settings, Parts(), seeds=(0,), workers=1, watch=log.append)
    assert study.at_edge("a")
    assert "2 (an end of its grid)" in table(study)


def test_a_grid_without_ends_has_no_edge(study):
    assert not study.at_edge("a")
    assert not study.at_edge("b")


def test_rows_give_mean_and_range_over_seeds(study):
    a, b = rows(study)
    assert (a["method"], a["value"], b["method"]) == ("a", "2", "b")
    assert a["recall_top1"] == pytest.approx({"mean": 0.32, "low": 0.30, "high": 0.34})
    assert a["tokens"] == 300


def test_the_table_is_markdown_whose_lines_are_of_one_width(study):
    blocks = table(study).split("\n\n")
    lines = [block.splitlines() for block in blocks if block.startswith("|")]
    assert [len(block) for block in lines] == [4, 6]
    for block in lines:
        assert len({len(line) for line in block}) == 1
        assert len({line.count("|") for line in block}) == 1
    assert "32.00 (30.00–34.00)" in table(study)
    assert np.isfinite(study.mean("b"))


@pytest.mark.parametrize(("axis", "title"), [("tokens", '"tokens"'), ("hours", '"virtual hours"')])
def test_learning_curves_are_plotted_over_the_axis_that_was_asked_for(tmp_path, axis, title):
    curve = [{"tokens": 7, "hours": 0.5, "recall_top1": 0.1, "recall_top3": 0.2}]
    study = Study([], [Run("FedBuff", "-", 0, 0.1, 0.2, 7, 1.0, curve, {})])
    tried = [Tried("FedBuff", "-", 0.1, 0.2, curve, {}, True)]
    document = {"experiment": "async", "question": "how soon FedBuff is", "preset": "small", "logs": "chat"}
    write_results(tmp_path, document, replace(study, tried=tried), columns={}, axis=axis)
    page = (tmp_path / "plot.html").read_text("utf-8")
    assert title in page
    assert "How soon FedBuff is? small, chat" in page
