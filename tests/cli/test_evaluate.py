"""`kbdfl evaluate` on JSONL logs and on a source, and what it refuses."""

import gzip
import json
import sys
from dataclasses import asdict
from unittest.mock import Mock

import pytest

from kbdfl.cli.main import main
from kbdfl.device_sim.typing.sources import is_held_out
from kbdfl.evaluation import evaluate_baseline, evaluate_bundle
from kbdfl.export.bundle import load_bundle, write_bundle
from kbdfl.model import CifgConfig, init_params
from kbdfl.ngram import Trigram, Unigram
from kbdfl.text import Vocabulary

CONFIG = CifgConfig(vocab=24, embed=4, hidden=6)
SCORES = {"recall_top1", "recall_top3", "mrr", "ksr", "kspc"}
KEYS = SCORES | {"perplexity", "oov_rate", "tokens", "users"}


@pytest.fixture
def model(tmp_path):
    write_bundle(
        tmp_path / "model",
        params=3 * init_params(CONFIG, seed=1),
        config=CONFIG,
        vocabulary=Vocabulary.of_words([f"w{i}" for i in range(CONFIG.vocab - 4)], "made up"),
        precision="float32",
        facts={},
    )
    return tmp_path / "model"


@pytest.fixture
def messages():
    return {f"user{u}": [f"w{u} w{m} what w{(u * m) % 20}" for m in range(6)] for u in range(12)}


@pytest.fixture
def logs(tmp_path, messages):
    return written(tmp_path / "logs.jsonl", messages)


def measured(capsys, model, logs, *arguments, baselines="none"):
    given = ["--model", str(model), "--logs", str(logs), "--baseline-logs", str(baselines), "--json"]
    main(["evaluate", *given, *map(str, arguments)])
    return json.loads(capsys.readouterr().out)


def written(path, messages):
    lines = [json.dumps({"user": user, "text": text}) for user, texts in messages.items() for text in texts]
    path.write_text("\n".join(lines) + "\n")
    return path


def only_figures(result):
    return {key: result[key] for key in KEYS}


def figures(evaluation):
    return {key: getattr(evaluation, key) for key in KEYS}


def test_the_figures_of_a_log_are_those_of_evaluate_bundle(model, logs, messages, capsys):
    result = measured(capsys, model, logs)
    assert only_figures(result) == figures(evaluate_bundle(load_bundle(model), messages))
    assert result["tokens"] == 12 * 6 * 4
    assert result["users"] == 12
    assert result["baselines"] is None
    assert 0 < result["latency_p50_us"] <= result["latency_p99_us"]


def test_a_gzipped_log_measures_the_same(model, logs, tmp_path, capsys):
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(logs.read_bytes()))
    first, second = (measured(capsys, model, path, "--threads", n) for path, n in ((logs, 1), (packed, 2)))
    assert only_figures(first) == only_figures(second)


def test_held_out_and_max_messages_choose_users_and_messages(model, logs, messages, capsys):
    kept = {user: texts[:2] for user, texts in messages.items() if is_held_out(user)}
    assert 0 < len(kept) < len(messages)
    result = measured(capsys, model, logs, "--held-out", "--max-messages", 2)
    assert only_figures(result) == figures(evaluate_bundle(load_bundle(model), kept))


def test_personas_are_measured_without_any_file(model, capsys):
    first, second = (measured(capsys, model, "personas", "--users", 3, "--max-messages", 5) for _ in "ab")
    assert 0 < first["users"] <= 3
    assert first["tokens"] > 0
    assert only_figures(first) == only_figures(second)


def words(texts):
    return [text.split() for text in texts]


def test_baselines_count_training_users_and_are_asked_about_the_same_words(model, logs, messages, capsys):
    known = [f"w{i}" for i in range(CONFIG.vocab - 4)]
    training = words(text for user, texts in messages.items() if not is_held_out(user) for text in texts)
    unseen = words(text for user, texts in messages.items() if is_held_out(user) for text in texts)
    found = measured(capsys, model, logs, "--held-out", baselines=logs)["baselines"]
    assert found["logs"] == "logs.jsonl"
    for name, kind in (("trigram", Trigram), ("unigram", Unigram)):
        assert found[name] == asdict(evaluate_baseline(kind.train(training, words=known), unseen))
        assert found[name].keys() == SCORES
    main(["evaluate", "--model", str(model), "--logs", str(logs), "--held-out", "--json"])
    assert json.loads(capsys.readouterr().out)["baselines"] == found


