"""Phones, time, crashes and rollbacks in any order, at a coordinator on each store, against a plain model in Python.

KBDFL_STEPS says how many steps are taken on each store, by default 400; `make machine` takes 50,000.
"""

import copy
import dataclasses
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator, Finished, Wait
from kbdfl.errors import Conflict, ModelError
from kbdfl.model import init_params
from kbdfl.params import digest
from kbdfl.server.postgres.address import Address
from kbdfl.server.postgres.store import PostgresStore
from kbdfl.server.store import SqliteStore
from kbdfl.wire import decode_report
from tests.kbdfl.test_coordinator import CONFIG, frame_of, make_task
from tests.server import cluster

STEPS = int(os.environ.get("KBDFL_STEPS", "400"))
AN_EXAMPLE = 40  # steps
DEVICES = [f"phone-{number}" for number in range(5)]
START = init_params(CONFIG, seed=1)
ROUNDS = 6
FEW_LIVES = 3  # servers at a time in PostgreSQL


class OnSqlite:
    """A coordinator and its store, whose turns are kept when a test says so, and not by a thread."""

    servers = 1

    def __init__(self, task, machine):
        self._task, self._machine = task, machine
        self._folder = Path(tempfile.mkdtemp(prefix="kbdfl-machine-", dir=cluster.MEMORY))
        self.restart(0)

    def restart(self, at):
        """Kill it, and let it begin anew on what is durable."""
        if hasattr(self, "store"):
            self.store.close()
        self.store = SqliteStore(self._folder, self._task.config.spec)
        self.coordinator = Coordinator(self._task, START, store=self.store, random=np.random.default_rng(1))
        clock = lambda: self._machine.now  # noqa: E731
        self._turn = self.store.turn(self.coordinator, clock=clock, wall_clock=clock)
        self._turn._resume()

    def act(self, at, do, *, keep=True):
        """What `do` gives; with `keep` all of it is durable then. Whether it is durable comes along."""
        number = self.coordinator.round
        try:
            return do(self.coordinator), keep or self.coordinator.round != number
        finally:
            if keep:
                self._turn._keep(self._turn._take())

    def look(self, at, do):
        return do(self.coordinator)

    def close(self):
        self.store.close()
        shutil.rmtree(self._folder)


class OnPostgres:
    """The same for several that share a task."""

    servers = FEW_LIVES
    names = itertools.count()

    def __init__(self, task, machine, url):
        self._task, self._machine = task, machine
        self._home = Path(tempfile.mkdtemp(prefix="kbdfl-machine-", dir=cluster.MEMORY))
        self._address = Address(url, f"machine {next(self.names)}")
        self._stores, self._turns = {}, {}
        for at in range(self.servers):
            self.restart(at)

    def restart(self, at):
        if at in self._stores:
            self._stores[
                at
            ].close()  # PostgreSQL undoes what was not committed, as it does for a dead process
        store = PostgresStore(self._home / str(at), self._task.config.spec, address=self._address)
        coordinator = Coordinator(self._task, START, store=store, random=np.random.default_rng(1))
        turn = store.turn(coordinator, clock=None, wall_clock=None)
        turn.now = lambda: self._machine.now
        self._stores[at], self._turns[at] = store, (turn, coordinator)

    @property
    def store(self):
        return self._stores[0]

    def act(self, at, do, *, keep=True):
        turn, coordinator = self._turns[at]
        with turn:
            number = coordinator.round
            try:
                result = do(coordinator)
            finally:
                turn.changed()
        if keep:
            with turn.local:
                assert turn._finish()
            assert turn.healthy
        return result, keep and coordinator.round >= number

    def look(self, at, do):
        turn, coordinator = self._turns[at]
        with turn:
            return do(coordinator)

    def close(self):
        import psycopg

        for store in self._stores.values():
            store.close()
        with psycopg.connect(self._address.url, autocommit=True) as connection:
            connection.execute(f'DROP SCHEMA "{self._address.schema}" CASCADE')
        shutil.rmtree(self._home)


