"""`kbdfl backup` and `kbdfl restore`: what they print, and that what they refuse is one line."""

import json
import sqlite3
from contextlib import closing

import pytest

from kbdfl.server import registry
from kbdfl.server.records import SqliteRecords
from kbdfl.server.store import SqliteStore


@pytest.fixture
def folder(tmp_path, model_spec):
    """What a server kept before its first round, with one enrolment token."""
    folder = tmp_path / "served"
    SqliteStore(folder, model_spec).close()
    records = SqliteRecords(folder)
    registry.make_tokens(records, 1, 5.0)
    records.close()
    return folder


@pytest.fixture
def model_spec():
    from kbdfl.model import CifgConfig

    return CifgConfig(vocab=20, embed=4, hidden=6).spec


def test_a_folder_comes_back_from_its_backup(kbdfl, folder, tmp_path):
    code, out, err = kbdfl("backup", folder, tmp_path / "b.tar.gz", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert (facts["files"], facts["round"], facts["backup"]) == (1, None, str(tmp_path / "b.tar.gz"))
    code, out, err = kbdfl("restore", tmp_path / "b.tar.gz", tmp_path / "new")
    assert (code, err) == (0, "")
    assert "is as it was before the first round; serve it with" in out
    records = SqliteRecords.existing(tmp_path / "new")
    assert records.one("SELECT count(*) FROM tokens") == 1
    records.close()
    assert kbdfl("audit-log", "verify", tmp_path / "new")[1].startswith("2 entries are whole")


def test_whoever_restores_a_privacy_ledger_is_told_what_it_cannot_know(kbdfl, folder, tmp_path):
    with closing(sqlite3.connect(folder / "server.sqlite3")) as database, database:
        database.executemany("INSERT INTO privacy_ledger VALUES (?, '{}')", [(0,), (1,)])
    kbdfl("backup", folder, tmp_path / "b.tar.gz")
    _, out, _ = kbdfl("restore", tmp_path / "b.tar.gz", tmp_path / "new")
    assert (
        "its privacy ledger has 2 releases; if the server made any after this backup" in out.splitlines()[1]
    )
    _, out, _ = kbdfl("restore", tmp_path / "b.tar.gz", tmp_path / "again", "--json")
    assert json.loads(out)["releases"] == 2


def test_what_is_refused_is_refused_in_a_line(refused, folder, tmp_path):
    assert "must end in .tar.gz" in refused("backup", folder, tmp_path / "b")
    assert "does not exist" in refused("backup", tmp_path / "no", tmp_path / "b.tar.gz")
    (tmp_path / "b.tar.gz").write_bytes(b"something else")
    assert "is there already" in refused("backup", folder, tmp_path / "b.tar.gz")
    assert "is not a whole backup" in refused("restore", tmp_path / "b.tar.gz", tmp_path / "new")
    assert "is not empty" in refused("restore", tmp_path / "b.tar.gz", folder)
