"""Rounds and models of a task in PostgreSQL, for several processes: the same store as `kbdfl.server.store`.

A closed round, its model and who was counted are one transaction. What a process does in its turn
(`kbdfl.server.postgres.turn`) is part of the turn's transaction; everything else sees what is committed.
"""

import json
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from kbdfl.coordinator import Coordinator
from kbdfl.errors import ConfigError, ModelError
from kbdfl.params import ParamSpec, write_atomically
from kbdfl.rounds import RoundResult, Saved, metrics_row
from kbdfl.server.database import lock_folder
from kbdfl.server.postgres.address import RECORDS, Address
from kbdfl.server.postgres.link import Link, prepare, this_turn
from kbdfl.server.postgres.turn import SharedTurn
from kbdfl.server.store import KEPT_COUNTED, KEPT_TRAFFIC
from kbdfl.server.traffic import UNKNOWN, Crossed
from kbdfl.server.versions import Content, Model, VersionFiles

log = logging.getLogger(__name__)

_SUMMED = (
    *("reports", "dropped", "refused", "uplink_bytes", "downlink_bytes"),
    *("socket_up_bytes", "socket_down_bytes"),
)


class PostgresStore:
    """A coordinator's store at `address`, for several processes; any thread may call any method.

    `folder` is this process' own: it says where the task is kept, and holds what a page or a bundle needs as a file.
    Raises ModelError for a task of another model, ConfigError for a folder that another process serves,
    ServerUnavailable if PostgreSQL cannot be reached.
    """

    def __init__(
        self,
        folder: Path,
        spec: ParamSpec,
        *,
        address: Address,
        keep: int = 3,
        facts: dict[str, Any] | None = None,
    ) -> None:
        if keep < 1:
            raise ConfigError(f"keep must be >= 1, got {keep}")
        self.folder, self.address = Path(folder), address
        self._spec, self._keep, self._facts = spec, keep, facts or {}
        self._files = VersionFiles(self.folder / "checkpoints")
        self.checkpoints = self._files.folder
        self.damage: str | None = None
        self._damaged: set[int] = set()
        self._mutex = threading.RLock()
        self._lock_file = lock_folder(self.folder)
        schemas = (address.schema, RECORDS)
        self._link, self.turn_link = Link(address.url, schemas), Link(address.url, schemas)
        try:
            address.check(self.folder)
            prepare(self._link, address.schema, "store.sql")
            # A dump may have left the open round out.
            self._link.rows("INSERT INTO turn VALUES (0, 0, -1, 0, NULL) ON CONFLICT DO NOTHING")
            kept = self.agreed("spec", spec.hash)
            if kept != spec.hash:
                raise ModelError(
                    f"{address.schema} was served with another model (spec {kept}, now {spec.hash})"
                )
            # Clocks of processes may begin anew, so what was served before is added to what is served now.
            self._served_before_s = self._served_s()
            address.keep(self.folder)
        except BaseException:
            self.close()
            raise
        self._began_s: float | None = None

    def close(self) -> None:
        """Leave the database, and let another process have the folder."""
        with self._mutex:
            self._link.close()
            self.turn_link.close()
            self._lock_file.close()

    def turn(
        self, coordinator: Coordinator, *, clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> SharedTurn:
        """What a service holds while it asks `coordinator`. The clock is the database's, the same for all."""
        return SharedTurn(self, coordinator)

    @property
    def books(self) -> NoReturn:
        """Raises ConfigError: a ledger is one process' own."""
        raise ConfigError("privacy must be none in PostgreSQL: one process alone keeps its ledger")

    def agreed(self, name: str, value: str) -> str:
        """What all who serve the task must agree on: the `value` that the first one of them gave."""
        with self._writing() as link:
            link.rows("INSERT INTO facts (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING", name, value)
            return link.one("SELECT value FROM facts WHERE name = %s", name)

    @contextmanager
    def _asking(self) -> Iterator[Link]:
        """The turn's link in a turn of this store, otherwise one of its own."""
        if this_turn() is self.turn_link:
            yield self.turn_link
            return
        with self._mutex:
            yield self._link

    @contextmanager
    def _writing(self) -> Iterator[Link]:
        with self._asking() as link, link.transaction():
            yield link

    def _one(self, query: str, *arguments: Any) -> Any:
        with self._asking() as link:
            return link.one(query, *arguments)

    def _rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        with self._asking() as link:
            return link.rows(query, *arguments)

    # rounds and models

    def load(self, *, known: int = KEPT_COUNTED) -> Saved | None:
        """The state after the newest closed round, with the reports of the `known` last ones; None at the beginning.

        If its model is damaged, the newest whole one before it takes its place, under a version that no phone has
        seen, and `damage` says what was lost. Raises ModelError if there is none.
        """
        rows = self._rows("SELECT round, version FROM rounds ORDER BY round DESC LIMIT 1")
        if not rows:
            return None
        last_round, version = rows[0]
        (params, server_state), whole = self._newest_whole(version)
        if whole != version:
            version += 1
            lost = self._one("SELECT count(*) FROM rounds WHERE version > %s", whole)
            self.damage = f"{self.damage}; of the last {lost} rounds nothing is left in the model"
            log.warning("going on from version %d as version %d: %s", whole, version, self.damage)
        return Saved(last_round, version, params, server_state, self._counted(last_round, known))

    def _newest_whole(self, newest: int) -> tuple[Model, int]:
        """The newest version that is what was kept, and its number."""
        first: ModelError | None = None
        kept = (version for (version,) in self._rows("SELECT version FROM versions"))
        for version in sorted({newest, *(v for v in kept if v < newest)}, reverse=True):
            try:
                return self.model(version), version
            except ModelError as error:
                self._damaged.add(version)
                first = first or error
                self.damage = str(first)
        raise first or ModelError("no version is kept")

    def kept_versions(self) -> list[int]:
        """The versions whose model and server state are kept, the oldest first."""
        rows = self._rows("SELECT version FROM versions ORDER BY version")
        return [version for (version,) in rows if version not in self._damaged]

    def model(self, version: int) -> Model:
        """A kept version, float32 (P,), and the server rule's state. Raises ModelError if it is not whole."""
        return self._content(version).model(self._spec, name=self._name(version))

    def _content(self, version: int) -> Content:
        rows = self._rows(
            "SELECT checkpoint, state, params_sha256, state_sha256 FROM versions WHERE version = %s", version
        )
        if not rows:
            raise ModelError(f"{self._name(version)} is not kept")
        checkpoint, state, *sha256 = rows[0]
        content = Content(checkpoint, state)
        content.check(tuple(sha256), name=self._name(version))
        return content

    def _name(self, version: int) -> str:
        return f"version {self._files.name(version)} of {self.address.schema}"

    def save(
        self,
        result: RoundResult,
        params: np.ndarray,
        server_state: dict[str, np.ndarray],
        *,
        counted: Collection[tuple[str, bytes]] = (),
    ) -> None:
        """Keep a closed round for good, and of its reports nothing but who sent which bytes."""
        if self._began_s is None:
            self._began_s = result.started_s
        wall_s = self._served_before_s + result.ended_s - self._began_s
        with self._writing() as link:
            revision = _next_revision(link)
            row = metrics_row(result, wall_s=max(wall_s, self._served_s()))
            known = link.one("SELECT EXISTS (SELECT 1 FROM rounds WHERE version = %s)", result.version)
            link.rows(
                "INSERT INTO rounds (round, version, status, metrics, revision) VALUES (%s, %s, %s, %s, %s)",
                result.round,
                result.version,
                result.status,
                json.dumps(row),
                revision,
            )
            if result.status == "committed" or not known:
                facts = self._facts | {"round": result.round, "version": result.version}
                content = Content.of(params, server_state, self._spec, facts)
                link.rows("DELETE FROM versions WHERE version = %s", result.version)
                link.rows(
                    "INSERT INTO versions (version, checkpoint, state, params_sha256, state_sha256)"
                    " VALUES (%s, %s, %s, %s, %s)",
                    result.version,
                    content.checkpoint,
                    content.state,
                    *content.sha256,
                )
            link.rows("DELETE FROM versions WHERE version <= %s", result.version - self._keep)
            link.many(
                "INSERT INTO counted (round, device, sha256) VALUES (%s, %s, %s)",
                [(result.round, *report) for report in counted],
            )
            link.rows("DELETE FROM counted WHERE round <= %s", result.round - KEPT_COUNTED)
            link.rows("DELETE FROM sums WHERE round <= %s", result.round)

    def _counted(self, newest: int, known: int) -> tuple[set[tuple[str, bytes]], ...]:
        """The reports of the `known` last rounds, the newest first, one set a round."""
        rounds: dict[int, set[tuple[str, bytes]]] = {}
        query = "SELECT round, device, sha256 FROM counted WHERE round > %s"
        for number, device, sha256 in self._rows(query, newest - known):
            rounds.setdefault(number, set()).add((device, sha256))
        oldest = min(rounds, default=newest + 1)
        return tuple(rounds.get(number, set()) for number in range(newest, oldest - 1, -1))

    def newest_checkpoint(self) -> Path | None:
        """A file with the newest version of a closed round, or with the one before that is whole."""
        newest = self._one("SELECT max(version) FROM rounds")
        if newest is None:
            return None
        version = max((v for v in self.kept_versions() if v <= newest), default=newest)
        path = self._files.checkpoint(version)
        if not path.is_file():
            write_atomically(path, self._content(version).checkpoint)
            self._files.forget(version - self._keep)
        return path

    # the open round: what all know of it, and the sums that each process keeps for itself

    def shared_state(self) -> bytes | None:
        """What was last kept with `keep_shared`; None before."""
        return self._one("SELECT state FROM turn")

    def keep_shared(self, revision: int, number: int, version: int, state: bytes) -> bool:
        """In a turn: what all know of round `number`, begun from `version`. False if `revision` is not the last."""
        with self._asking() as link:
            query = "UPDATE turn SET revision = revision + 1, round = %s, version = %s, state = %s WHERE revision = %s"
            return link.execute(query, (number, version, state, revision)).rowcount == 1

    def keep_sums(self, number: int, version: int, process: str, content: bytes) -> None:
        """In place of what `process` kept before of round `number`, which began from `version`."""
        self._rows(
            "INSERT INTO sums (round, version, process, content) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (round, version, process) DO UPDATE SET content = excluded.content",
            number,
            version,
            process,
            content,
        )

    def sums(self, number: int, version: int, *, but: str) -> Iterable[bytes]:
        """What all processes `but` one have kept."""
        query = (
            "SELECT process FROM sums WHERE round = %s AND version = %s AND process != %s ORDER BY process"
        )
        for (process,) in self._rows(query, number, version, but):  # one at a time is in memory
            yield self._one(
                "SELECT content FROM sums WHERE round = %s AND version = %s AND process = %s",
                number,
                version,
                process,
            )

    # metrics

    def measured(self, number: int, recall: dict[str, float]) -> None:
        """Add recalls to the row of round `number`."""
        with self._writing() as link:
            _change(link, number, lambda row: row | recall)

    def crossed(self, number: int, crossed: Crossed) -> None:
        """Add to round `number` what crossed the socket while it was open, all in all and device by device."""
        up, down = (sum(both) for both in zip(*crossed.values(), strict=True))
        with self._writing() as link:
            revision = _next_revision(link)  # first: two processes may count the same devices
            link.many(
                "INSERT INTO traffic (round, device, up_bytes, down_bytes) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (round, device) DO UPDATE SET up_bytes = traffic.up_bytes + excluded.up_bytes,"
                " down_bytes = traffic.down_bytes + excluded.down_bytes",
                [(number, device, *both) for device, both in crossed.items()],
            )
            link.rows("DELETE FROM traffic WHERE round <= %s", number - KEPT_TRAFFIC)
            devices = link.one(
                "SELECT count(*) FROM traffic WHERE round = %s AND device != %s", number, UNKNOWN
            )
            _change(
                link,
                number,
                lambda row: (
                    row
                    | {
                        "socket_up_bytes": (row.get("socket_up_bytes") or 0) + up,
                        "socket_down_bytes": (row.get("socket_down_bytes") or 0) + down,
                        "socket_devices": devices,
                    }
                ),
                revision=revision,
            )

    def traffic(self, number: int) -> list[dict[str, Any]]:
        """What crossed in round `number`, one object a device, the most bytes first; none for long ago."""
        rows = self._rows(
            "SELECT device, up_bytes, down_bytes FROM traffic WHERE round = %s"
            " ORDER BY up_bytes + down_bytes DESC, device",
            number,
        )
        return [{"device": device or None, "up_bytes": up, "down_bytes": down} for device, up, down in rows]

    def metrics(self, *, since: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Rows that came or changed after revision `since`, in order of rounds, and the newest revision."""
        rows = self._rows("SELECT metrics, revision FROM rounds WHERE revision > %s ORDER BY round", since)
        return [json.loads(text) for text, _ in rows], max((revision for _, revision in rows), default=since)

    def last_committed(self) -> int | None:
        """The number of the newest committed round."""
        return self._one("SELECT max(round) FROM rounds WHERE status = 'committed'")

    def totals(self) -> dict[str, int | None]:
        """Sums over all closed rounds; those of the socket are None where nothing came over one."""
        sums = ", ".join(f"sum((metrics::json ->> '{name}')::bigint)::bigint" for name in _SUMMED)
        query = (
            f"SELECT sum((status = 'committed')::int), sum((status = 'abandoned')::int), {sums} FROM rounds"
        )
        (values,) = self._rows(query)
        found = dict(zip(("committed", "abandoned", *_SUMMED), values, strict=True))
        return {name: value if name.startswith("socket") else value or 0 for name, value in found.items()}

    def _served_s(self) -> float:
        query = (
            "SELECT (metrics::json ->> 'wall_s')::double precision FROM rounds ORDER BY round DESC LIMIT 1"
        )
        return self._one(query) or 0.0


def _next_revision(link: Link) -> int:
    """The number for the next change of `rounds`, which nobody else gets before this transaction is over."""
    return link.one("UPDATE newest_revision SET revision = revision + 1 RETURNING revision")


def _change(
    link: Link,
    number: int,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    revision: int | None = None,
) -> None:
    revision = revision or _next_revision(link)
    row = json.loads(link.one("SELECT metrics FROM rounds WHERE round = %s", number))
    link.rows(
        "UPDATE rounds SET metrics = %s, revision = %s WHERE round = %s",
        json.dumps(change(row)),
        revision,
        number,
    )
