"""A bundle is whole and its own, or it is refused in one line."""

import hashlib
import json
import os

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

from kbdfl.errors import ConfigError, ModelError
from kbdfl.export.bundle import PRIVACY, load_bundle, write_bundle
from kbdfl.export.precision import PRECISIONS
from kbdfl.export.predictor import Predictor
from kbdfl.export.runtime import open_session
from kbdfl.model import CifgConfig, init_params
from kbdfl.text import Vocabulary

from .conftest import CONFIG, made


@pytest.fixture(params=["int8", "int4"])
def folder(request, tmp_path, vocabulary, params):
    """A fresh bundle that a test may spoil."""
    return made(tmp_path / "model", vocabulary, params, request.param).folder


def refused(folder):
    with pytest.raises(ModelError) as caught:
        Predictor(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_bundle_comes_back_as_it_was_written(bundle, vocabulary):
    assert bundle.config == CONFIG
    assert bundle.vocabulary.tokens == vocabulary.tokens
    assert bundle.vocabulary.source == "made up"
    assert bundle.precision in PRECISIONS


def test_the_manifest_states_hashes_origin_and_privacy(bundle, vocabulary, params):
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    assert sorted(os.listdir(bundle.folder)) == ["manifest.json", "model.onnx", "tokenizer.json"]
    for name in ("model.onnx", "tokenizer.json"):
        content = (bundle.folder / name).read_bytes()
        assert manifest["files"][name] == {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    assert manifest["config"] == {"vocab": 60, "embed": 8, "hidden": 12}
    assert manifest["vocabulary"] == {"size": 60, "sha256": vocabulary.sha256, "source": "made up"}
    assert (manifest["rounds"], manifest["data"], manifest["preset"]) == (7, "nothing", None)
    assert manifest["privacy"] == PRIVACY
    assert manifest["licence"] == "Apache-2.0"
    assert manifest["recall"] is None


def test_the_model_file_states_what_the_manifest_does(tmp_path, vocabulary, params):
    recall = {"top1": 0.25, "top3": 0.5, "version": 6}
    facts = {"rounds": 7, "recall": recall, "privacy": "as it is", "licence": "MIT"}
    manifest = write_bundle(
        tmp_path / "m", params=params, config=CONFIG, vocabulary=vocabulary, precision="int4", facts=facts
    )
    model = onnx.load(tmp_path / "m" / "model.onnx")
    assert manifest["recall"] == recall
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "kbdfl": manifest["kbdfl"],
        "precision": "int4",
        "rounds": "7",
        "recall_top1": "0.25",
        "recall_top3": "0.5",
        "recall_version": "6",
        "privacy": "as it is",
        "licence": "MIT",
        "params_sha256": manifest["params_sha256"],
        "vocabulary_sha256": vocabulary.sha256,
    }


def test_facts_replace_the_defaults_and_the_rest_is_kept(tmp_path, vocabulary, params):
    facts = {"rounds": 3, "privacy": "none", "vocabulary_source": "a list", "who": "us", "preset": "own"}
    manifest = write_bundle(
        tmp_path / "m", params=params, config=CONFIG, vocabulary=vocabulary, precision="int8", facts=facts
    )
    assert (manifest["rounds"], manifest["privacy"], manifest["preset"]) == (3, "none", "own")
    assert manifest["vocabulary"]["source"] == "a list"
    assert manifest["facts"] == {"who": "us"}
    assert load_bundle(tmp_path / "m").manifest == manifest


@pytest.mark.parametrize("precision", PRECISIONS)
def test_equal_models_give_equal_bundles(tmp_path, vocabulary, params, precision):
    folders = [made(tmp_path / name, vocabulary, params, precision).folder for name in "ab"]
    for name in ("model.onnx", "tokenizer.json", "manifest.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_bundle_is_replaced_by_a_newer_one_and_leaves_nothing_behind(folder, vocabulary):
    made(folder, vocabulary, init_params(CONFIG, seed=9), "float32")
    assert load_bundle(folder).precision == "float32"
    assert os.listdir(folder.parent) == ["model"]


def test_a_failed_write_leaves_the_former_bundle_alone(folder, vocabulary, params):
    before = (folder / "manifest.json").read_bytes()
    broken = params.copy()
    broken[0] = np.nan
    with pytest.raises(ModelError, match="finite"):
        made(folder, vocabulary, broken, "int8")
    with pytest.raises(ConfigError, match="JSON"):
        write_bundle(
            folder,
            params=params,
            config=CONFIG,
            vocabulary=vocabulary,
            precision="int8",
            facts={"data": {1, 2}},
        )
    assert (folder / "manifest.json").read_bytes() == before
    assert os.listdir(folder.parent) == ["model"]


def test_the_tokenizer_of_a_bundle_loads_in_plain_tokenizers(bundle, vocabulary):
    plain = Tokenizer.from_file(str(bundle.folder / "tokenizer.json"))
    assert plain.encode("Ba, be KA?").ids == vocabulary.encode("ba be ka")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_flipped_byte_is_refused(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert f"{name} was altered" in refused(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_truncated_or_missing_file_is_refused(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    assert f"{len(content) - 1} bytes where the manifest says {len(content)}" in refused(folder)
    (folder / name).unlink()
    assert f"{name} is missing" in refused(folder)


def test_a_folder_without_a_manifest_is_refused(folder, tmp_path):
    (folder / "manifest.json").unlink()
    assert "not a bundle" in refused(folder)
    assert "not a bundle" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"format": "kbdfl-bundle-9"}',
        '{"format": "kbdfl-bundle-1", "config": 3}',
        "\x00",
    ],
)
def test_a_malformed_manifest_is_refused(folder, content):
    (folder / "manifest.json").write_text(content)
    assert "manifest.json" in refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"vocab": 60, "embed": 8}},
        {"config": {"vocab": -1, "embed": 8, "hidden": 12}},
        {"config": {"vocab": "many", "embed": 8, "hidden": 12}},
        {"config": {"vocab": float("inf"), "embed": 8, "hidden": 12}},
        {"rounds": "many"},
        {"version": []},
        {"files": {}},
        {"files": []},
        {"files": {"../model.onnx": {}, "tokenizer.json": {}}},
        {"files": {"model.onnx": 1, "tokenizer.json": 2}},
        {"vocabulary": None},
        {"precision": "int2"},
        {"precision": []},
    ],
)
def test_a_manifest_with_a_spoilt_part_is_refused(folder, changes):
    edit(folder, **changes)
    assert "manifest.json" in refused(folder)


