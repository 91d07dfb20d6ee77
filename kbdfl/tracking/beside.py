"""A run whose rounds somebody else closes, a server: followed from a thread beside it, which it never waits for."""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kbdfl.tracking.follow import writer_class
from kbdfl.tracking.rows import Writer

Row = dict[str, Any]

LOOK_S = 0.5  # between two looks at what is new
RETRY_S = 60.0  # until a tracker that failed is asked again
LAST_S = 10.0  # for what is left when runs end
SOCKET = "socket_"  # what crossed it grows after the round has closed, by the answers to its last reports


class Beside:
    """One tracker of one run. Figures that stand there are passed over: none is written twice, whoever was killed.

    `rows(since)` gives the rows of metrics.jsonl that came or changed after a revision, in the order of rounds, and the
    newest revision; `closed_s(first, last)` when these rounds and those between closed, by round, in seconds since
    1970, as far as that is known. `say` is told in one line when the tracker fails, of whatever kind that is; it is
    asked again later, and gets what it lacks. What crossed the socket is written once the next round has closed, or the
    run is over.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        begins: bool,
        rows: Callable[[int], tuple[list[Row], int]],
        closed_s: Callable[[int, int], Mapping[int, float]],
        say: Callable[[str], None],
    ) -> None:
        """`begins` as in `open_tracking`. Raises ConfigError where the tracker's library is missing."""
        self._name, self._folder, self._begins = name, folder, begins
        self._rows, self._closed_s, self._say = rows, closed_s, say
        self._class = writer_class(name)
        self._writer: Writer | None = None
        self._revision = 0
        self._newest: Row | None = None  # the row of the newest round that was written
        self._again_s: float | None = None  # when to ask again, of a monotonic clock; None: nothing failed
        self._ends: tuple[list[Row], bool] = ([], False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kbdfl-{name}", daemon=True)
        self._thread.start()

    def end(self, rows: list[Row], *, finished: bool) -> None:
        """The run ends, for now, or for good if it is `finished`: let it write what is left of `rows`."""
        self._ends = rows, finished
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Until it has written that, but no longer."""
        self._thread.join(max(seconds, 0.0))
        if self._thread.is_alive():
            self._say(f"{self._name} takes too long, and gets what it lacks when the run goes on")

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            if self._again_s is None or self._again_s <= time.monotonic():
                self._try(self._look)
        if self._again_s is None:
            self._try(self._end)

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # a library's own, of any kind: a full disk, a server that is away
            if self._again_s is None:
                reason = " ".join(str(error).split())[:200]
                self._say(f"{self._name} is not written, and asked again in {RETRY_S:.0f} s: {reason}")
            self._writer, self._again_s = None, time.monotonic() + RETRY_S
        else:
            self._again_s = None

    def _opened(self) -> Writer:
        writer = self._writer
        if writer is None:
            self._writer = writer = self._class(self._folder, begins=self._begins, done=None)
            self._begins, self._revision, self._newest = False, 0, None
        return writer

    def _look(self) -> None:
        writer = self._opened()
        rows, revision = self._rows(self._revision)
        self._write(writer, rows)
        if not self._stop.is_set():
            self._revision = revision

    def _end(self) -> None:
        rows, finished = self._ends
        writer = self._opened()
        self._write(writer, rows, last=True, whole=finished)
        writer.close(finished=finished)

    def _write(self, writer: Writer, rows: list[Row], *, last: bool = False, whole: bool = False) -> None:
        """Rows in the order of rounds. The newest one comes again with the one after it, and is `whole` then."""
        if not rows:
            return
        by_round = {row["round"]: row for row in [*([self._newest] if self._newest else []), *rows]}
        newest = max(by_round)
        times = self._closed_s(min(by_round), newest)
        for number in sorted(by_round):
            row, began_s = by_round[number], time.monotonic()
            if number == newest and not whole:
                row = {name: value for name, value in row.items() if not name.startswith(SOCKET)}
            writer.add(row, at_s=times.get(number, time.time()))
            # As long a pause: many rounds to catch up with leave the interpreter to those of now.
            if not last and self._stop.wait(time.monotonic() - began_s):
                return
        self._newest = by_round[newest]
