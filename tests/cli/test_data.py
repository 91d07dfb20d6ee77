"""`kbdfl data`: logs that are written can be described, and bad input is one line and exit code 2."""

import gzip
import json

import pytest

from kbdfl.device_sim.typing.keystrokes import replay
from kbdfl.device_sim.typing.records import read_messages
from kbdfl.device_sim.typing.sources import is_held_out


def write(path, users, texts=("see you soon", "see you later")):
    path.write_text("".join(json.dumps({"user": u, "text": t}) + "\n" for u in users for t in texts))
    return path


def names(held_out, count=4):
    return [f"u{i}" for i in range(100) if is_held_out(f"u{i}") == held_out][:count]


def test_generate_writes_a_log_with_keystrokes_that_replay(kbdfl, tmp_path):
    out = tmp_path / "log.jsonl.gz"
    code, printed, _ = kbdfl("data", "generate", "--users", 5, "--days", 3, "--out", out, "--json")
    assert code == 0
    result = json.loads(printed)
    messages = list(read_messages(out))
    assert result["users"] == len({m.user for m in messages}) == 5
    assert result["messages"] == len(messages)
    assert result["bytes"] == out.stat().st_size
    assert all(replay(m.keys) == m.text for m in messages)
    assert all(m.time is not None and m.app for m in messages)


def test_generate_is_reproducible_and_follows_the_seed(kbdfl, tmp_path):
    def log(name, *options):
        assert (
            kbdfl("data", "generate", "--users", 3, "--days", 2, "--out", tmp_path / name, *options)[0] == 0
        )
        return (tmp_path / name).read_bytes()

    assert log("a.jsonl") == log("b.jsonl", "--seed", 1) != log("c.jsonl", "--seed", 2)


def test_no_keystrokes_leaves_the_same_texts(kbdfl, tmp_path):
    options = ("--users", 3, "--days", 2)
    kbdfl("data", "generate", *options, "--out", tmp_path / "a.jsonl")
    kbdfl("data", "generate", *options, "--no-keystrokes", "--out", tmp_path / "b.jsonl")
    with_keys, without = list(read_messages(tmp_path / "a.jsonl")), list(read_messages(tmp_path / "b.jsonl"))
    assert [m.text for m in with_keys] == [m.text for m in without]
    assert all(m.keys is None for m in without)


def test_stats_gives_every_figure(kbdfl, tmp_path):
    out = tmp_path / "log.jsonl"
    kbdfl("data", "generate", "--users", 30, "--out", out, "--no-keystrokes")
    code, printed, _ = kbdfl("data", "stats", out, "--json")
    result = json.loads(printed)
    assert code == 0
    assert result["users"] == 30
    assert result["messages"] == len(list(read_messages(out)))
    assert result["tokens"] > 5 * result["messages"]
    assert result["messages_per_user"]["p10"] <= result["messages_per_user"]["max"] <= result["messages"]
    assert 0 < result["oov_rate"] < 0.1
    assert result["own_unigram_bits_saved"] > 0.2
    assert 0.05 < result["trigram_top1"] < result["trigram_top3"] < 0.5
    assert result["notes"] == []


def test_stats_takes_a_source_instead_of_a_file(kbdfl):
    code, printed, _ = kbdfl("data", "stats", "personas", "--users", 4, "--json")
    assert code == 0
    assert json.loads(printed)["users"] == 4


def test_stats_in_words_shows_the_same_figures(kbdfl, tmp_path):
    code, printed, _ = kbdfl("data", "stats", write(tmp_path / "log.jsonl", names(False)))
    assert code == 0
    assert "oov_rate" in printed
    assert "no held-out user has typed a word" in printed


@pytest.mark.parametrize(("held_out", "missing"), [(True, "training"), (False, "held-out")])
def test_a_log_with_one_side_of_the_split_gives_null_and_says_so(held_out, missing, kbdfl, tmp_path):
    code, printed, _ = kbdfl("data", "stats", write(tmp_path / "log.jsonl", names(held_out)), "--json")
    result = json.loads(printed)
    assert code == 0
    assert result["trigram_top1"] is result["trigram_top3"] is result["own_unigram_bits_saved"] is None
    assert any(missing in note for note in result["notes"])
    assert result["tokens"] == 24


def test_a_user_with_one_message_and_one_without_a_word_are_no_error(kbdfl, tmp_path):
    code, printed, _ = kbdfl("data", "stats", write(tmp_path / "log.jsonl", ["u0"], texts=("!!!",)), "--json")
    result = json.loads(printed)
    assert code == 0
    assert (result["messages"], result["tokens"], result["oov_rate"]) == (1, 0, None)


def test_the_out_of_vocabulary_rate_follows_the_vocabulary(kbdfl, tmp_path):
    log = write(tmp_path / "log.jsonl", ["u0"], texts=("the xqzzy",))
    assert json.loads(kbdfl("data", "stats", log, "--json")[1])["oov_rate"] == 0.5
    log = write(tmp_path / "log.jsonl", ["u0"], texts=("the keyboard",))
    assert json.loads(kbdfl("data", "stats", log, "--vocab", 100, "--json")[1])["oov_rate"] == 0.5


BAD = {
    "empty.jsonl": b"",
    "text.jsonl": b"hello\n",
    "user.jsonl": b'{"user": 1, "text": "x"}\n',
    "cut.jsonl.gz": gzip.compress(b'{"user": "a", "text": "x"}\n' * 50)[:-6],
    "plain.jsonl.gz": b'{"user": "a", "text": "x"}\n',
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_log_is_one_line_and_exit_code_2(name, kbdfl, tmp_path):
    path = tmp_path / name
    path.write_bytes(BAD[name])
    code, printed, error = kbdfl("data", "stats", path, "--json")
    assert (code, printed) == (2, "")
    assert error.count("\n") == 1
    assert name in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("stats", "none.jsonl"), "no typing log at none.jsonl"),
        (("stats", "nothing"), "a source must be chat, personas or a"),
        (("stats", "."), "no typing log at"),
        (("generate", "--out", "log.txt"), "--out must end in .jsonl"),
        (("generate", "--out", "none/log.jsonl"), "a folder that exists"),
    ],
)
def test_an_impossible_request_is_one_line_and_exit_code_2(arguments, reason, kbdfl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, printed, error = kbdfl("data", *arguments)
    assert (code, printed) == (2, "")
    assert error.count("\n") == 1
    assert reason in error


def test_a_number_below_one_is_refused(kbdfl, tmp_path):
    for option in ("--users", "--days"):
        code, _, error = kbdfl("data", "generate", "--out", tmp_path / "a.jsonl", option, 0)
        assert code == 2
        assert option in error
        assert "Traceback" not in error
