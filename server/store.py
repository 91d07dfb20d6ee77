"""The server's memory: SQLite for rounds, safetensors files for parameters and optimiser state.

The order of writes is the whole argument for surviving a crash: the files of a new model version are written
and flushed first, then one transaction inserts the rows that name them, with the sha256 of each. A crash in between
leaves files that no row names; they are written again when that version is made again. It is the same with the round
that is open: of two files, the one that no row names is written over. Once the round is closed both are empty.
"""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from kbdfl.coordinator import Coordinator
from kbdfl.errors import ConfigError, ModelError
from kbdfl.params import ParamSpec, sync_folder
from kbdfl.privacy import statement
from kbdfl.rounds import RoundResult, Saved, metrics_row
from kbdfl.server.database import DATABASE, lock_folder, open_database
from kbdfl.server.privacy import SqliteBooks
from kbdfl.server.traffic import UNKNOWN, Crossed
from kbdfl.server.turns import LocalTurn
from kbdfl.server.versions import Content, Model, VersionFiles

log = logging.getLogger(__name__)

KEPT_COUNTED = 100  # rounds whose reports are known again
KEPT_TRAFFIC = 1_000  # rounds of which the bytes of each device are kept
SCHEMA = Path(__file__).with_name("schema.sql")


class SqliteStore:
    """A coordinator's store in `folder`, for one server at a time; any thread may call any method.

    `spec` is the layout of the model; a folder that holds another model is refused with ModelError, a folder
    that another process serves with ConfigError. The newest `keep` versions stay on disk; every checkpoint's
    metadata carries `facts` (JSON values), its round, its version and what the `books` say of its privacy. `damage`
    says what `load` could not read.
    """

    def __init__(
        self, folder: Path, spec: ParamSpec, *, keep: int = 3, facts: dict[str, Any] | None = None
    ) -> None:
        if keep < 1:
            raise ConfigError(f"keep must be >= 1, got {keep}")
        self.folder, self._spec, self._keep, self._facts = Path(folder), spec, keep, facts or {}
        self._files = VersionFiles(self.folder / "checkpoints")
        self.checkpoints = self._files.folder
        self.damage: str | None = None
        self._damaged: set[int] = set()
        self._mutex = threading.RLock()
        self._lock_file = lock_folder(self.folder)
        try:
            self._database = open_database(self.folder / DATABASE, SCHEMA)
            self.books = SqliteBooks(self._database, self._mutex)
            self._check_fact("spec", spec.hash)
        except BaseException:
            self._lock_file.close()
            raise
        self._revision = self._one("SELECT coalesce(max(revision), 0) FROM rounds")
        # Clocks start anew with a process, so what was served before is added to what is served now.
        self._served_before_s = self._one(
            "SELECT coalesce(max(json_extract(metrics, '$.wall_s')), 0) FROM rounds"
        )
        self._began_s: float | None = None

    def close(self) -> None:
        """Close the database and let another server have the folder."""
        with self._mutex:
            self._database.close()
            self._lock_file.close()

    def turn(
        self, coordinator: Coordinator, *, clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> LocalTurn:
        """What a service holds while it asks `coordinator`."""
        return LocalTurn(self, coordinator, clock=clock, wall_clock=wall_clock)

    # rounds and models

    def load(self) -> Saved | None:
        """The state after the newest closed round, or None in a fresh folder.

        If its model is damaged, the newest whole one before it takes its place, under a version that no phone has
        seen, and `damage` says what was lost. Raises ModelError if there is none.
        """
        with self._mutex:
            row = self._database.execute(
                "SELECT round, version FROM rounds ORDER BY round DESC LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            last_round, version = row
            (params, server_state), whole = self._newest_whole(version)
            if whole != version:
                version += 1
                lost = self._one("SELECT count(*) FROM rounds WHERE version > ?", whole)
                self.damage = f"{self.damage}; of the last {lost} rounds nothing is left in the model"
                log.warning("going on from version %d as version %d: %s", whole, version, self.damage)
            return Saved(last_round, version, params, server_state, self._counted(last_round))

    def _newest_whole(self, newest: int) -> tuple[Model, int]:
        """The newest version that is what was kept, and its number."""
        first: ModelError | None = None
        for version in sorted({newest, *(v for v in self._files.kept() if v < newest)}, reverse=True):
            try:
                return self.model(version), version
            except ModelError as error:
                self._damaged.add(version)
                first = first or error
                self.damage = str(first)
        raise first or ModelError(f"no version is kept in {self.checkpoints}")

    def kept_versions(self) -> list[int]:
        """The versions whose model and server state are on disk, the oldest first."""
        return [version for version in self._files.kept() if version not in self._damaged]

    def model(self, version: int) -> Model:
        """A kept version, float32 (P,), and the server rule's state. Raises ModelError if it is not whole."""
        with self._mutex:
            sha256 = self._database.execute(
                "SELECT params_sha256, state_sha256 FROM versions WHERE version = ?", (version,)
            ).fetchone()
        content, name = self._files.read(version), str(self.checkpoints / self._files.name(version))
        content.check(sha256, name=name)
        return content.model(self._spec, name=name)

    def save(
        self,
        result: RoundResult,
        params: np.ndarray,
        server_state: dict[str, np.ndarray],
        *,
        counted: Collection[tuple[str, bytes]] = (),
    ) -> None:
        """Keep a closed round for good: first its files, when they are new, then the row that names them.

        Nothing of its reports is left but who sent which bytes.
        """
        with self._mutex:
            if self._began_s is None:
                self._began_s = result.started_s
            row = metrics_row(result, wall_s=self._served_before_s + result.ended_s - self._began_s)
            known = self._one("SELECT EXISTS (SELECT 1 FROM rounds WHERE version = ?)", result.version)
            content = None
            if result.status == "committed" or not known:
                facts = self._facts | {"round": result.round, "version": result.version}
                if released := self.books.last():
                    facts["privacy"] = statement(released)
                content = Content.of(params, server_state, self._spec, facts)
                self._files.write(result.version, content)
            with self._database:
                self._database.execute(
                    "INSERT INTO rounds (round, version, status, metrics, revision) VALUES (?, ?, ?, ?, ?)",
                    (result.round, result.version, result.status, json.dumps(row), self._revision + 1),
                )
                self._database.executemany(
                    "INSERT INTO counted (round, device, sha256) VALUES (?, ?, ?)",
                    [(result.round, *report) for report in counted],
                )
                self._database.execute("DELETE FROM counted WHERE round <= ?", (result.round - KEPT_COUNTED,))
                self._database.execute("DELETE FROM in_flight")
                if content is not None:
                    self._database.execute(
                        "INSERT OR REPLACE INTO versions (version, params_sha256, state_sha256) VALUES (?, ?, ?)",
                        (result.version, *content.sha256),
                    )
                oldest = result.version - self._keep
                self._database.execute("DELETE FROM versions WHERE version <= ?", (oldest,))
            self._revision += 1
            self._empty_in_flight()
            self._files.forget(oldest)

    # the open round

    def keep_in_flight(self, number: int, content: bytes, saved_s: float) -> None:
        """Make the open round durable, at `saved_s` of the wall clock, in place of what was kept of it before.

        Nothing is kept of a round `number` that was closed in the meantime.
        """
        with self._mutex:
            if self._one("SELECT EXISTS (SELECT 1 FROM rounds WHERE round >= ?)", number):
                return
            place = 1 - (self._one("SELECT place FROM in_flight") or 0)
            path = self._in_flight(place)
            fresh = not path.exists()
            with open(path, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if fresh:
                sync_folder(self.folder)
            with self._database:
                self._database.execute(
                    "INSERT OR REPLACE INTO in_flight (only, place, sha256, saved_s) VALUES (0, ?, ?, ?)",
                    (place, hashlib.sha256(content).digest(), saved_s),
                )

    def in_flight(self) -> tuple[bytes, float] | None:
        """What was kept of the open round, and when; None if nothing was. Raises ModelError if it is damaged."""
        with self._mutex:
            row = self._database.execute("SELECT place, sha256, saved_s FROM in_flight").fetchone()
            if row is None:
                self._empty_in_flight()  # a server was killed as it was about to
                return None
        place, sha256, saved_s = row
        try:
            content = self._in_flight(place).read_bytes()
        except FileNotFoundError:
            content = b""
        if hashlib.sha256(content).digest() != sha256:
            raise ModelError(
                f"{self._in_flight(place)} is damaged: it does not have the sha256 that was kept"
            )
        return content, saved_s

    def _in_flight(self, place: int) -> Path:
        return self.folder / f"in-flight-{place}.bin"

    def _empty_in_flight(self) -> None:
        for place in (0, 1):
            path = self._in_flight(place)
            if path.exists():
                os.truncate(path, 0)

    def _counted(self, newest: int) -> tuple[set[tuple[str, bytes]], ...]:
        """The reports of the last rounds, the newest first, one set a round."""
        rounds: dict[int, set[tuple[str, bytes]]] = {}
        for number, device, sha256 in self._database.execute("SELECT round, device, sha256 FROM counted"):
            rounds.setdefault(number, set()).add((device, sha256))
        oldest = min(rounds, default=newest + 1)
        return tuple(rounds.get(number, set()) for number in range(newest, oldest - 1, -1))

    def newest_checkpoint(self) -> Path | None:
        """The file of the newest version that a row names, or of the one before that is whole."""
        with self._mutex:
            newest = self._one("SELECT max(version) FROM rounds")
        if newest is None:
            return None
        whole = [version for version in self.kept_versions() if version <= newest]
        return self._files.checkpoint(max(whole, default=newest))

    # metrics

    def measured(self, number: int, recall: dict[str, float]) -> None:
        """Add recalls to the row of round `number`."""
        with self._mutex, self._database:
            row = self._one("SELECT metrics FROM rounds WHERE round = ?", number)
            self._change(number, json.loads(row) | recall)

    def _change(self, number: int, row: dict[str, Any]) -> None:
        self._revision += 1
        self._database.execute(
            "UPDATE rounds SET metrics = ?, revision = ? WHERE round = ?",
            (json.dumps(row), self._revision, number),
        )

    def crossed(self, number: int, crossed: Crossed) -> None:
        """Add to round `number` what crossed the socket while it was open, all in all and device by device."""
        up, down = (sum(both) for both in zip(*crossed.values(), strict=True))
        with self._mutex, self._database:
            self._database.executemany(
                "INSERT INTO traffic (round, device, up_bytes, down_bytes) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (round, device) DO UPDATE SET"
                " up_bytes = up_bytes + excluded.up_bytes, down_bytes = down_bytes + excluded.down_bytes",
                [(number, device, *both) for device, both in crossed.items()],
            )
            self._database.execute("DELETE FROM traffic WHERE round <= ?", (number - KEPT_TRAFFIC,))
            devices = self._one(
                "SELECT count(*) FROM traffic WHERE round = ? AND device != ?", number, UNKNOWN
            )
            row = json.loads(self._one("SELECT metrics FROM rounds WHERE round = ?", number))
            row["socket_up_bytes"] = (row.get("socket_up_bytes") or 0) + up
            row["socket_down_bytes"] = (row.get("socket_down_bytes") or 0) + down
            row["socket_devices"] = devices
            self._change(number, row)

    def traffic(self, number: int) -> list[dict[str, Any]]:
        """What crossed in round `number`, one object a device, the most bytes first; none for long ago."""
        with self._mutex:
            rows = self._database.execute(
                "SELECT device, up_bytes, down_bytes FROM traffic WHERE round = ?"
                " ORDER BY up_bytes + down_bytes DESC, device",
                (number,),
            ).fetchall()
        return [{"device": device or None, "up_bytes": up, "down_bytes": down} for device, up, down in rows]

    def metrics(self, *, since: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Rows that came or changed after revision `since`, in order of rounds, and the newest revision."""
        with self._mutex:
            rows = self._database.execute(
                "SELECT metrics FROM rounds WHERE revision > ? ORDER BY round", (since,)
            ).fetchall()
            return [json.loads(text) for (text,) in rows], self._revision

    def last_committed(self) -> int | None:
        """The number of the newest committed round."""
        with self._mutex:
            return self._one("SELECT max(round) FROM rounds WHERE status = 'committed'")

    def totals(self) -> dict[str, int | None]:
        """Sums over all closed rounds; those of the socket are None where nothing came over one."""
        with self._mutex:
            committed, abandoned, reports, dropped, refused, uplink, downlink, up, down = (
                self._database.execute(
                    "SELECT coalesce(sum(status = 'committed'), 0), coalesce(sum(status = 'abandoned'), 0),"
                    " coalesce(sum(json_extract(metrics, '$.reports')), 0),"
                    " coalesce(sum(json_extract(metrics, '$.dropped')), 0),"
                    " coalesce(sum(json_extract(metrics, '$.refused')), 0),"
                    " coalesce(sum(json_extract(metrics, '$.uplink_bytes')), 0),"
                    " coalesce(sum(json_extract(metrics, '$.downlink_bytes')), 0),"
                    " sum(json_extract(metrics, '$.socket_up_bytes')),"
                    " sum(json_extract(metrics, '$.socket_down_bytes')) FROM rounds"
                ).fetchone()
            )
        return {
            "committed": committed,
            "abandoned": abandoned,
            "reports": reports,
            "dropped": dropped,
            "refused": refused,
            "uplink_bytes": uplink,
            "downlink_bytes": downlink,
            "socket_up_bytes": up,
            "socket_down_bytes": down,
        }

    def _check_fact(self, name: str, value: str) -> None:
        with self._database:
            self._database.execute("INSERT OR IGNORE INTO facts (name, value) VALUES (?, ?)", (name, value))
        kept = self._one("SELECT value FROM facts WHERE name = ?", name)
        if kept != value:
            raise ModelError(f"{self.folder} was served with another model ({name} {kept}, now {value})")

    def _one(self, query: str, *arguments: Any) -> Any:
        row = self._database.execute(query, arguments).fetchone()
        return None if row is None else row[0]
