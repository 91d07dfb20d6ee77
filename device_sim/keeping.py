"""A run that can be killed: its rows as they come, its state every so often, and how it goes on from there.

`state.snapshot` in the run's folder holds the state after some round and how many rows there were then. Rows that were
written after it are written again, the same but for their times, since a simulation follows from its state. It is gone
once the run is finished.
"""

import hashlib
import time
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from typing import Any

from kbdfl.device_sim.simulate import STATE_CLASSES, Simulation
from kbdfl.errors import ConfigError, DataError
from kbdfl.params import write_atomically
from kbdfl.run import RunFolder
from kbdfl.snapshot import pack, unpack

STATE = "state.snapshot"
MOST_OF_TIME = 0.1  # that snapshots may take


class Keeper:
    """Keeps the rows and, every `every_s` seconds or so, the state of one simulation."""

    def __init__(self, folder: RunFolder, simulation: Simulation, *, every_s: float) -> None:
        self._folder, self._simulation, self._every_s = folder, simulation, every_s
        self._rows = 0
        self._next_s = time.monotonic() + every_s
        self._keeps = simulation.settings.faults == "none"

    def resume(self) -> int:
        """Go on from what was kept, or from the beginning if nothing was; how many rounds are done."""
        if (self._folder.path / "report.html").exists():
            raise ConfigError(f"the run at {self._folder.path} is finished: there is nothing to resume")
        if not self._keeps:
            raise ConfigError("a run with faults is not kept: it follows from its seed, begin it again")
        path = self._folder.path / STATE
        if not path.exists() and (self._folder.begun or list(self._folder.path.glob("*.sqlite3"))):
            raise ConfigError(f"{self._folder.path} holds no {STATE}: it is no simulation that was begun")
        if path.exists():
            kept = unpack(path.read_bytes(), classes=STATE_CLASSES)
            if kept["config"] != self._config():
                raise ConfigError(f"{self._folder.path} was begun with another config.toml, log or trace")
            self._simulation.restore(kept["state"])
            self._rows = kept["rows"]
        self._folder.keep_rows(self._rows)
        return self._rows

    def begin(self) -> None:
        """Keep the state before the first round, so that a run can be resumed whenever it was killed."""
        if self._keeps:
            try:
                self._save()
            except OSError as error:
                raise self.lost(error) from None

    def add(self, row: dict[str, Any]) -> None:
        """Another round has closed. Raises DataError where the disk takes no more."""
        try:
            self._folder.add_row(row)
            self._rows += 1
            if self._keeps and time.monotonic() >= self._next_s:
                self._save()
        except OSError as error:
            raise self.lost(error) from None

    def finished(self) -> None:
        """All that there was to keep is in the checkpoint and the report."""
        (self._folder.path / STATE).unlink(missing_ok=True)

    def lost(self, error: OSError) -> DataError:
        """What is said when the disk is full."""
        room = "make room, and " if error.errno in (ENOSPC, EDQUOT, EFBIG) else ""
        again = f"kbdfl simulate --resume {self._folder.path}"
        then = f" What was kept is whole; {room}go on with {again}" if self._keeps else ""
        return DataError(f"{self._folder.path} cannot be written to: {error.strerror}.{then}")

    def _save(self) -> None:
        started = time.monotonic()
        self._folder.sync_rows()  # a snapshot must not know of more rows than there are
        kept = {"config": self._config(), "rows": self._rows, "state": self._simulation.state()}
        write_atomically(self._folder.path / STATE, pack(kept, classes=STATE_CLASSES))
        took_s = time.monotonic() - started
        self._next_s = time.monotonic() + (
            max(self._every_s, took_s / MOST_OF_TIME) if self._every_s else 0.0
        )

    def _config(self) -> str:
        """A digest of what the run follows from: its configuration, and the log and the trace that this names."""
        settings, found = self._simulation.settings, hashlib.sha256()
        for path in (self._folder.path / "config.toml", Path(settings.source), Path(settings.availability)):
            if path.is_file():
                with open(path, "rb") as file:
                    found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()
