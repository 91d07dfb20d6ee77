"""`kbdfl admin` and `kbdfl audit-log` in a folder."""

import io
import json
import re
import sqlite3

from kbdfl.server.credentials import Credentials
from kbdfl.server.records import DATABASE, SqliteRecords
from kbdfl.server.registry import Registry


def test_tokens_are_printed_one_a_line_and_let_phones_in(kbdfl, tmp_path):
    code, out, err = kbdfl("admin", "tokens", tmp_path, "--count", 3)
    assert (code, err) == (0, "")
    made = out.split()
    assert all(re.fullmatch("[0-9a-f]{32}", token) for token in made)
    assert len(set(made)) == 3
    records = SqliteRecords(tmp_path)
    registry = Registry(records, enrolment="token")
    for number, token in enumerate(made):
        registry.enrol(bytes([number]) * 32, 1.0, token=token)
    records.close()
    code, out, _ = kbdfl("admin", "tokens", tmp_path, "--json")
    assert len(json.loads(out)["tokens"]) == 1
    code, _, err = kbdfl("admin", "tokens", tmp_path, "--count", 0)
    assert (code, err) == (2, "kbdfl: a number of tokens must lie in [1, 100000], got 0\n")


def test_a_token_and_a_password_are_those_of_the_folder(kbdfl, tmp_path, monkeypatch):
    _, out, _ = kbdfl("admin", "token", tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("a password of some length\n"))
    assert kbdfl("admin", "password", tmp_path) == (0, "", "")
    credentials = Credentials(tmp_path)
    assert credentials.token_fits(out.strip())
    assert credentials.password_fits("a password of some length")
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    code, _, err = kbdfl("admin", "password", tmp_path)
    assert (code, err) == (2, "kbdfl: a password must have 12 to 1000 characters, got 5\n")


def test_the_audit_log_is_verified_and_shown(kbdfl, tmp_path):
    for _ in range(3):
        kbdfl("admin", "token", tmp_path)
    code, out, err = kbdfl("audit-log", "verify", tmp_path)
    assert (code, err) == (0, "")
    assert re.fullmatch("3 entries are whole; the last one's sha256 is [0-9a-f]{64}\n", out)
    _, out, _ = kbdfl("audit-log", "verify", tmp_path, "--json")
    assert json.loads(out)["entries"] == 3
    _, out, _ = kbdfl("audit-log", "show", tmp_path, "--last", 2)
    assert [json.loads(line)["number"] for line in out.splitlines()] == [2, 3]
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.execute("DELETE FROM audit_log WHERE number = 2")
    database.close()
    code, out, err = kbdfl("audit-log", "verify", tmp_path)
    assert (code, out) == (2, "")
    assert err == "kbdfl: entry 2 of the audit log is missing; after 1 comes 3\n"


def test_a_folder_that_was_never_served_has_no_log(kbdfl, tmp_path):
    code, _, err = kbdfl("audit-log", "verify", tmp_path)
    assert code == 2
    assert "must be a folder that `kbdfl serve` has kept" in err
    code, _, err = kbdfl("admin", "token", tmp_path / "nowhere")
    assert code == 2
    assert "does not exist" in err
