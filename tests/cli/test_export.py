"""`kbdfl export` on a run folder: what it writes, what it prints, what it refuses."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from kbdfl.cli.main import main
from kbdfl.export.bundle import load_bundle
from kbdfl.export.predictor import Predictor
from kbdfl.model import CifgConfig, init_params
from kbdfl.params import save_checkpoint
from kbdfl.text import Vocabulary

CONFIG = CifgConfig(vocab=24, embed=4, hidden=6)
WORDS = [f"w{i}" for i in range(CONFIG.vocab - 4)]


def metadata(vocabulary, **changes):
    facts = {
        "config": {"vocab": CONFIG.vocab, "embed": CONFIG.embed, "hidden": CONFIG.hidden},
        "round": 12,
        "version": 11,
        "vocabulary_sha256": vocabulary.sha256,
        "vocabulary_source": "a public list",
        "data": "made up",
    }
    return facts | changes


@pytest.fixture
def run(tmp_path):
    """A run folder with two checkpoints, of which the second is the newest."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    vocabulary = Vocabulary.of_words(WORDS, "a public list")
    vocabulary.save(folder / "tokenizer.json")
    for version in (9, 11):
        path = folder / "checkpoints" / f"{version:06d}.safetensors"
        params = init_params(CONFIG, seed=version)
        save_checkpoint(path, params, CONFIG.spec, metadata(vocabulary, version=version))
    rows = [(8, 0.1, 0.3), (10, 0.2, 0.4), (11, None, None), (12, 0.9, 0.9)]
    (folder / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"version": version, "recall_top1": top1, "recall_top3": top3}) + "\n"
            for version, top1, top3 in rows
        )
    )
    return folder


def newest(run):
    return run / "checkpoints" / "000011.safetensors"


