"""A service whose rounds go to a tracker beside it."""

import threading
import time

import pytest

from kbdfl.cli.serve import serve as command
from kbdfl.errors import ConfigError
from kbdfl.run import RunFolder
from kbdfl.server.app import create_app
from kbdfl.server.followed import following
from kbdfl.tracking import TRACKERS, beside
from kbdfl.tracking.rows import scalars, step_of

PATIENCE_S = 20.0


class Kept:
    """A tracker that keeps rows, and breaks if it is told to."""

    def __init__(self, *, breaks=False):
        self.rows, self.begun, self.closed, self.breaks = [], [], [], breaks

    def __call__(self, folder, *, begins, done):
        self.begun.append(begins)
        return self

    def add(self, row, *, at_s):
        if self.breaks:
            raise RuntimeError("nobody is there")
        self.rows.append((row, at_s))

    def close(self, *, finished):
        self.closed.append(finished)

    @property
    def figures(self):
        kept = {}
        for row, _ in self.rows:
            for name, value in scalars(row).items():
                kept.setdefault((name, step_of(row)), value)  # what stands there is passed over
        return kept


@pytest.fixture
def tracker(monkeypatch):
    """Stands for any tracker."""
    made = Kept()
    monkeypatch.setattr(beside, "LOOK_S", 0.001)
    monkeypatch.setattr(beside, "writer_class", lambda name: made)
    return made


def until(true):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "that takes too long"
        time.sleep(0.005)


def play(service, new_phone, rounds):
    client = create_app(service).test_client()
    phones = [new_phone(client) for _ in range(2)]
    for number in range(rounds):
        for phone in phones:
            phone.take_part(service, seed=number)
        service.traffic.add(phones[0].id, up=5, down=7)  # answers that come after the last report


def test_rounds_and_what_is_counted_after_them_reach_the_tracker(
    make_service, background, new_phone, tracker
):
    service = make_service(background=background[0])
    with following(["mlflow", "mlflow"]) as follow:
        follow(service, begins=True)
        play(service, new_phone, 3)
        assert service.wait_settled(PATIENCE_S)
        # the hour at which the audit log says that rounds closed
        until(lambda: 1_800_000_000.0 in [at_s for _, at_s in tracker.rows])
        service.close()
    rows = RunFolder(service.folder).rows()
    assert tracker.figures == {
        (name, step_of(row)): value for row in rows for name, value in scalars(row).items()
    }
    assert len(rows) == 3
    assert {"recall_top1", "train_loss", "socket_up_bytes"} <= {name for name, _ in tracker.figures}
    assert (tracker.begun, tracker.closed) == ([True], [True])


def test_a_tracker_that_fails_costs_one_line_of_the_log_and_no_round(
    make_service, new_phone, tracker, caplog
):
    tracker.breaks, service = True, make_service()
    with following(["mlflow"]) as follow:
        follow(service, begins=False)
        play(service, new_phone, 3)
        service.close()
    assert len(RunFolder(service.folder).rows()) == 3
    (line,) = [record.getMessage() for record in caplog.records if record.name == "kbdfl.server.followed"]
    assert line == f"{service.folder.name}: mlflow is not written, and asked again in 60 s: nobody is there"


def test_a_service_that_nobody_follows_has_no_thread_for_it(make_service, tracker):
    service = make_service()
    with following([]) as follow:
        follow(service, begins=True)
        service.close()
    assert (tracker.begun, tracker.closed) == ([], [])


def test_a_library_that_is_missing_is_named_with_its_extra(make_service):
    with following(["wandb"]) as follow, pytest.raises(ConfigError, match="a tracker must be one of"):
        follow(make_service(), begins=True)


def test_metrics_that_cannot_be_read_leave_no_follower_behind(make_service, new_phone, tracker, caplog):
    service = make_service()
    with following(["mlflow"]) as follow:
        follow(service, begins=True)
        play(service, new_phone, 1)
        service.close()
        (service.folder / "metrics.jsonl").write_text("{\n{\n")
    assert len(tracker.closed) == 1
    assert "metrics.jsonl cannot be read" in caplog.text


def test_trackers_that_hang_share_one_deadline(make_service, tracker, monkeypatch, caplog):
    monkeypatch.setattr(beside, "LAST_S", 0.2)
    held, waits, wait = threading.Event(), [], beside.Beside.wait
    monkeypatch.setattr(tracker, "close", lambda *, finished: held.wait(PATIENCE_S))
    monkeypatch.setattr(
        beside.Beside, "wait", lambda each, seconds: (waits.append(seconds), wait(each, seconds))
    )
    service = make_service()
    with following(list(TRACKERS)) as follow:
        for _ in range(2):
            follow(service, begins=True)
        service.close()
    held.set()
    assert caplog.text.count("takes too long") == len(waits) == 4
    assert max(waits[1:]) <= 0 < waits[0]


def test_the_command_offers_all_trackers():
    (option,) = (each for each in command.params if each.name == "track")
    assert list(option.type.choices) == list(TRACKERS)
