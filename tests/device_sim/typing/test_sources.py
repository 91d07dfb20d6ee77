"""Sources: stable users, chronological messages, keystrokes only when asked, and clear refusals."""

import json
import sys
from hashlib import sha256

import pytest

from kbdfl.device_sim.typing import chat
from kbdfl.device_sim.typing.keystrokes import replay
from kbdfl.device_sim.typing.records import Key, Message, write_messages
from kbdfl.device_sim.typing.sources import is_held_out, open_source
from kbdfl.errors import ConfigError, DataError

DAY = 86_400.0


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl.gz"
    write_messages(
        path,
        [
            Message("zoe", "second", time=20 * DAY, keys=(Key("s", 0.0),)),
            Message("ann", "no time"),
            Message("zoe", "first", time=10 * DAY),
            Message("ann", "with time", time=5.0),
        ],
    )
    return path


@pytest.fixture
def made_up_chat(tmp_path, monkeypatch):
    """A stand-in for the chat package with two conversations."""

    def line(sender, text, timestamp):
        return {"sender": sender, "text": text, "timestamp": timestamp}

    late, early = "2018-05-03T10:00:00Z", "2018-05-02T10:00:00Z"
    data = {
        "one": {
            "messages": [[line("b", "later", late)], [line("a", "  ", late), line("a", "hello there", late)]]
        },
        "two": {"messages": [[line("b", "mail me at x@example.org", early)]]},
    }
    package = tmp_path / "chitchat_dataset"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "dataset.json").write_text(json.dumps(data))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "chitchat_dataset", raising=False)
    yield package
    sys.modules.pop("chitchat_dataset", None)


def test_a_log_keeps_the_order_of_users_and_sorts_by_time_where_all_have_one(log):
    source = open_source(str(log), seed=1)
    assert list(source.users()) == ["zoe", "ann"]
    assert [m.text for m in source.messages("zoe")] == ["first", "second"]
    assert [m.text for m in source.messages("ann")] == ["no time", "with time"]


def test_recorded_keys_come_only_when_asked(log):
    source = open_source(str(log), seed=1)
    assert [m.keys for m in source.messages("zoe")] == [None, None]
    assert [m.keys for m in source.messages("zoe", keystrokes=True)] == [None, (Key("s", 0.0),)]


def test_users_and_days_limit_a_source(log):
    source = open_source(str(log), seed=1, users=1, days=5)
    assert list(source.users()) == ["zoe"]
    assert [m.text for m in source.messages("zoe")] == ["first"]


@pytest.mark.parametrize("spec", ["personas", "log", "chat"])
def test_texts_do_not_depend_on_keystrokes_and_keys_replay_to_them(spec, log, made_up_chat):
    source = open_source(str(log) if spec == "log" else spec, seed=1, users=2)
    for user in source.users():
        plain, keyed = source.messages(user), source.messages(user, keystrokes=True)
        assert [m.text for m in plain] == [m.text for m in keyed]
        assert all(m.keys is None for m in plain)
        if spec != "log":
            assert all(replay(m.keys) == m.text for m in keyed)
            assert source.messages(user, keystrokes=True) == keyed


def test_an_unknown_user_is_refused(log, made_up_chat):
    for spec in (str(log), "chat", "personas"):
        with pytest.raises(DataError, match="no user 'nobody'"):
            open_source(spec, seed=1).messages("nobody")


def test_more_users_than_there_are_is_refused(log, made_up_chat):
    for spec in (str(log), "chat"):
        with pytest.raises(ConfigError, match="users must be <= 2"):
            open_source(spec, seed=1, users=3)


@pytest.mark.parametrize("option", ["users", "days"])
def test_limits_below_one_are_refused(option, log):
    with pytest.raises(ConfigError, match=f"{option} must be >= 1, got 0"):
        open_source(str(log), seed=1, **{option: 0})


def test_an_unknown_source_is_refused():
    with pytest.raises(DataError, match="must be chat, personas or a"):
        open_source("persona", seed=1)
    with pytest.raises(DataError, match="no typing log at"):
        open_source("none.jsonl", seed=1)


def test_chat_groups_by_sender_sorts_by_time_and_masks(made_up_chat):
    source = open_source("chat", seed=1)
    assert list(source.users()) == ["a", "b"]
    assert [m.text for m in source.messages("a")] == ["hello there"]
    first, second = source.messages("b")
    assert (first.text, second.text) == ("mail me at <EMAIL>", "later")
    assert second.time == 1_525_341_600.0
    assert first.time == second.time - DAY


def test_chat_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "chitchat_dataset", None)
    with pytest.raises(DataError, match=r'pip install "kbdfl\[chat\]"'):
        open_source("chat", seed=1)


def test_a_broken_chat_package_is_refused(made_up_chat):
    (made_up_chat / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="chat package cannot be read"):
        open_source("chat", seed=1)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to jo.b+x@mail.example.co.uk now", "write to <EMAIL> now"),
        ("see https://example.org/a?b=c ok", "see <URL> ok"),
        ("see www.example.org", "see <URL>"),
        ("it is on example.com/page", "it is on <URL>"),
        ("call 0123456789", "call <#>"),
        ("call (555) 010-9999 today", "call <#> today"),
        ("in 2018 at 10.30 for 25.50", "in 2018 at 10.30 for 25.50"),
        ("wait... what.is this", "wait... what.is this"),
    ],
)
def test_mask_hides_addresses_and_long_numbers_and_nothing_else(text, masked):
    assert chat.mask(text) == masked


def test_every_fifth_user_is_held_out_by_hash():
    names = [f"user{i}" for i in range(2000)]
    assert sum(map(is_held_out, names)) / 2000 == pytest.approx(0.2, abs=0.03)
    assert all(is_held_out(u) == (int(sha256(u.encode()).hexdigest(), 16) % 5 == 0) for u in names)
