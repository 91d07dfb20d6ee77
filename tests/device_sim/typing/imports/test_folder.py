"""Hugging Face datasets: Arrow and Parquet files, whole and broken."""

import sys

import pytest

from kbdfl.device_sim.typing.imports.folder import read_folder
from kbdfl.device_sim.typing.imports.importing import import_typing
from kbdfl.device_sim.typing.imports.items import Malformed, Options, Skipped
from kbdfl.device_sim.typing.records import Message, read_messages
from kbdfl.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path):
    """Two splits as `save_to_disk` writes them (Arrow streams), a Parquet file, and a cache that is no data."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def table(texts):
        count = len(texts)
        return pyarrow.table(
            {"text": texts, "author": ["ann"] * count, "time": list(range(count)), "n": [0] * count}
        )

    path = tmp_path / "set"
    for split, texts in {"train": ["one", None, "two"], "test": ["three"]}.items():
        (path / split).mkdir(parents=True)
        for name in ("data-00000-of-00001.arrow", "cache-1.arrow"):
            with (
                pyarrow.OSFile(str(path / split / name), "wb") as sink,
                pyarrow.ipc.new_stream(sink, table(texts).schema) as writer,
            ):
                writer.write_table(table(texts), max_chunksize=2)
    (path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    parquet.write_table(table(["four"] * 5000), path / "more.parquet", row_group_size=100)
    return path


def test_all_splits_are_read_and_what_was_cached_is_not(folder, tmp_path):
    summary = import_typing(folder, tmp_path / "log.jsonl", format="auto", options=Options())
    messages = list(read_messages(tmp_path / "log.jsonl"))
    assert summary.format == "datasets"
    assert [message.text for message in messages] == ["four"] * 5000 + ["three", "one", "two"]
    assert messages[-1] == Message("ann", "two", 2.0)
    assert summary.skipped == {"no text": 1}


def test_a_single_file_is_a_dataset_too(folder):
    assert len(list(read_folder(folder / "more.parquet", Options()))) == 5000
    assert list(read_folder(folder / "test" / "data-00000-of-00001.arrow", Options())) == [
        Message("ann", "three", 0.0)
    ]


def test_a_random_access_arrow_file_is_read(folder):
    import pyarrow

    path = folder / "file.arrow"
    table = pyarrow.table({"text": ["a", "b"]})
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert list(read_folder(path, Options())) == [Message("me", "a"), Message("me", "b")]


def test_columns_go_by_option_and_rows_of_another_kind_are_named(folder):
    items = list(
        read_folder(folder / "train", Options(text_column="author", user_column="n", time_column="text"))
    )
    assert items == [Malformed(1, "the time is none"), Message("0", "ann"), Malformed(3, "the time is none")]
    assert list(read_folder(folder / "test", Options(text_column="n"))) == [
        Malformed(1, "the text is no string")
    ]
    with pytest.raises(ConfigError, match="text_column must be one of the dataset's"):
        list(read_folder(folder, Options(text_column="nothing")))


@pytest.mark.parametrize(
    "harm", [lambda b: b[: len(b) // 2], lambda b: b"PAR1" + b[:40], lambda _: b"nothing at all"]
)
def test_a_broken_file_is_named_and_the_next_is_read(harm, folder):
    for name in ("more.parquet", "test/data-00000-of-00001.arrow"):
        path = folder / name
        path.write_bytes(harm(path.read_bytes()))
    items = list(read_folder(folder, Options()))
    assert [item.line for item in items if isinstance(item, Malformed)] == [1, 1]
    assert [item for item in items if not isinstance(item, Malformed)] == [
        Message("ann", "one", 0.0),
        Skipped("no text"),
        Message("ann", "two", 2.0),
    ]


def test_without_pyarrow_it_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r'pip install "kbdfl\[datasets\]"'):
        list(read_folder(tmp_path, Options()))


def test_a_folder_without_data_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match="holds no Arrow"):
        list(read_folder(tmp_path, Options()))
