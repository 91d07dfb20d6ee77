"""A phone's log is bounded, expires, survives on disk, and is encoded once a vocabulary."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.device_sim import store
from kbdfl.device_sim.store import Retention, TypingLog
from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import ConfigError, DataError
from kbdfl.text import Vocabulary


def message(text, time=None):
    return Message("ann", text, time)


def texts(log):
    return [m.text for m in log.messages]


TIMES = st.none() | st.floats(0, 1000).map(lambda t: round(t, 2))
MESSAGES = st.lists(st.builds(message, st.text(max_size=12), TIMES), max_size=30)
BOUNDS = st.builds(Retention, st.integers(1, 12), st.integers(1, 60), st.floats(1, 500))


def kept_by(bounds, messages):
    """What a log that got these messages one batch after another should hold, said plainly."""
    kept = deque()
    for batch in messages:
        kept.extend(batch)
        newest = max((m.time for m in kept if m.time is not None), default=0)
        kept = deque(m for m in kept if m.time is None or newest - m.time <= bounds.max_age_s)
        while len(kept) > bounds.max_messages or sum(len(m.text.encode()) for m in kept) > bounds.max_bytes:
            kept.popleft()
    return tuple(kept)


@given(bounds=BOUNDS, batches=st.lists(MESSAGES.filter(bool), max_size=4))
def test_log_holds_the_newest_that_fit_all_three_bounds(bounds, batches):
    log = TypingLog(bounds)
    for batch in batches:
        log.extend(batch)
        assert len(log) <= bounds.max_messages
        assert log.bytes == sum(len(m.text.encode()) for m in log.messages) <= bounds.max_bytes
    assert log.messages == kept_by(bounds, batches)


def test_each_bound_by_itself():
    log = TypingLog(Retention(max_messages=2))
    log.extend([message("one"), message("two"), message("three")])
    assert texts(log) == ["two", "three"]
    log = TypingLog(Retention(max_bytes=7))
    log.extend([message("abc"), message("é" * 2), message("xy")])  # 3 + 4 + 2 bytes
    assert texts(log) == ["éé", "xy"]
    assert log.bytes == 6
    log = TypingLog(Retention(max_age_s=10))
    log.extend([message("old", 1.0), message("edge", 10.0), message("new", 20.0)])
    assert texts(log) == ["edge", "new"]


def test_a_message_larger_than_the_log_empties_it():
    log = TypingLog(Retention(max_bytes=5))
    log.extend([message("abc"), message("far too long")])
    assert len(log) == log.bytes == 0


def test_an_expired_message_goes_wherever_it_stands():
    log = TypingLog(Retention(max_age_s=100))
    log.extend([message("untimed"), message("future", 500.0), message("old", 20.0), message("new", 90.0)])
    assert texts(log) == ["untimed", "future"]
    log.expire(601.0)
    assert texts(log) == ["untimed"]


def test_expiring_counts_from_the_moment_it_is_asked():
    log = TypingLog(Retention(max_age_s=100))
    log.extend([message("a", 0.0), message("b", 50.0)])
    log.expire(100.0)
    assert texts(log) == ["a", "b"]
    log.expire(100.5)
    assert texts(log) == ["b"]
    log.expire(1000.0)
    assert len(log) == log.bytes == 0


@pytest.mark.parametrize("name", ["max_messages", "max_bytes", "max_age_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_bounds_must_be_positive(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be > 0"):
        Retention(**{name: value})


@given(batches=st.lists(MESSAGES, max_size=3), bounds=BOUNDS)
def test_disk_holds_what_memory_holds(tmp_path_factory, batches, bounds):
    path = tmp_path_factory.mktemp("log") / "ann.jsonl"
    log = TypingLog(bounds, path=path)
    for batch in batches:
        log.extend(batch)
        again = TypingLog(bounds, path=path)
        assert again.messages == log.messages
        assert again.bytes == log.bytes
        assert path.exists() == bool(log.messages)


def test_a_log_read_back_under_tighter_bounds_forgets_on_disk_too(tmp_path):
    path = tmp_path / "log.jsonl"
    TypingLog(path=path).extend([message("secret", 1.0), message("fresh", 2.0)])
    assert texts(TypingLog(Retention(max_messages=1), path=path)) == ["fresh"]
    assert "secret" not in path.read_text()


def test_clearing_forgets_on_disk_too(tmp_path):
    path = tmp_path / "log.jsonl"
    log = TypingLog(path=path)
    log.extend([message("secret")])
    log.clear()
    assert len(log) == log.bytes == 0
    assert list(tmp_path.iterdir()) == []
    assert len(TypingLog(path=path)) == 0


def test_reading_and_expiring_nothing_write_nothing(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    TypingLog(path=path).extend([message("hello", 5.0)])
    writes = []
    monkeypatch.setattr(store, "write_messages", lambda *_: writes.append(1))
    log = TypingLog(path=path)
    log.expire(6.0)
    log.extend([])
    assert writes == []
    log.extend([message("you", 7.0)])
    assert writes == [1]


def test_a_damaged_log_is_refused_in_one_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"user": "ann", "text": "hi"}\n{"user": "ann", "te')
    with pytest.raises(DataError, match="line 2"):
        TypingLog(path=path)


def test_sentences_are_the_messages_that_hold_a_word(vocabulary):
    log = TypingLog()
    log.extend([message("see you"), message("  ... "), message("xyzzy")])
    see, you = vocabulary.id("see"), vocabulary.id("you")
    assert log.sentences(vocabulary) == [[2, see, you, 3], [2, 1, 3]]


def test_sentences_are_encoded_once_and_again_after_every_change(vocabulary, monkeypatch):
    calls = []
    encode = Vocabulary.encode_many
    monkeypatch.setattr(Vocabulary, "encode_many", lambda self, t: calls.append(1) or encode(self, t))
    log = TypingLog(Retention(max_age_s=100))
    log.extend([message("see", 1.0)])
    first = log.sentences(vocabulary)
    log.expire(2.0)
    assert log.sentences(vocabulary) is first
    assert len(calls) == 1
    log.extend([message("you", 50.0)])
    assert len(log.sentences(vocabulary)) == 2
    log.expire(102.0)
    assert log.sentences(vocabulary) == [[2, vocabulary.id("you"), 3]]
    other = Vocabulary.of_words(["you", "see"], "the other way round")
    assert log.sentences(other) == [[2, 4, 3]]
    log.clear()
    assert log.sentences(vocabulary) == []
    assert len(calls) == 5