def exported(capsys, *arguments):
    main(["export", *map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments):
    """The one line of an export that ends with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main(["export", *map(str, arguments)])
    output = capsys.readouterr()
    assert stop.value.code == 2
    assert output.out == ""
    assert output.err.startswith("kbdfl: ")
    assert output.err.count("\n") == 1
    return output.err


def test_all_precisions_are_written_and_agree_with_the_newest_checkpoint(run, capsys):
    result = exported(capsys, run)
    assert result["checkpoint"] == str(newest(run))
    assert [(b["folder"], b["precision"]) for b in result["bundles"]] == [
        (str(run / "model"), "float32"),
        (str(run / "model-int8"), "int8"),
        (str(run / "model-int4"), "int4"),
    ]
    exact, int8, int4 = (written["onnx_max_abs_diff"] for written in result["bundles"])
    assert exact < 1e-5 < int8 < int4 < 1
    for written in result["bundles"]:
        manifest = load_bundle(written["folder"]).manifest
        assert manifest["files"] == written["files"]
        assert (manifest["rounds"], manifest["version"], manifest["data"]) == (11, 11, "made up")
        assert manifest["vocabulary"]["source"] == "a public list"
        assert manifest["recall"] == {"top1": 0.2, "top3": 0.4, "version": 10}
        assert len(Predictor(written["folder"]).suggest("w1 ")) == 3


@pytest.mark.parametrize(
    ("name", "precision", "folder"),
    [
        ("float32", "float32", "model"),
        ("fp32", "float32", "model"),
        ("int8", "int8", "model-int8"),
        ("int4", "int4", "model-int4"),
    ],
)
def test_one_precision_is_written_alone(run, capsys, name, precision, folder):
    (written,) = exported(capsys, run, "--precision", name)["bundles"]
    assert written["folder"] == str(run / folder)
    assert load_bundle(run / folder).precision == precision
    assert sorted(p.name for p in run.iterdir() if p.name.startswith("model")) == [folder]


def test_out_says_where(run, tmp_path, capsys):
    exported(capsys, run, "--precision", "int8", "--out", tmp_path / "there" / "tiny")
    assert load_bundle(tmp_path / "there" / "tiny").precision == "int8"
    exported(capsys, run, "--out", tmp_path / "all")
    for folder, precision in (("all", "float32"), ("all-int8", "int8"), ("all-int4", "int4")):
        assert load_bundle(tmp_path / folder).precision == precision
    assert not (run / "model").exists()


def test_out_may_be_the_current_folder(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    exported(capsys, run, "--out", ".")
    assert load_bundle(tmp_path / "here").precision == "float32"
    assert load_bundle(tmp_path / "here-int8").precision == "int8"


def test_a_run_whose_tokenizer_stands_in_its_bundle_is_exported_again(run, capsys):
    first = exported(capsys, run)
    (run / "tokenizer.json").unlink()
    assert exported(capsys, run) == first


def test_text_output_names_sizes_hashes_and_agreement(run, capsys):
    main(["export", str(run), "--precision", "int8"])
    text = capsys.readouterr().out
    manifest = load_bundle(run / "model-int8").manifest
    assert manifest["files"]["model.onnx"]["sha256"] in text
    assert f"{manifest['files']['model.onnx']['bytes']:,} bytes" in text
    assert "largest difference" in text


def test_a_servers_folder_is_exported_from_its_checkpoint_not_from_its_rules_state(run, capsys):
    save_file({"m": np.zeros(3, np.float32)}, run / "checkpoints" / "000011.server.safetensors")
    assert exported(capsys, run)["checkpoint"] == str(newest(run))
    millionth = newest(run).rename(run / "checkpoints" / "1000011.safetensors")
    assert exported(capsys, run, "--precision", "int8")["checkpoint"] == str(millionth)


def test_a_missing_run_or_checkpoint_is_refused(run, tmp_path, capsys):
    assert "no run folder" in refused(capsys, tmp_path / "none")
    assert "has no checkpoints" in refused(capsys, tmp_path)
    assert "no run folder" in refused(capsys, newest(run))


def test_a_damaged_checkpoint_is_refused(run, capsys):
    content = bytearray(newest(run).read_bytes())
    content[-1] ^= 1
    newest(run).write_bytes(content)
    assert "damaged" in refused(capsys, run)
    newest(run).write_bytes(b"nothing")
    assert "not a kbdfl checkpoint" in refused(capsys, run)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "does not say"),
        ({}, "does not say"),
        ({"vocab": 24, "embed": 4, "hidden": "x"}, "does not say"),
        ({"vocab": 24, "embed": 4, "hidden": 0}, "does not say"),
        ({"vocab": 24, "embed": 4, "hidden": 7}, "other shapes"),
    ],
)
def test_a_checkpoint_that_does_not_know_its_shape_is_refused(run, capsys, config, reason):
    vocabulary = Vocabulary.load(run / "tokenizer.json")
    facts = metadata(vocabulary, config=config)
    save_checkpoint(newest(run), init_params(CONFIG, seed=1), CONFIG.spec, facts)
    assert reason in refused(capsys, run)


def test_a_vocabulary_that_does_not_fit_the_model_is_refused(run, capsys):
    Vocabulary.of_words(WORDS[:-1], "").save(run / "tokenizer.json")
    assert "must have the 24 tokens of the model, got 23" in refused(capsys, run)
    Vocabulary.of_words([*WORDS[:-1], "other"], "").save(run / "tokenizer.json")
    assert "is not the one that 000011.safetensors was trained with" in refused(capsys, run)
    (run / "tokenizer.json").write_text("{}")
    assert "not a tokenizer.json" in refused(capsys, run)
    (run / "tokenizer.json").unlink()
    assert "no tokenizer.json" in refused(capsys, run)


def test_parameters_that_are_not_finite_are_refused_and_nothing_is_written(run, capsys):
    vocabulary = Vocabulary.load(run / "tokenizer.json")
    params = init_params(CONFIG, seed=1)
    params[3] = np.nan
    save_checkpoint(newest(run), params, CONFIG.spec, metadata(vocabulary))
    assert "finite" in refused(capsys, run)
    assert not (run / "model").exists()


def test_an_output_folder_that_is_a_file_is_refused(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        main(["export", str(run), "--out", str(tmp_path / "file")])
    assert stop.value.code == 2
    assert "is a file" in capsys.readouterr().err
