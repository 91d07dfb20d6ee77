"""The newest model of a run folder: which checkpoint, and what is known of it."""

import json

import pytest

from kbdfl.errors import ModelError
from kbdfl.export.run import measured_recall, read_run
from kbdfl.params import save_checkpoint

from .conftest import CONFIG


def row(version, top1=None, top3=None):
    return {"version": version, "recall_top1": top1, "recall_top3": top3}


@pytest.fixture
def run(tmp_path, vocabulary, params):
    """A run folder with the checkpoint of version 5, and no metrics yet."""
    (tmp_path / "checkpoints").mkdir()
    facts = {"config": CONFIG.dims, "version": 5, "data": "made up"}
    save_checkpoint(tmp_path / "checkpoints" / "000005.safetensors", params, CONFIG.spec, facts)
    vocabulary.save(tmp_path / "tokenizer.json")
    return tmp_path


def write_rows(run, *rows):
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_recall_is_that_of_the_newest_measured_version_up_to_the_checkpoint():
    rows = [row(1, 0.1, 0.2), row(2, 0.3, 0.4), row(3), row(4, 0.5, 0.6)]
    assert measured_recall(rows, version=4) == {"top1": 0.5, "top3": 0.6, "version": 4}
    assert measured_recall(rows, version=3) == {"top1": 0.3, "top3": 0.4, "version": 2}
    assert measured_recall(rows, version=0) is None
    assert measured_recall([row(1)], version=1) is None


def test_a_runs_facts_hold_rounds_data_and_recall(run, params):
    assert read_run(run).facts == {"version": 5, "rounds": 5, "data": "made up", "recall": None}
    write_rows(run, row(4, 0.1, 0.2), row(5, 0.3, 0.4), row(6, 0.5, 0.6))
    model = read_run(run)
    assert model.facts["recall"] == {"top1": 0.3, "top3": 0.4, "version": 5}
    assert (model.params == params).all()
    assert model.config == CONFIG


@pytest.mark.parametrize(
    "content", ["{", "[]\n", "7\n", '{"round": 1}\n', '{"version": "x", "recall_top1": 0.1}\n']
)
def test_metrics_that_are_no_rows_are_refused(run, content):
    (run / "metrics.jsonl").write_text(content)
    with pytest.raises(ModelError, match="must hold a round's JSON object a line"):
        read_run(run)
