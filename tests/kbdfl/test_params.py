import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save, save_file

from kbdfl.errors import ModelError
from kbdfl.params import ParamSpec, digest, load_checkpoint, save_checkpoint, write_atomically

SPEC = ParamSpec((("emb", (5, 3)), ("bias", (5,))))
FACTS = {"round": 3, "version": 2, "config": {"vocab": 5}, "data": "çedilla", "loss": 2.5, "none": None}


def vector(seed=0):
    return np.random.default_rng(seed).standard_normal(SPEC.size).astype(np.float32)


def saved(folder, flat=None, metadata=FACTS):
    path = folder / "model.safetensors"
    save_checkpoint(path, vector() if flat is None else flat, SPEC, metadata)
    return path


SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


@given(st.lists(SHAPES, min_size=1, max_size=5))
def test_views_cover_the_vector_once_and_in_order(shapes):
    spec = ParamSpec(tuple((f"tensor{i}", shape) for i, shape in enumerate(shapes)))
    flat = np.arange(spec.size, dtype=np.float32)
    views = spec.views(flat)
    assert [view.shape for view in views.values()] == shapes
    np.testing.assert_array_equal(np.concatenate([view.ravel() for view in views.values()]), flat)
    for view in views.values():
        view[:] = -1  # writing to a view writes to the vector
    assert (flat == -1).all()


def test_views_need_a_vector_of_the_specs_size():
    for flat in (np.zeros(19, np.float32), np.zeros((4, 5), np.float32)):
        with pytest.raises(ModelError, match="a flat vector of 20 parameters is needed"):
            SPEC.views(flat)


def test_a_layout_has_a_hash_of_names_shapes_and_order():
    others = [
        ParamSpec((("emb", (3, 5)), ("bias", (5,)))),
        ParamSpec((("emb", (5, 3)), ("bios", (5,)))),
        ParamSpec((("bias", (5,)), ("emb", (5, 3)))),
    ]
    assert len({spec.hash for spec in (SPEC, *others)}) == 4
    assert ParamSpec((("emb", (5, 3)), ("bias", (5,)))).hash == SPEC.hash
    assert len(SPEC.hash) == 16


def test_a_digest_names_the_values_whatever_their_memory():
    flat = vector()
    twice = np.repeat(flat, 2)[::2]
    assert not twice.flags.c_contiguous
    assert digest(flat) == digest(twice) == digest(flat.astype(">f4"))
    changed = flat.copy()
    changed[7] = np.nextafter(changed[7], np.float32(9))
    assert digest(changed) != digest(flat)


def test_a_checkpoint_reads_back_what_was_written(tmp_path):
    flat, spec, metadata = load_checkpoint(saved(tmp_path))
    np.testing.assert_array_equal(flat, vector())
    assert flat.dtype == np.float32
    assert spec == SPEC
    assert {name: metadata[name] for name in FACTS} == FACTS
    assert metadata["sha256"] == digest(vector())


def test_equal_content_gives_equal_bytes(tmp_path):
    contents = set()
    for number in range(8):
        metadata = FACTS if number % 2 else dict(reversed(FACTS.items()))
        contents.add(saved(tmp_path, metadata=metadata).read_bytes())
    assert len(contents) == 1
    assert saved(tmp_path, vector(1)).read_bytes() not in contents
    assert saved(tmp_path, metadata=FACTS | {"round": 4}).read_bytes() not in contents


def test_what_was_read_can_be_written_again_in_the_same_bytes(tmp_path):
    path = saved(tmp_path)
    content = path.read_bytes()
    flat, spec, metadata = load_checkpoint(path)
    save_checkpoint(path, flat, spec, metadata)
    assert path.read_bytes() == content


def test_float64_parameters_are_kept_as_float32(tmp_path):
    flat, _, _ = load_checkpoint(saved(tmp_path, vector().astype(np.float64)))
    np.testing.assert_array_equal(flat, vector())


def test_other_tools_see_plain_named_tensors(tmp_path):
    with safe_open(saved(tmp_path), framework="numpy") as file:
        assert set(file.keys()) == {"emb", "bias"}
        np.testing.assert_array_equal(file.get_tensor("emb"), vector()[:15].reshape(5, 3))


def test_any_changed_byte_is_refused(tmp_path):
    path = saved(tmp_path)
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with pytest.raises(ModelError):
            load_checkpoint(path)


@pytest.mark.parametrize(
    ("old", "new"), [(b'round\\": 3', b'round\\": 4'), (b"[5, 3]", b"[3, 5]"), (b"2.5", b"2.6")]
)
def test_a_changed_fact_is_refused(tmp_path, old, new):
    path = saved(tmp_path)
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(ModelError, match="is damaged: its description"):
        load_checkpoint(path)


def test_tensors_of_other_shapes_than_the_spec_are_refused(tmp_path):
    path = saved(tmp_path)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    path.write_bytes(save({"emb": vector()[:15].reshape(3, 5), "bias": vector()[15:]}, metadata=metadata))
    with pytest.raises(ModelError, match="is damaged: its description"):
        load_checkpoint(path)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_a_truncated_or_longer_file_is_refused(tmp_path_factory, data):
    path = saved(tmp_path_factory.mktemp("cut"))
    content = path.read_bytes()
    if data.draw(st.booleans()):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    else:
        path.write_bytes(content + data.draw(st.binary(min_size=1, max_size=20)))
    with pytest.raises(ModelError, match="is not a kbdfl checkpoint") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "document",
    [
        None,
        "not json",
        "[]",
        "null",
        "{}",
        json.dumps({"spec": "emb", "sha256": "", "seal": ""}),
        json.dumps({"spec": [], "sha256": "", "seal": ""}),
        json.dumps({"spec": [["emb", 3]], "sha256": "", "seal": ""}),
        json.dumps({"spec": [["other", [3]]], "sha256": "", "seal": ""}),
        json.dumps({"spec": [["emb", [3]]], "sha256": ""}),
    ],
)
def test_another_programs_safetensors_file_is_refused(tmp_path, document):
    path = tmp_path / "other.safetensors"
    metadata = None if document is None else {"kbdfl": document}
    save_file({"emb": np.zeros(3, np.float32)}, path, metadata=metadata)
    with pytest.raises(ModelError, match="is not a kbdfl checkpoint") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_what_is_no_checkpoint_at_all_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "missing.safetensors")
    with pytest.raises(ModelError, match="is not a kbdfl checkpoint"):
        load_checkpoint(tmp_path)
    (tmp_path / "notes").write_text("hello " * 50)
    with pytest.raises(ModelError, match="is not a kbdfl checkpoint"):
        load_checkpoint(tmp_path / "notes")


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new" * 1000)
    assert path.read_bytes() == b"old"


def test_a_reader_sees_the_old_content_or_the_new(tmp_path):
    path, seen = tmp_path / "file", set()
    write_atomically(path, b"0" * 10_000)
    stop = threading.Event()

    def read():
        while not stop.is_set():
            content = path.read_bytes()
            seen.add((len(content), len(set(content))))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(50):
        write_atomically(path, str(number % 10).encode() * 10_000)
    stop.set()
    reader.join()
    assert seen == {(10_000, 1)}
    assert list(tmp_path.iterdir()) == [path]
