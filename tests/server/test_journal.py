"""Group commit: who is let go when, and what a disk that takes no more does to those who wait."""

import threading

import pytest

from kbdfl.errors import ServerUnavailable
from kbdfl.server.journal import Journal

PATIENCE_S = 20.0


class Disk:
    """Keeps what it is given, when it may, and unless it is full."""

    def __init__(self):
        self.kept, self.full = [], False
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Event()

    def keep(self, value):
        self.begun.set()
        assert self.open.wait(PATIENCE_S)
        if self.full:
            raise OSError("No space left on device")
        self.kept.append(value)


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def state():
    return {"value": 0}


@pytest.fixture
def journal(disk, state):
    journal = Journal(lambda: state["value"], disk.keep)
    journal.start()
    yield journal
    disk.open.set()
    journal.close()


def test_a_change_is_waited_for_until_it_is_kept(journal, disk, state):
    state["value"] = 7
    journal.wait(journal.changed())
    assert disk.kept == [7]
    assert journal.healthy


def test_changes_that_come_meanwhile_share_the_next_copy(journal, disk, state):
    disk.open.clear()
    journal.changed()
    assert disk.begun.wait(PATIENCE_S)
    changes = []
    for value in range(1, 20):
        state["value"] = value
        changes.append(journal.changed())
    disk.open.set()
    for change in changes:
        journal.wait(change)
    assert disk.kept == [0, 19]


def test_nobody_is_let_go_before_a_copy_that_holds_their_change(journal, disk):
    disk.open.clear()
    first = journal.changed()
    assert disk.begun.wait(PATIENCE_S)
    second = journal.changed()
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (journal.wait(second), done.set()))
    waiting.start()
    assert not done.wait(0.05)
    disk.open.set()
    journal.wait(first)
    waiting.join(PATIENCE_S)
    assert done.is_set()
    assert len(disk.kept) == 2


def test_a_full_disk_refuses_those_who_wait_and_keeps_all_once_there_is_room(journal, disk, state):
    disk.full = True
    state["value"] = 3
    change = journal.changed()
    with pytest.raises(ServerUnavailable, match="send it again"):
        journal.wait(change)
    assert not journal.healthy
    disk.full = False
    assert journal.wait_healthy(PATIENCE_S)
    journal.wait(change)
    assert disk.kept == [3]


def test_what_nobody_waits_for_is_kept_a_little_later(journal, disk, state):
    state["value"] = 5
    journal.changed(awaited=False)
    journal.wait(journal.newest)
    assert disk.kept == [5]


def test_closing_keeps_the_last_change(disk, state):
    journal = Journal(lambda: state["value"], disk.keep)
    journal.start()
    state["value"] = 9
    journal.changed(awaited=False)
    journal.close()
    assert disk.kept == [9]
    with pytest.raises(ServerUnavailable):
        journal.wait(journal.changed())
