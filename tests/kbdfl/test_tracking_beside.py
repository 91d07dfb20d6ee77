"""A tracker beside a run whose rounds others close: complete, in order, nothing twice, and never waited for."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.errors import ConfigError
from kbdfl.tracking import beside
from kbdfl.tracking.rows import scalars, step_of

PATIENCE_S = 20.0


class Run:
    """Rounds as a server keeps them: a revision grows with each change."""

    def __init__(self):
        self.rows, self.revisions, self.revision, self.lock = {}, {}, 0, threading.Lock()

    def change(self, number, **figures):
        with self.lock:
            self.revision += 1
            self.rows[number] = self.rows.get(number, {"round": number, "wall_s": number + 0.5}) | figures
            self.revisions[number] = self.revision

    def since(self, revision):
        with self.lock:
            changed = [number for number in sorted(self.rows) if self.revisions[number] > revision]
            return [self.rows[number] for number in changed], self.revision

    def closed_s(self, first, last):
        return {number: 1000.0 + number for number in range(first, last + 1)}

    @property
    def figures(self):
        """(name, step) -> value, of all that was measured."""
        return {
            (name, step_of(row)): value for row in self.rows.values() for name, value in scalars(row).items()
        }


class Tracker:
    """A library in memory: what it keeps outlives its writers, and figures that stand there are passed over."""

    def __init__(self, *, fails=0, waits=None):
        self.kept, self.times, self.opened, self.closed = {}, {}, [], None
        self.fails, self.waits = fails, waits

    def __call__(self, folder, *, begins, done):
        self.opened.append((begins, done))
        return self

    def add(self, row, *, at_s):
        if self.waits is not None:
            self.waits.wait(PATIENCE_S)
        if self.fails:
            self.fails -= 1
            raise OSError("no space\nleft")
        for name, value in scalars(row).items():
            steps = [step for kept, step in self.kept if kept == name]
            if step_of(row) > max(steps, default=0):
                self.kept[name, step_of(row)], self.times[step_of(row)] = value, at_s

    def close(self, *, finished):
        self.closed = finished


@pytest.fixture
def follow(monkeypatch, tmp_path):
    """Begin to follow a run with a tracker; gives the follower, and what it said."""
    monkeypatch.setattr(beside, "LOOK_S", 0.001)

    def begin(run, tracker, *, begins=True):
        monkeypatch.setattr(beside, "writer_class", lambda name: tracker)
        said = []
        follower = beside.Beside(
            "fake", tmp_path, begins=begins, rows=run.since, closed_s=run.closed_s, say=said.append
        )
        return follower, said

    return begin


def until(true):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "that takes too long"
        time.sleep(0.001)


def end(run, follower, *, finished=True):
    follower.end(list(run.rows.values()), finished=finished)
    follower.wait(beside.LAST_S)


# Rounds close and are measured one after another; answers cross the socket after a round has closed.
STEPS = st.lists(st.sampled_from(["close", "measure", "cross", "look", "stop", "kill"]), max_size=25)


@given(steps=STEPS)
@settings(max_examples=40)
def test_whatever_happens_when_all_figures_stand_there_as_the_run_has_them_in_the_end(steps):
    run, tracker, measured = Run(), Tracker(), -1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beside, "LOOK_S", 0.0005)
        patch.setattr(beside, "writer_class", lambda name: tracker)

        def begin():
            return beside.Beside(
                "fake", None, begins=not run.rows, rows=run.since, closed_s=run.closed_s, say=errors.append
            )

        errors = []
        follower = begin()
        for step in steps:
            newest = len(run.rows) - 1
            if step == "close":
                run.change(newest + 1, reports=newest + 3, socket_up_bytes=100)
            elif step == "measure" and newest > measured:
                run.change(newest, recall_top1=0.1 * newest)
                measured = newest
            elif step == "cross" and newest >= 0:
                run.change(newest, socket_up_bytes=run.rows[newest]["socket_up_bytes"] + 7)
            elif step == "look":
                time.sleep(0.002)
            elif step == "stop":
                end(run, follower, finished=False)
                follower = begin()
            elif step == "kill":  # it stops where it is; what it kept stays
                follower.end([], finished=False)
                follower.wait(PATIENCE_S)
                follower = begin()
        end(run, follower)
    assert tracker.kept == run.figures
    assert tracker.times == {step_of(row): 1000.0 + row["round"] for row in run.rows.values()}
    assert (errors, tracker.closed) == ([], True)


def test_a_round_is_written_while_the_run_goes_on_and_what_came_later_with_the_next(follow):
    run, tracker = Run(), Tracker()
    follower, _ = follow(run, tracker)
    run.change(0, reports=3, socket_up_bytes=100, recall_top1=None)
    until(lambda: ("reports", 1) in tracker.kept)
    run.change(0, recall_top1=0.25, socket_up_bytes=107)
    until(lambda: ("recall_top1", 1) in tracker.kept)
    assert ("socket_up_bytes", 1) not in tracker.kept
    run.change(1, reports=4, socket_up_bytes=1)
    until(lambda: ("socket_up_bytes", 1) in tracker.kept)
    end(run, follower, finished=False)
    assert run.figures.keys() - tracker.kept.keys() == {("socket_up_bytes", 2)}  # the run may go on
    assert (tracker.opened, tracker.closed) == ([(True, None)], False)


def test_a_tracker_that_fails_is_named_once_and_gets_all_that_it_lacks(follow, monkeypatch):
    monkeypatch.setattr(beside, "RETRY_S", 0.01)
    run, tracker = Run(), Tracker(fails=3)
    follower, said = follow(run, tracker)
    for number in range(4):
        run.change(number, reports=number)
    until(lambda: ("reports", 4) in tracker.kept)
    end(run, follower)
    assert tracker.kept == run.figures
    assert said == ["fake is not written, and asked again in 0 s: no space left"]
    assert tracker.opened == [(True, None), *[(False, None)] * 3]  # the run that was begun goes on


def test_a_tracker_that_fails_to_the_end_is_not_waited_for(follow):
    run, tracker = Run(), Tracker(fails=10**6)
    follower, said = follow(run, tracker)
    run.change(0, reports=3)
    until(lambda: said)
    end(run, follower)
    assert (len(said), len(tracker.opened), tracker.closed) == (1, 1, None)


def test_a_tracker_that_never_answers_is_left_when_the_run_ends(follow, monkeypatch):
    monkeypatch.setattr(beside, "LAST_S", 0.05)
    run, tracker = Run(), Tracker(waits=threading.Event())
    follower, said = follow(run, tracker)
    for number in range(3):
        run.change(number, reports=3)
    end(run, follower)
    tracker.waits.set()
    assert said == ["fake takes too long, and gets what it lacks when the run goes on"]
    until(lambda: tracker.closed)


def test_a_round_whose_end_is_not_known_is_dated_now(follow, monkeypatch):
    run, tracker = Run(), Tracker()
    monkeypatch.setattr(run, "closed_s", lambda first, last: {})
    before = time.time()
    follower, _ = follow(run, tracker)
    run.change(0, reports=3)
    end(run, follower)
    assert before <= tracker.times[1] <= time.time()


def test_a_library_that_is_missing_is_said_before_anything_is_begun():
    with pytest.raises(ConfigError, match="a tracker must be one of tensorboard, mlflow, got 'wandb'"):
        beside.Beside("wandb", None, begins=True, rows=None, closed_s=None, say=None)
