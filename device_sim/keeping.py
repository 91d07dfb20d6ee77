"""A run that can be killed: its rows as they come, its state every so often, and how it goes on from there.

`state.snapshot` in the run's folder holds the state after some round and how many rows there were then. Rows that were
written after it are written again, the same but for their times, since a simulation follows from its state. It is gone
once the run is finished.
"""

import hashlib
import time
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
        if path.exists():
            kept = unpack(path.read_bytes(), classes=STATE_CLASSES)
            if kept["config"] != self._config():
                raise ConfigError(f"{self._folder.path} was begun with another config.toml than it holds now")
            self._simulation.restore(kept["state"])
            self._rows = kept["rows"]
        self._folder.keep_rows(self._rows)
        return self._rows

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
        return DataError(
            f"{self._folder.path} cannot be written to: {error.strerror}. What was kept is whole; make room, "
            f"and go on with kbdfl simulate --resume {self._folder.path}"
        )

    def _save(self) -> None:
        started = time.monotonic()
        kept = {"config": self._config(), "rows": self._rows, "state": self._simulation.state()}
        write_atomically(self._folder.path / STATE, pack(kept, classes=STATE_CLASSES))
        took_s = time.monotonic() - started
        self._next_s = time.monotonic() + (
            max(self._every_s, took_s / MOST_OF_TIME) if self._every_s else 0.0
        )

    def _config(self) -> str:
        return hashlib.sha256((self._folder.path / "config.toml").read_bytes()).hexdigest()
