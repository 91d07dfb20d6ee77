"""LEAF, JSON lines and tables: times, columns, separators."""

import json
from datetime import UTC

import pytest

from kbdfl.device_sim.typing.imports import leaf
from kbdfl.device_sim.typing.imports.items import Malformed, Note, Options
from kbdfl.device_sim.typing.imports.jsonl import read_jsonl
from kbdfl.device_sim.typing.imports.leaf import read_leaf
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.device_sim.typing.imports.table import read_table
from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    def items(importer, text, **options):
        path = tmp_path / "file"
        path.write_text(text, "utf-8")
        return list(importer(Opened(path), Options(zone=UTC, **options)))

    return items


def document(**samples):
    return json.dumps({"users": list(samples), "user_data": samples})


def test_labels_give_times_to_their_own_samples(read):
    text = document(
        a={"x": ["one", 2, "three"], "y": [{"time": 1}, {"time": 2}, {"time": "never"}]}, b={"x": ["four"]}
    )
    assert read(read_leaf, text) == [
        Message("a", "one", 1.0),
        Malformed(1, "a sample is no text: number 2 of user 1"),
        Malformed(1, "the time is none"),
        Message("b", "four"),
    ]


def test_a_user_with_very_many_samples_keeps_texts_and_the_last_times(read, monkeypatch):
    monkeypatch.setattr(leaf, "MOST_WAITING", 3)
    texts = [f"text {number}" for number in range(8)]
    text = document(a={"x": texts, "y": [{"time": number} for number in range(8)]})
    items = read(read_leaf, text)
    assert [item.text for item in items] == texts
    assert [item.time for item in items] == [None] * 6 + [6.0, 7.0]


def test_windows_over_a_play_are_kept_once_a_length(read):
    play = "to be or not to be that is the question"
    windows = [play[i : i + 8] for i in range(len(play) - 7)]
    kept = [item.text for item in read(read_leaf, document(a={"x": windows})) if isinstance(item, Message)]
    assert "".join(kept) == play[: len(kept) * 8]
    assert len(kept) == 4


def test_short_messages_and_repeated_ones_are_no_windows(read):
    texts = ["no", "ok", "ok", "hahah", "ahaha", "........", "........"]
    assert [item.text for item in read(read_leaf, document(a={"x": texts}))] == texts


def test_columns_are_found_by_usual_names_or_by_option(read):
    table = "Id;Author;Body;Sent_At\n1;ann;hello;1\n"
    assert read(read_table, table) == [Message("ann", "hello", 1.0)]
    assert read(read_table, table, text_column="Author", user_column="Id") == [Message("1", "ann", 1.0)]
    assert read(
        read_jsonl, '{"who": 7, "said": "hi", "text": "x"}\n', text_column="said", user_column="who"
    ) == [Message("7", "hi")]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_every_separator_is_found(separator, read):
    table = separator.join(["text", "user"]) + "\n" + separator.join(['"a ""b"" c"', "ann"]) + "\n"
    assert read(read_table, table) == [Message("ann", 'a "b" c')]


@pytest.mark.parametrize("importer", [read_table, read_jsonl])
def test_a_column_that_is_not_there_is_refused(importer, read):
    text = "text,user\nhello,ann\n" if importer is read_table else '{"text": "hello"}\n'
    with pytest.raises(ConfigError, match="said"):
        read(importer, text, text_column="said")
    with pytest.raises(ConfigError, match="text_column must say"):
        read(read_table, "a,b\n1,2\n")


def test_a_tables_dates_are_read_in_the_order_that_fits_them_all(read):
    table = "text,time\na,1/2/2024 10:00\nb,1/31/2024 10:00\n"
    first, second = read(read_table, table)
    assert second.time - first.time == 29 * 86_400
    items = read(read_table, "text,time\na,1/2/2024 10:00\nb,1/3/2024 10:00\n")
    assert isinstance(items[0], Note)
    assert read(read_table, table, dates="dmy")[1] == Malformed(3, "the time is none")


def test_json_lines_dates_are_read_in_the_order_that_fits_them_all(read):
    def lines(*dates):
        return "".join(json.dumps({"text": "a", "time": date}) + "\n" for date in dates)

    first, second = read(read_jsonl, lines("1/2/2024 10:00", "1/31/2024 10:00"))
    assert second.time - first.time == 29 * 86_400
    assert isinstance(read(read_jsonl, lines("1/2/2024 10:00", "1/3/2024 10:00"))[0], Note)
    assert [item.time for item in read(read_jsonl, lines(None, 5, "1970-01-01T00:00:06Z"))] == [
        None,
        5.0,
        6.0,
    ]


def test_a_quote_that_stays_open_costs_what_it_swallows_and_no_more(read):
    rows = [f'"row {number}"' for number in range(9)]
    rows[3] = '"row 3'
    items = read(read_table, "text\n" + "\n".join(rows) + "\n")
    kept = [item.text for item in items if isinstance(item, Message)]
    assert kept == [f"row {number}" for number in (0, 1, 2, 5, 6, 7, 8)]
    assert sum(isinstance(item, Malformed) for item in items) == 1


def test_a_cell_of_any_length_is_named_and_passed(read):
    items = read(read_table, "text\nfirst\n" + "x" * 500_000 + "\nlast\n")
    assert [getattr(item, "text", None) for item in items] == ["first", None, "last"]
    assert items[1] == Malformed(3, "a cell is too long")
