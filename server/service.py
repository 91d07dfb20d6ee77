"""A task being served: turns at the coordinator, a worker for slow jobs, a ticker for deadlines.

Everything HTTP stays in the blueprints; everything about a round stays in the coordinator. What is here is
time (a monotonic clock), threads and the bytes that are the same for many devices.
"""

import functools
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kbdfl.algorithms.mode import FedBuff
from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator
from kbdfl.errors import Conflict, ModelError, NotFound, ServerUnavailable, TooLarge, WireError
from kbdfl.params import write_atomically
from kbdfl.parts import TooStale
from kbdfl.rounds import Finished, Receipt, RoundResult, Wait
from kbdfl.server.administration import OPEN, PAUSE_S, SERVER, STOPPED, Administration, TaskAdministration
from kbdfl.server.bodies import Bodies, ModelBody
from kbdfl.server.bundles import ServedBundle, open_bundle, replace_bundle
from kbdfl.server.described import described
from kbdfl.server.postgres.store import PostgresStore
from kbdfl.server.privacy import abandon_lost, note_spent, told
from kbdfl.server.secure import SecureRoom
from kbdfl.server.store import SqliteStore
from kbdfl.server.traffic import Traffic
from kbdfl.server.turns import Turn
from kbdfl.server.worker import Background, Evaluate, Worker, ticker

log = logging.getLogger(__name__)

TICK_S = 0.2
KEPT_VERSIONS = 4  # in an asynchronous task, for phones that checked in just before the newest


