"""Exports: JSON lines and LEAF, which import to the same messages."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.device_sim.typing.imports.exporting import export_typing
from kbdfl.device_sim.typing.imports.importing import import_typing
from kbdfl.device_sim.typing.imports.items import Options
from kbdfl.device_sim.typing.records import Key, Message, read_messages, write_messages
from kbdfl.errors import ConfigError, DataError

MESSAGES = st.lists(
    st.builds(
        Message,
        user=st.sampled_from(["ann", "bob", 'c"d', "é"]),
        text=st.text(st.characters(codec="utf-8", categories=["L", "N", "Z", "P"]), min_size=1).filter(
            str.strip
        ),
        time=st.none() | st.floats(0, 4e9).map(lambda time: round(time, 3)),
    ),
    min_size=1,
    max_size=12,
)


@given(MESSAGES)
@settings(max_examples=60, deadline=None)
def test_leaf_goes_out_and_comes_back(tmp_path_factory, messages):
    folder = tmp_path_factory.mktemp("leaf")
    log, out, back = folder / "log.jsonl", folder / "leaf.json", folder / "back.jsonl"
    write_messages(log, messages)
    users = list(dict.fromkeys(message.user for message in messages))
    assert export_typing(log, out, format="leaf") == {"users": len(users), "messages": len(messages)}
    document = json.loads(out.read_bytes())
    assert document["users"] == list(document["user_data"]) == users
    for user, count in zip(users, document["num_samples"], strict=True):
        samples = document["user_data"][user]
        assert len(samples["x"]) == len(samples["y"]) == count
    assert list(folder.glob(".kbdfl*")) == list(folder.glob("*.part")) == []
    import_typing(out, back, format="auto", options=Options(), masked=False)
    by_user = [message for user in users for message in messages if message.user == user]
    came = list(read_messages(back))
    assert [(m.user, m.text.strip()) for m in by_user] == [(m.user, m.text) for m in came]
    assert [m.time for m in by_user] == pytest.approx([m.time for m in came])


def test_json_lines_keep_all_that_a_log_holds(tmp_path):
    messages = [Message("ann", "a", 1.0, "chat", (Key("a", 0.0),)), Message("bob", "b")]
    write_messages(tmp_path / "log.jsonl.gz", messages)
    counts = export_typing(tmp_path / "log.jsonl.gz", tmp_path / "out.jsonl", format="jsonl")
    assert counts == {"users": 2, "messages": 2}
    assert list(read_messages(tmp_path / "out.jsonl")) == messages


@pytest.mark.parametrize("format", ["jsonl", "leaf"])
def test_what_is_no_log_is_refused_and_leaves_nothing(format, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"user": "a", "text": "b"}\nbroken\n')
    with pytest.raises(DataError, match="line 2"):
        export_typing(tmp_path / "log.jsonl", tmp_path / "out", format=format)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_impossible_requests_are_refused(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"user": "a", "text": "b"}\n')
    with pytest.raises(ConfigError, match="format must be one of"):
        export_typing(log, tmp_path / "out", format="pdf")
    with pytest.raises(ConfigError, match="another file"):
        export_typing(log, log, format="leaf")
