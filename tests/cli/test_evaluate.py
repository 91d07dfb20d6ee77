"""`kbdfl evaluate` on JSONL logs and on a source, and what it refuses."""

import gzip
import json

import pytest

from kbdfl.cli.main import main
from kbdfl.device_sim.typing.sources import is_held_out
from kbdfl.evaluation import evaluate_bundle
from kbdfl.export.bundle import load_bundle, write_bundle
from kbdfl.model import CifgConfig, init_params
from kbdfl.text import Vocabulary

CONFIG = CifgConfig(vocab=24, embed=4, hidden=6)
KEYS = {"recall_top1", "recall_top3", "perplexity", "oov_rate", "tokens", "users"}


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
    path = tmp_path / "logs.jsonl"
    lines = [json.dumps({"user": user, "text": text}) for user, texts in messages.items() for text in texts]
    path.write_text("\n".join(lines) + "\n")
    return path


def measured(capsys, model, logs, *arguments):
    main(["evaluate", "--model", str(model), "--logs", str(logs), "--json", *map(str, arguments)])
    return json.loads(capsys.readouterr().out)


def only_figures(result):
    return {key: result[key] for key in KEYS}


def figures(evaluation):
    return {key: getattr(evaluation, key) for key in KEYS}


def test_the_figures_of_a_log_are_those_of_evaluate_bundle(model, logs, messages, capsys):
    result = measured(capsys, model, logs)
    assert only_figures(result) == figures(evaluate_bundle(load_bundle(model), messages))
    assert result["tokens"] == 12 * 6 * 4
    assert result["users"] == 12


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


def test_text_output_is_a_line_a_figure(model, logs, capsys):
    main(["evaluate", "--model", str(model), "--logs", str(logs)])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines.keys() >= KEYS


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