@dataclasses.dataclass
class Model:
    """All that must be so, written down a second time."""

    params: np.ndarray
    round: int = 0
    version: int = 0
    started: float | None = None
    assigned: dict = dataclasses.field(default_factory=dict)
    frames: dict = dataclasses.field(default_factory=dict)  # of counted reports, by device
    refused: set = dataclasses.field(default_factory=set)
    last: dict = dataclasses.field(default_factory=dict)  # the frames of the round before
    rows: list = dataclasses.field(default_factory=list)
    versions: dict = dataclasses.field(default_factory=dict)

    @property
    def training(self):
        return [device for device in self.assigned if device not in self.frames]

    def close(self, task, now, *, instead=None):
        committed = instead is None and len(self.frames) >= task.rule.enough
        if committed:
            total = task.algorithm.gathering(CONFIG.spec.size)
            for device in sorted(self.frames):
                report = decode_report(self.frames[device], max_bytes=1 << 20)
                weight = task.algorithm.weight(report.examples)
                total.add(device, report.update, self.assigned[device].draws, weight=weight)
            self.params, _ = task.algorithm.server.apply(self.params, total.mean(), {}, round=self.version)
        if instead is not None:
            self.params = self.versions[instead]
        self.version += committed or instead is not None
        if committed or instead is not None or not self.rows:
            self.versions[self.version] = self.params
        self.rows.append(
            {
                "round": self.round,
                "status": "committed" if committed else "abandoned",
                "version": self.version,
                "reports": len(self.frames),
                "dropped": len(self.training),
                "refused": len(self.refused),
                "tokens": 10 * len(self.frames),
                "uplink_bytes": sum(map(len, self.frames.values())),
            }
        )
        self.round += 1
        self.last, self.frames, self.assigned, self.refused = self.frames, {}, {}, set()
        self.started = None


