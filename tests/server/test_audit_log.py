"""A log whose entries hold each other: what was altered, left out or moved is found where it is."""

import json
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbdfl.errors import DataError
from kbdfl.server import audit_log
from kbdfl.server.audit_log import BEGINNING, Head
from kbdfl.server.records import DATABASE, SqliteRecords

ENTRIES = 12


@pytest.fixture
def records(tmp_path):
    opened = SqliteRecords(tmp_path)
    for number in range(ENTRIES):
        audit_log.append(opened, at_s=5.0 + number, by="server", what="round opened", round=number)
    yield opened
    opened.close()


@pytest.fixture
def tamper(tmp_path):
    """SQL that somebody else runs on the file."""

    def run(*statements):
        with sqlite3.connect(tmp_path / DATABASE) as database:
            for statement in statements:
                database.execute(statement)
        database.close()

    return run


def test_a_log_that_nobody_touched_is_whole(records, tmp_path):
    head = audit_log.verify(records)
    assert head.entries == ENTRIES
    assert head.sha256 == records.one("SELECT sha256 FROM audit_log ORDER BY number DESC LIMIT 1")
    (tmp_path / "empty").mkdir()
    empty = SqliteRecords(tmp_path / "empty")
    assert audit_log.verify(empty) == Head(0, BEGINNING)
    empty.close()


@pytest.mark.parametrize(
    ("statement", "first", "why"),
    [
        (
            "UPDATE audit_log SET entry = replace(entry, 'server', 'nobody') WHERE number = 5",
            5,
            "does not fit",
        ),
        ("UPDATE audit_log SET sha256 = '00' WHERE number = 5", 5, "does not fit"),
        ("UPDATE audit_log SET entry = 7 WHERE number = 5", 5, "does not fit"),
        ("DELETE FROM audit_log WHERE number = 5", 5, "is missing"),
        ("DELETE FROM audit_log WHERE number = 1", 1, "is missing"),
        ("DELETE FROM audit_log WHERE number > 9", 10, "is missing"),
        ("DELETE FROM audit_log", 1, "is missing"),
        ("DELETE FROM audit_head", 12, "the head"),
        ("UPDATE audit_head SET number = 11", 12, "the head"),
        (
            "INSERT INTO audit_log SELECT 13, entry, sha256 FROM audit_log WHERE number = 12",
            13,
            "does not fit",
        ),
    ],
)
def test_the_first_entry_that_is_not_whole_is_named(records, tamper, statement, first, why):
    tamper(statement)
    with pytest.raises(DataError, match=f"entry {first} of the audit log .*{why}"):
        audit_log.verify(records)


@given(places=st.lists(st.integers(1, ENTRIES), min_size=2, max_size=2, unique=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_entries_that_changed_places_are_found(records, tamper, places):
    one, two = sorted(places)
    swap = [
        f"UPDATE audit_log SET number = -1 WHERE number = {one}",
        f"UPDATE audit_log SET number = {one} WHERE number = {two}",
        f"UPDATE audit_log SET number = {two} WHERE number = -1",
    ]
    tamper(*swap)
    with pytest.raises(DataError, match=f"entry {one} of the audit log is not whole"):
        audit_log.verify(records)
    tamper(*swap)
    assert audit_log.verify(records).entries == ENTRIES


def test_an_entry_that_was_moved_and_chained_anew_still_says_its_number(records, tamper):
    entry = records.one("SELECT entry FROM audit_log WHERE number = 3")
    before = records.one("SELECT sha256 FROM audit_log WHERE number = 1")
    tamper(
        f"UPDATE audit_log SET entry = '{entry}', sha256 = '{audit_log.chained(before, entry)}' WHERE number = 2"
    )
    with pytest.raises(DataError, match="entry 2 of the audit log is not whole: it says another number"):
        audit_log.verify(records)


def test_entries_are_canonical_and_read_back_newest_first(records):
    audit_log.append(records, at_s=1.23456, by="ä", what="x", b=1, a=[None])
    text = records.one("SELECT entry FROM audit_log ORDER BY number DESC LIMIT 1")
    assert text == r'{"a":[null],"at_s":1.235,"b":1,"by":"\u00e4","number":13,"what":"x"}'
    newest, *rest = audit_log.entries(records, most=3)
    assert newest == json.loads(text)
    assert [entry["number"] for entry in rest] == [12, 11]
    assert [entry["number"] for entry in audit_log.entries(records, before=3)] == [2, 1]


def test_acts_are_all_but_how_rounds_began_and_ended(records, monkeypatch):
    for what in (audit_log.OPENED, *audit_log.CLOSED, "model damaged", audit_log.SPENT, audit_log.OPENED):
        audit_log.append(records, at_s=1.0, by="server", what=what)
    assert [entry["number"] for entry in audit_log.acts(records, most=3)] == [17, 16]
    monkeypatch.setattr(audit_log, "SEARCHED", 3)
    assert [entry["what"] for entry in audit_log.acts(records)] == [audit_log.SPENT, "model damaged"]


def test_two_processes_write_one_chain(records, tmp_path):
    other = SqliteRecords(tmp_path)
    for number in range(10):
        audit_log.append(records if number % 2 else other, at_s=0.0, by="server", what="y")
    other.close()
    assert audit_log.verify(records).entries == ENTRIES + 10
