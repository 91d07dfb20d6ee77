"""Typing logs: what is written is read back, and a malformed line is named."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.device_sim.typing.records import BACKSPACE, Key, Message, read_messages, write_messages
from kbdfl.errors import DataError

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
SECONDS = st.floats(0, 1e9, allow_nan=False)
KEYS = st.lists(
    st.tuples(st.one_of(st.characters(codec="utf-8"), st.just(BACKSPACE)), SECONDS), max_size=5
).map(
    lambda presses: tuple(
        Key(key, time) for (key, _), time in zip(presses, sorted(t for _, t in presses), strict=True)
    )
)
MESSAGE = st.builds(
    Message,
    user=st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
    text=TEXT,
    time=st.none() | SECONDS,
    app=st.none() | TEXT,
    keys=st.none() | KEYS,
)


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_a_log_is_read_back_as_written(name, tmp_path_factory):
    @given(st.lists(MESSAGE, min_size=1, max_size=5))
    def round_trip(messages):
        path = tmp_path_factory.mktemp("log") / name
        assert write_messages(path, messages) == len(messages)
        assert list(read_messages(path)) == messages

    round_trip()


def test_equal_messages_give_equal_bytes_and_gzip_goes_by_suffix(tmp_path):
    first, second = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    for path in (first, second):
        write_messages(path, [Message("ann", "see you")])
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes()) == b'{"user":"ann","text":"see you"}\n'


def test_reading_streams_line_by_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"user": "ann", "text": "one"}\nbroken\n')
    stream = read_messages(path)
    assert next(stream).text == "one"
    with pytest.raises(DataError, match="line 2"):
        next(stream)


def test_keys_can_be_passed_over(tmp_path):
    path = tmp_path / "log.jsonl"
    write_messages(path, [Message("ann", "a", keys=(Key("a", 0.0),))])
    assert next(read_messages(path, keys=False)).keys is None
    assert next(read_messages(path)).keys == (Key("a", 0.0),)


def test_blank_lines_and_unknown_fields_are_no_error(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('\n{"user": "ann", "text": "hi", "mood": 3}\n\n')
    assert list(read_messages(path)) == [Message("ann", "hi")]


GOOD = '{"user": "ann", "text": "hi"}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"user": "ann", "text": "hi", "time": ' + "9" * 5000 + "}", "not JSON"),
        ("[1, 2]", "must be a JSON object"),
        ('{"text": "hi"}', '"user" is missing'),
        ('{"user": "ann"}', '"text" is missing'),
        ('{"user": 7, "text": "hi"}', '"user" must be a string, got 7'),
        ('{"user": "ann", "text": null}', '"text" must be a string, got null'),
        ('{"user": "", "text": "hi"}', '"user" must not be empty'),
        ('{"user": "ann", "text": "\\ud800"}', "surrogate"),
        ('{"user": "ann", "text": "hi", "time": "noon"}', "finite number of seconds"),
        ('{"user": "ann", "text": "hi", "time": NaN}', "finite number of seconds"),
        ('{"user": "ann", "text": "hi", "time": 1e999}', "finite number of seconds"),
        ('{"user": "ann", "text": "hi", "time": true}', "finite number of seconds"),
        ('{"user": "ann", "text": "hi", "app": 3}', '"app" must be a string'),
        ('{"user": "ann", "text": "hi", "keys": "hi"}', '"keys" must be a list'),
        ('{"user": "ann", "text": "hi", "keys": [["h"]]}', "key, seconds"),
        ('{"user": "ann", "text": "hi", "keys": [["hi", 0]]}', "one character or Backspace"),
        ('{"user": "ann", "text": "hi", "keys": [["h", 1], ["i", 0.5]]}', "must not go back"),
    ],
)
def test_a_malformed_line_is_one_line_with_file_and_number(line, reason, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(DataError) as error:
        list(read_messages(path))
    message = str(error.value)
    assert f"{path} line 2: " in message
    assert reason in message
    assert "\n" not in message


def test_text_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(GOOD.encode() + b'\n{"user": "ann", "text": "\xff"}\n')
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        list(read_messages(path))


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_log_is_refused(content, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="is empty"):
        list(read_messages(path))


def test_a_missing_log_is_named(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match="no typing log at"):
            list(read_messages(path))


@pytest.mark.parametrize(
    "harm", [lambda b: b[:-9], lambda b: b[:30] + b"\xff\xff" + b[32:], lambda _: b"plain"]
)
def test_a_cut_or_altered_gzip_file_is_refused(harm, tmp_path):
    path = tmp_path / "log.jsonl.gz"
    lines = "".join(json.dumps({"user": f"u{i}", "text": f"text {i * i}"}) + "\n" for i in range(200))
    path.write_bytes(harm(gzip.compress(lines.encode())))
    with pytest.raises(DataError, match=r"log\.jsonl\.gz"):
        list(read_messages(path))


def test_a_log_without_messages_is_not_written(tmp_path):
    path = tmp_path / "log.jsonl"
    with pytest.raises(DataError, match="at least one message"):
        write_messages(path, [])
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_fails_half_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "log.jsonl"
    write_messages(path, [Message("ann", "old")])

    def fails():
        yield Message("ann", "new")
        raise DataError("no more")

    with pytest.raises(DataError):
        write_messages(path, fails())
    assert [message.text for message in read_messages(path)] == ["old"]
    assert list(tmp_path.iterdir()) == [path]