def replace(folder, name, content):
    """Put another file in, and let the manifest vouch for it."""
    (folder / name).write_bytes(content)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(folder, files=files)


def test_a_vocabulary_of_another_size_or_of_other_words_is_refused(folder, vocabulary):
    words = list(vocabulary.tokens[4:])
    replace(folder, "tokenizer.json", Vocabulary.of_words(words[:-1], "shorter").to_bytes())
    assert "must have the 60 tokens of the model, got 59" in refused(folder)
    replace(folder, "tokenizer.json", Vocabulary.of_words([*words[:-1], "other"], "other").to_bytes())
    assert "other words" in refused(folder)
    replace(folder, "tokenizer.json", b"{}")
    assert "tokenizer.json" in refused(folder)


def test_a_graph_of_another_size_or_that_is_none_is_refused(folder, vocabulary, tmp_path):
    wide = CifgConfig(vocab=CONFIG.vocab, embed=CONFIG.embed, hidden=CONFIG.hidden + 1)
    write_bundle(
        tmp_path / "wide",
        params=init_params(wide, seed=1),
        config=wide,
        vocabulary=vocabulary,
        precision="int8",
        facts={},
    )
    replace(folder, "model.onnx", (tmp_path / "wide" / "model.onnx").read_bytes())
    assert "must be a step graph" in refused(folder)
    replace(folder, "model.onnx", b"no graph at all")
    assert "does not load" in refused(folder)


def test_a_vocabulary_that_does_not_fit_is_not_written(tmp_path, params):
    with pytest.raises(ModelError, match="must have the 60 tokens of the model, got 5"):
        made(tmp_path / "m", Vocabulary.of_words(["a"], ""), params, "int8")
    assert not (tmp_path / "m").exists()


def test_a_session_of_a_good_bundle_opens(bundle):
    assert [node.name for node in open_session(bundle).get_inputs()] == ["token", "state_r", "state_c"]
