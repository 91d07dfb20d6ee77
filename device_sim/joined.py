"""What a phone remembers of the sessions of secure aggregation that it joined, so that it joins none twice.

Two sums over almost the same phones differ by one of them: a server that made phones sum one round up twice would read
updates. So a phone forgets nothing when it is started again: an entry is on the disk before the phone says anything.
"""

import os
import time
from collections.abc import Callable, Iterator, MutableSet
from pathlib import Path

from kbdfl.errors import DataError
from kbdfl.params import write_atomically

KEPT_S = 30 * 86_400.0  # far longer than a session may be old


class Joined(MutableSet[bytes]):
    """A set of byte strings, which keeps an entry for `kept_s`; with a `path` there, without in memory.

    Raises DataError for a file that it did not write. `clock` gives seconds since 1970.
    """

    def __init__(
        self, *, path: Path | None = None, kept_s: float = KEPT_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._path, self._kept_s, self._clock = path, kept_s, clock
        self._since_s: dict[bytes, float] = {}
        if path is not None and path.exists():
            self._read(path)

    def __contains__(self, entry: object) -> bool:
        return entry in self._since_s

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._since_s)

    def __len__(self) -> int:
        return len(self._since_s)

    def add(self, entry: bytes) -> None:
        """Remember `entry` from now on; it is on the disk when this returns."""
        self._since_s[entry] = self._clock()
        if self._path is None:
            return
        new = not self._path.exists()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="ascii") as file:
            file.write(_line(entry, self._since_s[entry]))
            file.flush()
            os.fsync(file.fileno())
        if new:
            _sync_folder(self._path.parent)

    def discard(self, entry: bytes) -> None:
        """Forget it, if it is there."""
        if self._since_s.pop(entry, None) is not None:
            self._write()

    def _read(self, path: Path) -> None:
        oldest_s = self._clock() - self._kept_s
        try:
            lines = [line.split() for line in path.read_text("ascii").splitlines()]
            known = {bytes.fromhex(entry): float(since) for entry, since in lines}
        except ValueError:
            # Forgetting would be unsafe: such a phone takes no part until somebody looks.
            raise DataError(f"{path} must hold the sessions that a phone joined, and does not") from None
        self._since_s = {entry: since for entry, since in known.items() if since > oldest_s}
        if len(self._since_s) < len(lines):
            self._write()

    def _write(self) -> None:
        if self._path is not None:
            text = "".join(_line(entry, since) for entry, since in self._since_s.items())
            write_atomically(self._path, text.encode())


def _line(entry: bytes, since_s: float) -> str:
    return f"{entry.hex()} {since_s:.3f}\n"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
