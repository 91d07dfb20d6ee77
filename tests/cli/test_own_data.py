"""`kbdfl data import` and `export`: one object or a few lines, never a word of the file, and little memory."""

import importlib.util
import json
from pathlib import Path

import pytest

from kbdfl.device_sim.typing.records import read_messages

ROOT = Path(__file__).parents[2]
CHAT = """\
13/03/2024, 21:04 - Ann: a secret for x@example.org
13/03/2024, 21:05 - Bob: another
31/02/2024, 1:00 - Ann: c
"""


@pytest.fixture
def chat(tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text(CHAT)
    return path


def test_an_import_is_one_object_that_says_what_was_kept(kbdfl, chat, tmp_path):
    out = tmp_path / "log.jsonl"
    code, printed, said = kbdfl("data", "import", chat, "--me", "Ann", "--out", out, "--json")
    assert code == 0
    result = json.loads(printed)
    assert result == {
        "file": str(out),
        "format": "whatsapp",
        "users": 1,
        "messages": 1,
        "words": 4,
        "skipped": {"someone else's": 1},
        "malformed": 1,
        "malformed_lines": [{"line": 3, "reason": "no such day or hour"}],
        "masked": {"email": 1, "url": 0, "number": 0},
        "renamed": 0,
        "lines_not_utf8": 0,
        "notes": [],
        "bytes": out.stat().st_size,
    }
    assert [message.text for message in read_messages(out)] == ["a secret for <EMAIL>"]
    assert "on this machine alone" in said


@pytest.mark.parametrize("options", [(), ("--json",), ("--no-mask",), ("--dates", "dmy", "--user", "u")])
def test_nothing_that_is_printed_quotes_the_file(options, kbdfl, chat, tmp_path):
    code, printed, said = kbdfl(
        "data", "import", chat, "--me", "Ann", "--out", tmp_path / "log.jsonl", *options
    )
    assert code == 0
    for word in ("secret", "another", "Bob", "x@example"):
        assert word not in printed + said


def test_in_words_it_names_counts_and_lines(kbdfl, chat, tmp_path):
    _, printed, _ = kbdfl("data", "import", chat, "--me", "Ann", "--out", tmp_path / "log.jsonl")
    assert "1 message of 1 user, 4 words" in printed
    assert "email 1" in printed
    assert "1: someone else's" in printed
    assert "1: line 3 (no such day or hour)" in printed


def test_no_mask_says_so(kbdfl, chat, tmp_path):
    out = tmp_path / "log.jsonl"
    _, printed, said = kbdfl("data", "import", chat, "--me", "Ann", "--out", out, "--no-mask", "--json")
    assert json.loads(printed)["masked"] is None
    assert "nothing was masked" in said
    assert next(read_messages(out)).text.endswith("x@example.org")


def test_dates_in_doubt_are_said_in_one_line(kbdfl, tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text("1/2/24, 10:00 - Ann: a\n2/3/24, 10:00 - Ann: b\n")
    arguments = ("data", "import", path, "--me", "Ann", "--out", tmp_path / "log.jsonl", "--json")
    code, printed, said = kbdfl(*arguments)
    assert code == 0
    assert said.count("note: the dates fit") == len(json.loads(printed)["notes"]) == 1
    assert "note" not in kbdfl(*arguments, "--dates", "mdy")[2]
    assert kbdfl(*arguments, "--strict")[0] == 2


def test_what_is_imported_can_be_described_exported_and_imported_again(kbdfl, chat, tmp_path):
    log, leaf, back = tmp_path / "log.jsonl", tmp_path / "leaf.json", tmp_path / "back.jsonl"
    kbdfl("data", "import", chat, "--me", "Ann", "--out", log)
    assert json.loads(kbdfl("data", "stats", log, "--json")[1])["messages"] == 1
    code, printed, _ = kbdfl("data", "export", log, "--format", "leaf", "--out", leaf, "--json")
    assert code == 0
    assert json.loads(printed)["messages"] == 1
    assert kbdfl("data", "import", leaf, "--out", back)[0] == 0
    before, after = next(read_messages(log)), next(read_messages(back))
    assert (before.user, before.text, before.time) == (after.user, after.text, after.time)
    assert "1 message of 1 user in" in kbdfl("data", "export", log, "--out", tmp_path / "log.jsonl.gz")[1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("import", "none", "--out", "log.jsonl"), "no file at none"),
        (("import", "chat.txt", "--out", "log.txt"), "--out must end in .jsonl"),
        (("import", "chat.txt", "--out", "none/log.jsonl"), "a folder that exists"),
        (("import", "chat.txt", "--out", "log.jsonl"), "--me must name you, one of Ann, Bob"),
        (("import", "chat.txt", "--me", "Zoe", "--out", "log.jsonl"), "no message to keep"),
        (("import", "chat.txt", "--me", "Ann", "--strict", "--out", "log.jsonl"), "line 3: no such day"),
        (
            ("import", "chat.txt", "--me", "Ann", "--time-zone", "Mars/Olympus", "--out", "log.jsonl"),
            "Europe/Berlin",
        ),
        (
            ("import", "chat.txt", "--format", "sms", "--text-column", "a", "--out", "log.jsonl"),
            "--text-column means nothing to sms",
        ),
        (("import", "chat.txt", "--format", "sms", "--out", "log.jsonl"), "no message to keep"),
        (("export", "none.jsonl", "--out", "out.jsonl"), "no typing log at"),
        (("export", "chat.txt", "--out", "out.jsonl"), "line 1: not JSON"),
        (("export", "chat.txt", "--format", "leaf", "--out", "out.jsonl"), "--out must end in .json"),
    ],
)
def test_an_impossible_request_is_one_line_and_leaves_nothing(arguments, reason, refused, chat, monkeypatch):
    monkeypatch.chdir(chat.parent)
    said = refused("data", *arguments)
    assert reason in said
    assert "secret" not in said
    assert [path.name for path in chat.parent.iterdir()] == ["chat.txt"]


@pytest.fixture(scope="module")
def bench():
    """The measurement of `make import-1gb`."""
    spec = importlib.util.spec_from_file_location("import_stream", ROOT / "benchmarks" / "import_stream.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("format", "megabytes"),
    [("jsonl", 4), ("csv", 4), ("leaf", 4), ("sms", 4), ("whatsapp", 4), ("mbox", 2), ("telegram", 30)],
)
def test_memory_does_not_grow_with_the_file(format, megabytes, bench, tmp_path):
    """An import that does nothing holds 22 MiB; whoever keeps these texts, or their parsed form, takes 20 more."""
    path, out = tmp_path / "export", tmp_path / "log.jsonl"
    records = bench.write_export(path, format, megabytes << 20)
    result = bench.run_import(path, out, format)
    assert result["format"] == format
    assert result["messages"] + result["malformed"] + sum(result["skipped"].values()) == records
    assert result["malformed"] == records // bench.BROKEN
    assert result["messages"] > records / 2
    assert result["peak_mb"] < 42