def test_baselines_may_come_from_another_log(model, logs, messages, tmp_path, capsys):
    user = next(name for name in map(str, range(100)) if not is_held_out(name))
    other = written(tmp_path / "other.jsonl", {user: ["w3 w4"]})
    found = measured(capsys, model, logs, baselines=other)["baselines"]
    everything = words(text for texts in messages.values() for text in texts)
    assert found["unigram"]["recall_top1"] == sum(line.count("w3") for line in everything) / (12 * 6 * 4)


def test_where_chat_is_not_installed_there_are_no_baselines_and_it_says_so(model, logs, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "chitchat_dataset", None)
    main(["evaluate", "--model", str(model), "--logs", str(logs), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["baselines"] is None
    assert "no baselines: " in result["note"]
    assert "--baseline-logs" in result["note"]
    main(["evaluate", "--model", str(model), "--logs", str(logs)])
    assert "note  no baselines: " in capsys.readouterr().out
    refused(capsys, model, logs, "--baseline-logs", "chat")


def test_users_who_are_measured_are_never_counted(model, logs, tmp_path, capsys):
    (tmp_path / "alias.jsonl").symlink_to(logs)
    for same in (logs, logs.parent / "." / ".." / logs.parent.name / logs.name, tmp_path / "alias.jsonl"):
        assert "none to count" in refused(capsys, model, logs, "--baseline-logs", str(same))


def test_a_wrong_source_of_baselines_is_refused_before_the_model_is_measured(
    model, logs, capsys, monkeypatch
):
    monkeypatch.setattr("kbdfl.evaluation.evaluate_bundle", Mock(side_effect=AssertionError("measured")))
    assert "none.jsonl" in refused(capsys, model, logs, "--baseline-logs", "none.jsonl")


def test_a_log_of_one_user_is_measured_whole(model, tmp_path, capsys):
    alone = written(tmp_path / "alone.jsonl", {"a": ["w1"] * 250})
    both = written(tmp_path / "both.jsonl", {"a": ["w1"] * 250, "b": ["w1"]})
    assert measured(capsys, model, alone)["tokens"] == 250
    assert measured(capsys, model, alone, "--max-messages", 9)["tokens"] == 9
    assert measured(capsys, model, both)["tokens"] == 201


def test_text_output_shows_the_baselines_beside_the_model(model, logs, capsys):
    main(["evaluate", "--model", str(model), "--logs", str(logs), "--held-out"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["recall@1", "recall@3", "mrr", "ksr", "kspc"]
    rows = [line.rsplit(maxsplit=5) for line in lines[:3]]
    assert [row[0] for row in rows] == ["model, float32", "trigram of logs.jsonl", "unigram of logs.jsonl"]
    assert all(0 <= float(figure) <= 1 for row in rows for figure in row[1:])
    rest = dict(line.split(maxsplit=1) for line in lines[4:])
    assert rest.keys() >= KEYS - SCORES | {"latency_p50_us", "latency_p99_us", "seconds"}


def refused(capsys, model, logs, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--model", str(model), "--logs", str(logs), *arguments])
    output = capsys.readouterr()
    assert stop.value.code == 2
    assert output.out == ""
    assert output.err.startswith("kbdfl: ")
    assert output.err.count("\n") == 1
    return output.err


@pytest.mark.parametrize(
    "content",
    ["", "{}\n", "not json\n", '{"user": "a", "text": 3}\n', '{"user": "a", "text": " ... "}\n', "\x00\n"],
)
def test_an_empty_or_malformed_log_is_refused_in_one_line(model, tmp_path, capsys, content):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    refused(capsys, model, path)


def test_a_missing_log_or_bundle_is_refused_in_one_line(model, logs, tmp_path, capsys):
    assert "none.jsonl" in refused(capsys, model, tmp_path / "none.jsonl")
    assert "not a bundle" in refused(capsys, tmp_path / "none", logs)
    refused(capsys, model, "nonsense")


def test_a_log_without_held_out_users_is_refused(model, tmp_path, capsys):
    path = tmp_path / "one.jsonl"
    user = next(name for name in map(str, range(100)) if not is_held_out(name))
    path.write_text(json.dumps({"user": user, "text": "w1 w2"}) + "\n")
    assert "held out" in refused(capsys, model, path, "--held-out")


def test_a_tampered_bundle_is_refused(model, logs, capsys):
    (model / "model.onnx").write_bytes((model / "model.onnx").read_bytes()[:-1] + b"\xff")
    assert "altered" in refused(capsys, model, logs)