class TaskService:
    """What the blueprints call. Thread-safe; `start` it before serving and `close` it afterwards."""

    def __init__(
        self,
        coordinator: Coordinator,
        store: SqliteStore | PostgresStore,
        *,
        background: Background | None = None,
        administration: TaskAdministration | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._coordinator, self._store = coordinator, store
        self._turn: Turn = store.turn(coordinator, clock=clock, wall_clock=wall_clock)
        self._background = background or Background()
        self._clock, self.wall_clock = clock, wall_clock
        self.administration = administration or TaskAdministration(
            Administration(store.folder, wall_clock=wall_clock), own=True
        )
        self.secure = SecureRoom(coordinator, self._turn, self.administration, wall_clock=wall_clock)
        self._worker = Worker()
        self._stop = threading.Event()
        self._ticker = ticker(lambda: self.tick(), self._stop, every_s=TICK_S)
        self._bodies = Bodies()
        self._committed_since_start = 0
        self.traffic = Traffic()  # for the server that the application runs on
        self._started_s = clock()
        self.task = coordinator.task
        self._served = KEPT_VERSIONS if isinstance(self.task.algorithm.mode, FedBuff) else 1
        self.folder = store.folder
        self.bundle: ServedBundle | None = None

    def start(self) -> None:
        """Begin to keep deadlines; load the bundle a former server left, or export the current model."""
        if (self.folder / "model" / "manifest.json").is_file():
            try:
                self.bundle = open_bundle(self.folder / "model")
            except ModelError as error:
                log.warning("a bundle is not usable and will be exported again: %s", error)
        lost = abandon_lost(self._coordinator, self.administration, self._turn.now())
        self._turn.start(self._followed)
        self._worker.start()
        self._ticker.start()
        with self._turn:
            if lost := lost or self.secure.restart(self._turn.now()):
                self._after(lost)
            if self.bundle is None or self.bundle.version != self._coordinator.version:
                self._order_export(self._coordinator.round)
            if self.finished and not lost:  # the worker was told to
                self._write_metrics()
            self.administration.began(self._store.metrics()[0], open_round=self._open_round)
            note_spent(self._coordinator, self.administration)
            if self._store.damage:
                self.administration.note(SERVER, "model damaged", damage=self._store.damage)
            self._turn.changed(awaited=False)

    def close(self, *, finish: bool = False) -> None:
        """Stop the threads, write metrics.jsonl and let go of the folder; `finish` waits for ordered jobs."""
        with self._turn.local:
            if self._stop.is_set():
                return
            self._stop.set()
        if self._ticker.is_alive():
            self._ticker.join()
        self._worker.close(finish=finish)
        try:
            with self._turn:
                self._keep_traffic(self._coordinator.round - 1)  # answers that came after the last round
                self._turn.changed(awaited=False)
            self._write_metrics()
        except ServerUnavailable as error:
            log.warning("the last traffic was not kept: %s", error)
        self._turn.close()
        with self._turn.local:
            self.administration.close()
            self._store.close()

    # what a device asks for

    def check_in(self, device: str, *, tier: str = "", again: bool = False) -> Assignment | Wait | Finished:
        """What the coordinator answers, as long as the task is open; one that is sent `again` selects nobody."""
        with self._turn:
            if self.administration.state != OPEN:
                return Finished() if self.administration.state == STOPPED else Wait(PAUSE_S)
            answer = self._coordinator.check_in(device, self._turn.now(), tier=tier, again=again)
            if isinstance(answer, Assignment) or self._coordinator.selection_remembers:
                # Nobody waits: a phone whose part is forgotten is told so, and comes again.
                self._turn.changed(awaited=False)
            self.secure.told(device, answer, self._turn.now())
            if isinstance(answer, Assignment) and not self.task.algorithm.client.partial_model:
                self.model(answer.version)  # the phone may ask for it once it is superseded
            return answer

    def model(self, version: int, *, held: int | None = None) -> ModelBody:
        """The wire form of a version, for a phone that holds version `held`; each is encoded once.

        An asynchronous task serves its last few versions. Raises NotFound for any other.
        """
        with self._turn if version > self.version else self._turn.local:
            newest = self._coordinator.version
            if not newest - self._served < version <= newest:
                raise NotFound(f"version {newest} is served, not {version}")
            downlink = self._coordinator.downlink
            held = held if downlink.holds(held) else None

            def encode() -> bytes:
                try:
                    return downlink.frame(version, held=held)
                except NotFound:  # it was made before this process began, or by another one
                    if version not in self._store.kept_versions():
                        raise
                return downlink.earlier(version, self._store.model(version)[0])

            return self._body(version, f"from {held}", encode)

    def control(self, version: int) -> ModelBody:
        """SCAFFOLD's c beside the newest version. Raises NotFound for another, or where the task keeps none."""
        with self._turn:
            if version != self._coordinator.version:
                raise NotFound(f"version {self._coordinator.version} is served, not {version}")
            c = self._coordinator
            return self._body(version, "control", lambda: c.downlink.control(c.control))

    def part(self, number: int) -> ModelBody:
        """What the phones of round `number` are sent of a model that they need not have all of."""
        with self._turn:
            return self._body(
                self._coordinator.version, f"round {number}", lambda: self._coordinator.part(number)
            )

    def _body(self, version: int, what: str, encode: Callable[[], bytes]) -> ModelBody:
        oldest = self._coordinator.version - self._served
        return self._bodies.get(version, what, encode, after=oldest)

    @property
    def version(self) -> int:
        return self._coordinator.version

    @property
    def round(self) -> int:
        return self._coordinator.round

    @property
    def finished(self) -> bool:
        return self._coordinator.phase == "finished"

    @property
    def privacy(self) -> dict[str, Any] | None:
        return told(self._coordinator.privacy)

    def downloaded(self, nbytes: int) -> None:
        self._turn.downloaded(nbytes)

    def report(self, device: str, number: int, frame: bytes) -> Receipt:
        """Hand a report to the coordinator; returns once it is durable that the report was counted.

        Raises ServerUnavailable if that cannot be had now; the phone may send it again.
        """
        with self._turn:
            try:
                receipt = self._coordinator.report(device, frame, self._turn.now(), number=number)
            except (OSError, sqlite3.Error) as error:  # the round is full, and could not be kept
                log.error("a round could not be closed: %s", error)
                raise ServerUnavailable("the report could not be made durable; send it again") from None
            except (TooLarge, WireError, ModelError, TooStale):
                self._turn.changed(awaited=False)  # who sent what cannot be counted
                raise
            if receipt.closed is not None:
                self._after(receipt.closed)
            closed = receipt.closed is not None
            change = self._turn.newest if receipt.duplicate else self._turn.changed(closed=closed)
        self._turn.wait(change)
        return receipt

    # what an administrator asks for

    def become(self, state: str, *, by: str) -> None:
        """Open, pause or stop the task; a stopped one is measured and exported as it stands."""
        with self._turn:
            self.administration.become(state, by=by)
            if state == STOPPED:
                self._finish()
            self._turn.changed(closed=True)

    def kept_versions(self) -> list[int]:
        """The versions that the task can go back to."""
        return [version for version in self._store.kept_versions() if version < self._coordinator.version]

    def roll_back(self, version: int, *, by: str) -> RoundResult:
        """Abandon the round in flight; the next one begins from an earlier version, under a new number."""
        with self._turn:
            if version not in self.kept_versions():
                raise NotFound(f"versions {self.kept_versions()} are kept, not {version}")
            if self._open_round is None:
                raise Conflict("the task is finished, so no version can follow")
            model = self._store.model(version)
            self.administration.note(by, "roll back", to=version, before=self._coordinator.version)
            closed = self._coordinator.close(self._turn.now(), instead=model)
            self._after(closed)
            self._turn.after(functools.partial(self._order_export, closed.round))
            self._turn.changed(closed=True)
            return closed

    # what the pages ask for

    def metrics(self, since: int) -> tuple[list[dict[str, Any]], int]:
        return self._store.metrics(since=since)

    def traffic_of(self, number: int) -> list[dict[str, Any]]:
        """Round `number`'s bytes at the socket, device by device. Raises NotFound before it is closed."""
        if not 0 <= number < self._coordinator.round:
            raise NotFound(f"round {number} is not closed yet")
        return self._store.traffic(number)

    def checkpoint(self) -> Path:
        path = self._store.newest_checkpoint()
        if path is None:
            raise NotFound("no round has been closed yet, so there is no checkpoint")
        return path

    def config_text(self) -> str:
        path = self.folder / "config.toml"
        if not path.is_file():
            raise NotFound("this server was started without a configuration file")
        return path.read_text()

    def current_bundle(self) -> ServedBundle:
        if self.bundle is None:
            raise NotFound("the first bundle is still being exported")
        return self.bundle

    @property
    def settled(self) -> bool:
        """Whether all rounds are done, measured and exported."""
        with self._turn:
            over = self.finished or self.administration.state == STOPPED
            return over and self._worker.settled

    def wait_settled(self, timeout_s: float) -> bool:
        return self._worker.wait(timeout_s)

    def phones(self) -> dict[str, int]:
        """How many phones are in each state, and how many have enrolled."""
        with self._turn:
            return {**self._coordinator.device_states(), "enrolled": len(self.administration.server.registry)}

    def status(self) -> dict[str, Any]:
        """The state of the task in one JSON object."""
        with self._turn:
            coordinator = self._coordinator
            phones = self.phones()
            document = {
                "task": self.task.name,
                "phase": coordinator.phase,
                "state": self.administration.state,
                "round": coordinator.round,
                "rounds": self.task.rule.rounds,
                "version": coordinator.version,
            }
        bundle = self.bundle
        return document | {
            "settled": self.settled,
            "uptime_s": round(self._clock() - self._started_s, 3),
            "phones": phones,
            **described(self.task),
            "privacy": self.privacy,
            "totals": self._store.totals(),
            "bundle": bundle.summary() if bundle else None,
            "failures": dict(self._worker.failures),
        }

    # what must outlive a crash

    @property
    def ready(self) -> bool:
        """Whether reports can be made durable: it was started, is not closing, and the disk takes what it is given."""
        return self._ticker.is_alive() and not self._stop.is_set() and self._turn.healthy

    # what happens by itself

    def tick(self) -> None:
        """Close the round whose deadline has passed, or whose session is over."""
        self.secure.advance()
        with self._turn:
            closed = self.secure.settle(self._turn.now()) or self._coordinator.tick(self._turn.now())
            if closed is not None:
                self._after(closed)
                self._turn.changed(closed=True)

    def _keep_traffic(self, number: int) -> None:
        if number >= 0 and (crossed := self.traffic.take()):
            self._store.crossed(number, crossed)

    @property
    def _open_round(self) -> int | None:
        return None if self.finished else self._coordinator.round

    def _after(self, closed: RoundResult) -> None:
        self._keep_traffic(closed.round)
        self.administration.ended(closed, open_round=self._open_round)
        note_spent(self._coordinator, self.administration)
        self._turn.after(functools.partial(self._order, closed.round, closed.status == "committed"))

    def _followed(self, before: int) -> None:
        """Rounds from `before` on were closed by other processes, who measure them; the model is exported here too."""
        self._keep_traffic(self._coordinator.round - 1)
        self._turn.changed(awaited=False)
        self._order(self._coordinator.round - 1, True, ours=False)

    def _order(self, number: int, committed: bool, *, ours: bool = True) -> None:
        """What is to be done after round `number`."""
        finished = self.finished
        if committed:
            self._committed_since_start += 1
            count = self._committed_since_start
            if ours and (finished or count % self._background.evaluate_every == 0):
                self._order_evaluation(number)
            if finished or count % self._background.export_every == 0:
                self._order_export(number)
        elif finished:
            self._finish()
        if finished:
            self._worker.order("metrics", self._write_metrics)

    def _finish(self) -> None:
        last = self._store.last_committed()
        if last is not None:
            self._order_evaluation(last)
            self._order_export(last)

    def _order_evaluation(self, number: int) -> None:
        if (evaluate := self._background.evaluate) is not None:
            params = self._coordinator.published.copy()
            self._worker.order("evaluate", functools.partial(self._evaluate, evaluate, params, number))

    def _order_export(self, number: int) -> None:
        if (export := self._background.export) is not None:
            params, version = self._coordinator.published.copy(), self._coordinator.version
            write = functools.partial(export, params, round=number, version=version)
            self._worker.order("export", functools.partial(self._export, write))

    def _evaluate(self, evaluate: Evaluate, params: np.ndarray, number: int) -> None:
        recall = evaluate(params)
        kept = {name: float(recall[name]) for name in ("recall_top1", "recall_top3")}
        self._store.measured(number, kept)

    def _export(self, write: Callable[[Path], None]) -> None:
        self.bundle = replace_bundle(self.folder / "model", write)

    def _write_metrics(self) -> None:
        rows, _ = self._store.metrics(since=0)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(self.folder / "metrics.jsonl", text.encode())