class Machine(RuleBasedStateMachine):
    place = None  # a function that makes OnSqlite or OnPostgres of a task and a machine
    looked = 0  # the server that was looked at last

    @initialize(
        cohort=st.integers(1, 3),
        over=st.sampled_from([1.0, 1.5, 2.0]),
        enough=st.integers(0, 3),
        upload=st.sampled_from(["float32", "int8"]),
    )
    def begin(self, cohort, over, enough, upload):
        self.task = make_task(
            upload=upload,
            cohort=cohort,
            over_selection=over,
            min_reports=min(enough, cohort),
            rounds=ROUNDS,
        )
        self.now = 1_000.0
        self.at = type(self).place(self.task, self)
        self.model = Model(START)

    def teardown(self):
        if hasattr(self, "at"):
            self.at.close()

    @property
    def finished(self):
        return self.model.round == ROUNDS

    def act(self, server, do, *, keep=True):
        return self.at.act(server % self.at.servers, do, keep=keep)

    def crash(self, server):
        self.at.restart(server % self.at.servers)

    servers = st.integers(0, FEW_LIVES - 1)

    @rule(seconds=st.sampled_from([0.5, 3.0, 12.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(
        server=servers, device=st.sampled_from(DEVICES), dies=st.sampled_from([None, None, "after", "before"])
    )
    def check_in(self, server, device, dies):
        before = copy.deepcopy(self.model)
        answer, durable = self.act(server, lambda c: c.check_in(device, self.now), keep=dies != "before")
        model, rule_ = self.model, self.task.rule
        over = model.started is not None and self.now - model.started >= rule_.deadline_s
        full = len(model.assigned) >= rule_.selected and device not in model.assigned
        if self.finished:
            assert isinstance(answer, Finished)
        elif device in model.frames or over or full:
            assert isinstance(answer, Wait)
        else:
            assert isinstance(answer, Assignment)
            assert (answer.round, answer.version) == (model.round, model.version)
            assert answer.model_sha256 == digest(model.params)
            model.started = self.now if model.started is None else model.started
            assert answer.deadline_s == pytest.approx(rule_.deadline_s - (self.now - model.started))
            same = dataclasses.replace(answer, deadline_s=0.0)
            assert model.assigned.setdefault(device, same) == same
        if dies:
            self.crash(server)
            self.model = self.model if durable else before

    @precondition(lambda self: self.model.training)
    @rule(
        server=servers,
        data=st.data(),
        seed=st.integers(0, 99),
        examples=st.integers(1, 9),
        dies=st.sampled_from([None, None, None, "after", "before"]),
    )
    def report(self, server, data, seed, examples, dies):
        device = data.draw(st.sampled_from(self.model.training))
        frame = frame_of(self.task, self.model.assigned[device], device, seed=seed, examples=examples)
        before = copy.deepcopy(self.model)
        receipt, durable = self.act(
            server, lambda c: c.report(device, frame, self.now), keep=dies != "before"
        )
        assert (receipt.round, receipt.duplicate) == (self.model.round, False)
        self.model.frames[device] = frame
        full = len(self.model.frames) == self.task.rule.cohort
        assert (receipt.closed is not None) == full
        if full:
            self.model.close(self.task, self.now)
        if dies:
            self.crash(server)
            self.model = self.model if durable else before

    @precondition(lambda self: self.model.frames or self.model.last)
    @rule(server=servers, data=st.data())
    def report_again(self, server, data):
        known = [(0, device) for device in self.model.frames] + [(1, device) for device in self.model.last]
        age, device = data.draw(st.sampled_from(known))
        frame = (self.model.frames, self.model.last)[age][device]
        receipt, _ = self.act(server, lambda c: c.report(device, frame, self.now))
        assert (receipt.round, receipt.duplicate, receipt.closed) == (self.model.round - age, True, None)

    @precondition(lambda self: self.model.assigned)
    @rule(server=servers, device=st.sampled_from(DEVICES), data=st.data())
    def bad_report(self, server, device, data):
        """A second and different report, one of a phone that was not selected, for another round or model."""
        assignment = next(iter(self.model.assigned.values()))
        error, changes = Conflict, {"examples": 9, "seed": 1000}
        if device in self.model.training:
            what = data.draw(st.sampled_from(["round", "model_sha256"]))
            changes[what] = self.model.round + 1 if what == "round" else "0" * 64
            error = Conflict if what == "round" else ModelError
            if error is ModelError:
                self.model.refused.add(device)
        frame = frame_of(self.task, assignment, device, **changes)

        def refused(coordinator):
            with pytest.raises(error):
                coordinator.report(device, frame, self.now)

        self.act(server, refused)

    @rule(server=servers)
    def tick(self, server):
        model = self.model
        over = model.started is not None and self.now - model.started >= self.task.rule.deadline_s
        result, _ = self.act(server, lambda c: c.tick(self.now))
        assert (result is not None) == (over and not self.finished)
        if result is not None:
            model.close(self.task, self.now)

    @precondition(lambda self: not self.finished and self.model.version > 0)
    @rule(server=servers, data=st.data())
    def roll_back(self, server, data):
        kept = [version for version in self.at.store.kept_versions() if version < self.model.version]
        if not kept:
            return
        version = data.draw(st.sampled_from(kept))
        instead = self.at.store.model(version)
        assert digest(instead[0]) == digest(self.model.versions[version])
        self.act(server, lambda c: c.close(self.now, instead=instead))
        self.model.close(self.task, self.now, instead=version)

    @rule(server=servers)
    def crash_and_restart(self, server):
        self.crash(server)

    @invariant()
    def what_is_seen_is_what_happened(self):
        if not hasattr(self, "at"):
            return
        model = self.model
        self.looked = (self.looked + 1) % self.at.servers
        seen = self.at.look(
            self.looked, lambda c: (c.round, c.version, c.reports, c.device_states(), c.params)
        )
        assert seen[:3] == (model.round, model.version, len(model.frames))
        if not self.finished:
            assert seen[3]["training"] == len(model.training)
        assert seen[4].tobytes() == model.params.tobytes()
        rows, _ = self.at.store.metrics()
        assert [{name: row[name] for name in model.rows[0]} for row in rows] == model.rows


def machine(place):
    made = type("PlacedMachine", (Machine,), {"place": staticmethod(place)})
    examples = max(1, STEPS // AN_EXAMPLE)
    run_state_machine_as_test(
        made,
        settings=settings(
            max_examples=examples,
            stateful_step_count=AN_EXAMPLE,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(0)
def test_on_sqlite_any_order_of_events_ends_where_the_model_says():
    machine(OnSqlite)


@pytest.mark.timeout(0)
def test_on_postgresql_any_order_of_events_at_several_servers_ends_where_the_model_says(postgres):
    machine(lambda task, made: OnPostgres(task, made, postgres))
