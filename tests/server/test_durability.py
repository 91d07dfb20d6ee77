"""What a crash may not cost: acknowledged reports, the parts of phones; and nothing of an update is left behind."""

import errno
import shutil
import sqlite3

import numpy as np
import pytest

from kbdfl.algorithms.mode import FedBuff
from kbdfl.coordinator import STATE_CLASSES
from kbdfl.params import digest
from kbdfl.server import store as store_module
from kbdfl.server.app import create_app
from kbdfl.snapshot import unpack

MODES = {"rounds of a cohort": {}, "asynchronous": {"mode": FedBuff(concurrency=3), "min_reports": 0}}


@pytest.fixture
def crash(make_service, tmp_path):
    """A second server on what a first one would leave if it were killed now; phones go over to it."""
    made = []

    def begin(service, *phones, **rule):
        folder = tmp_path / f"crashed {len(made)}"
        shutil.copytree(service.folder, folder)
        (folder / "server.lock").unlink()
        again = make_service(folder=folder, **rule)
        client = create_app(again).test_client()
        for phone in phones:
            phone.client = client
        made.append(again)
        return again

    return begin


@pytest.fixture
def two_phones(make_service, new_phone):
    """A service, and two phones that have both been asked for a report."""

    def begin(**rule):
        service = make_service(**rule)
        client = create_app(service).test_client()
        return service, new_phone(client), new_phone(client)

    return begin


def report(phone, service, assignment, *, seed=0):
    task = service.task
    frame = phone.frame(assignment, task.algorithm, size=task.config.spec.size, seed=seed)
    return phone.report(assignment["round"], frame), frame


@pytest.mark.parametrize("rule", MODES.values(), ids=MODES)
def test_a_crash_in_the_middle_of_a_round_changes_no_bit_of_it(two_phones, crash, rule):
    service, first, second = two_phones(**rule)
    parts = first.check_in(), second.check_in()
    answer, _ = report(first, service, parts[0])
    assert answer.json == {"accepted": True, "duplicate": False}
    again = crash(service, **rule)
    for each in (service, again):
        second.client = create_app(each).test_client()
        answer, _ = report(second, each, parts[1])
        assert answer.status_code == 200, answer.json
        (row,), _ = each.metrics(0)
        assert (row["reports"], row["status"], row["tokens"]) == (2, "committed", 80)
    assert digest(again._coordinator.params) == digest(service._coordinator.params)


@pytest.mark.parametrize("rule", MODES.values(), ids=MODES)
def test_what_was_acknowledged_before_a_crash_is_known_after_it(two_phones, crash, rule):
    service, first, second = two_phones(**rule)
    (_, frame), round_ = report(first, service, assignment := first.check_in()), assignment["round"]
    again = crash(service, first, second, **rule)
    assert first.report(round_, frame).json == {"accepted": True, "duplicate": True}
    second.take_part(again)
    third = crash(again, first, **rule)
    assert third.status()["round"] == 1
    assert first.report(round_, frame).json == {"accepted": True, "duplicate": True}
    assert third.status()["totals"]["reports"] == 2


def test_a_deadline_goes_on_while_the_server_is_away(two_phones, crash, clock):
    service, first, _ = two_phones()
    report(first, service, first.check_in())
    clock.now += 20
    with sqlite3.connect(service.folder / "server.sqlite3") as database:
        database.execute("UPDATE in_flight SET saved_s = saved_s - 20")  # the wall clock went on as well
    again = crash(service)
    clock.now += 9
    again.tick()
    assert again.status()["round"] == 0
    clock.now += 1.1
    again.tick()
    (row,), _ = again.metrics(0)
    assert (row["status"], row["reports"]) == ("committed", 1)


def bytes_in(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_of_an_update_is_left_once_its_round_is_closed(two_phones):
    service, first, second = two_phones()
    _, frame = report(first, service, first.check_in())
    content, _ = service._store.in_flight()
    total = unpack(content, classes=STATE_CLASSES)["open"]["gathered"]["total"]
    traces = [value.tobytes() for value in total[total != 0][::7]] + [
        frame[-216 + i : -200 + i] for i in range(50)
    ]
    found = [any(trace in kept for kept in bytes_in(service.folder).values()) for trace in traces]
    assert len(found) > 60
    assert any(found)
    assert not any(found[-50:])  # a frame is never kept
    second.take_part(service)
    assert service.status()["round"] == 1
    service._store.keep_in_flight(0, content, 0.0)  # by a thread that was late
    for name, kept in bytes_in(service.folder).items():
        assert not any(trace in kept for trace in traces), name


def test_a_full_disk_acknowledges_nothing_and_counts_once_when_there_is_room(two_phones, monkeypatch):
    service, first, second = two_phones()
    assignment = first.check_in()
    fsync = store_module.os.fsync

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    answer, frame = report(first, service, assignment)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert "send it again" in answer.json["detail"]
    assert not service.ready
    assert first.report(assignment["round"], frame).status_code == 503
    monkeypatch.setattr(store_module.os, "fsync", fsync)
    service._turn.journal.wait_healthy(20)
    assert service.ready
    assert first.report(assignment["round"], frame).json == {"accepted": True, "duplicate": True}
    second.take_part(service)
    (row,), _ = service.metrics(0)
    assert row["reports"] == 2


def test_a_round_that_the_disk_refuses_to_close_is_closed_later(two_phones, monkeypatch):
    service, first, second = two_phones()
    report(first, service, first.check_in())
    assignment = second.check_in()
    save = service._store.save

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(service._store, "save", full)
    answer, frame = report(second, service, assignment)
    assert answer.status_code == 503
    monkeypatch.setattr(service._store, "save", save)
    service.tick()
    assert second.report(assignment["round"], frame).json == {"accepted": True, "duplicate": True}
    (row,), _ = service.metrics(0)
    assert (row["reports"], row["status"]) == (2, "committed")


def test_a_damaged_round_begins_anew(two_phones, crash, caplog):
    service, first, second = two_phones()
    report(first, service, first.check_in())
    for path in service.folder.glob("in-flight-*.bin"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    again = crash(service, first, second)
    assert "begins anew" in caplog.text
    for phone in (first, second):
        phone.take_part(again)
    (row,), _ = again.metrics(0)
    assert (row["round"], row["reports"]) == (0, 2)


def test_what_a_killed_server_was_about_to_empty_is_emptied(two_phones, crash):
    service, first, second = two_phones()
    report(first, service, first.check_in())
    second.take_part(service)
    service.close()
    with sqlite3.connect(service.folder / "server.sqlite3") as database:
        database.execute("DELETE FROM in_flight")
    (service.folder / "in-flight-1.bin").write_bytes(b"something of an update")
    again = crash(service)
    assert (again.folder / "in-flight-1.bin").read_bytes() == b""
    np.testing.assert_array_equal(again._coordinator.params, service._coordinator.params)
