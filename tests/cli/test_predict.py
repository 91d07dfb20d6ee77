"""`kbdfl predict`: three words with probabilities, or one line that says what is wrong."""

import io
import json
import sys
from unittest.mock import Mock

import pytest

from kbdfl.cli.main import main
from kbdfl.export.bundle import load_bundle, write_bundle
from kbdfl.export.predictor import Predictor
from kbdfl.model import CifgConfig, init_params
from kbdfl.text import Vocabulary

CONFIG = CifgConfig(vocab=24, embed=4, hidden=6)


@pytest.fixture
def model(tmp_path):
    write_bundle(
        tmp_path / "model",
        params=3 * init_params(CONFIG, seed=1),
        config=CONFIG,
        vocabulary=Vocabulary.of_words([f"w{i}" for i in range(CONFIG.vocab - 4)], "made up"),
        precision="int8",
        facts={},
    )
    return tmp_path / "model"


def test_predict_prints_three_words_with_probabilities(model, capsys):
    main(["predict", "--model", str(model), "w1 w2"])
    expected = Predictor(load_bundle(model)).suggest("w1 w2 ")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [[s.word, f"{s.probability:.4f}"] for s in expected]
    assert len(lines) == 3


def test_predict_json_is_one_object(model, capsys):
    main(["predict", "--model", str(model), "w1", "-k", "5", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["text"] == "w1"
    assert len(result["suggestions"]) == 5
    assert all(0 < s["probability"] < 1 for s in result["suggestions"])


def test_complete_goes_on_with_the_last_word(model, capsys):
    main(["predict", "--model", str(model), "w2 w1", "--complete", "--json", "-k", "11"])
    words = [s["word"] for s in json.loads(capsys.readouterr().out)["suggestions"]]
    assert sorted(words) == sorted(["w1", *(f"w1{i}" for i in range(10))])
    main(["predict", "--model", str(model), "zz", "--complete"])
    assert capsys.readouterr().out == "zz  as typed\n"


def test_blocked_words_are_not_suggested(model, capsys):
    first, second, third, fourth = (s.word for s in Predictor(model).suggest("w1 ", k=4))
    main(["predict", "--model", str(model), "w1", "--block", first.upper(), "--block", third])
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert words[:2] == [second, fourth]
    main(["predict", "--model", str(model), "w1", "--json", *(f"--block=w{i}" for i in range(20))])
    assert json.loads(capsys.readouterr().out)["suggestions"] == []
    main(["predict", "--model", str(model), "w1", *(f"--block=w{i}" for i in range(20))])
    assert capsys.readouterr().out == "no suggestion\n"


@pytest.fixture
def piped(monkeypatch):
    def pipe(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))

    return pipe


def test_lines_from_a_pipe_are_answered_one_by_one(model, capsys, piped):
    predictor = Predictor(model)
    expected = [[s.word for s in predictor.suggest(text)] for text in ("w1 w2 ", " ", "w3 ")]
    piped(b"w1 w2\n\nw3")
    main(["predict", "--model", str(model)])
    assert [line.split("\t") for line in capsys.readouterr().out.splitlines()] == expected
    piped(b"w1 w2\r\n\r\nw3\r\n")
    main(["predict", "--model", str(model), "--json"])
    answers = json.loads(capsys.readouterr().out)["lines"]
    assert [answer["text"] for answer in answers] == ["w1 w2", "", "w3"]
    assert [[s["word"] for s in answer["suggestions"]] for answer in answers] == expected


def test_a_pipe_may_be_empty_or_no_utf8(model, capsys, piped):
    piped(b"")
    main(["predict", "--model", str(model)])
    assert capsys.readouterr().out == ""
    piped(b"w1 \xff\n")
    main(["predict", "--model", str(model)])
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_the_strip_needs_a_terminal_on_both_sides(model, capsys, monkeypatch, arguments):
    """Standard output is no terminal here."""
    monkeypatch.setattr(sys, "stdin", Mock(isatty=lambda: True))
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--model", str(model), *arguments])
    assert stop.value.code == 2
    assert "TEXT must be given" in capsys.readouterr().err


@pytest.mark.parametrize("spoil", ["folder", "tampered", "manifest", "vocabulary"])
def test_a_bundle_that_is_not_whole_is_refused_in_one_line(model, capsys, spoil):
    if spoil == "folder":
        model = model / "nowhere"
    elif spoil == "tampered":
        (model / "model.onnx").write_bytes((model / "model.onnx").read_bytes()[:-1] + b"\xff")
    elif spoil == "manifest":
        (model / "manifest.json").write_text("[")
    else:
        Vocabulary.of_words(["w1"], "").save(model / "tokenizer.json")
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--model", str(model), "w1"])
    output = capsys.readouterr()
    assert stop.value.code == 2
    assert output.out == ""
    assert output.err.startswith("kbdfl: ")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["w1\udcff"], ["w1", "--block", "w2\udcff"]])
def test_arguments_that_are_no_utf8_are_refused(model, refused, arguments):
    """As Python passes the byte ff on."""
    assert "must be UTF-8" in refused("predict", "--model", model, *arguments)


@pytest.mark.parametrize("arguments", [["-k", "0"], ["-k", "some"], []])
def test_bad_options_are_usage_errors(model, capsys, arguments):
    given = ["--model", str(model), *arguments] if arguments else []
    with pytest.raises(SystemExit) as stop:
        main(["predict", "w1", *given])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("kbdfl: ")
    assert error.count("\n") == 1
