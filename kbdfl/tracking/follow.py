"""A run that is followed: each of its rounds goes to the writers that were asked for."""

import importlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from kbdfl.errors import ConfigError
from kbdfl.tracking.rows import Writer

# name -> (module, class); each module needs the extra of its name
TRACKERS = {"tensorboard": ("tensorboard", "TensorBoard"), "mlflow": ("mlflow", "MlFlow")}


class Tracking:
    """The writers of one run. A run does not end because one of them fails: `say` is told, and the others go on."""

    def __init__(self, writers: dict[str, Writer], *, say: Callable[[str], None]) -> None:
        self._writers, self._say = dict(writers), say

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._all(lambda writer: writer.close(finished=kind is None))

    def add(self, row: dict[str, Any], *, at_s: float | None = None) -> None:
        """A round has closed, at `at_s` seconds since 1970 (now, if that is not said); its row of metrics.jsonl."""
        closed_s = time.time() if at_s is None else at_s
        self._all(lambda writer: writer.add(row, at_s=closed_s))

    def _all(self, act: Callable[[Writer], None]) -> None:
        for name, writer in list(self._writers.items()):
            try:
                act(writer)
            except Exception as error:  # a library's own, of any kind: a full disk, a server that is away
                del self._writers[name]
                self._say(f"{name} is written no more: {' '.join(str(error).split())[:200]}")


def check_trackers(names: Iterable[str]) -> None:
    """Refuse, before a run is begun, what cannot follow it. Raises ConfigError."""
    for name in names:
        writer_class(name)


def open_tracking(
    names: Sequence[str], folder: Path, *, begins: bool, done: int | None, say: Callable[[str], None]
) -> Tracking:
    """Writers for the run in `folder`, which has its config.toml.

    A run that `begins` is another one than any that is there. Of one that goes on, `done` says how many of its rounds
    stand as they were written, for those after them come again; None, that all that stand do.
    Raises ConfigError for a name that is not one of TRACKERS, and where its library is missing or its store cannot be
    opened.
    """
    writers = {}
    for name in dict.fromkeys(names):
        kind = writer_class(name)
        try:
            writers[name] = kind(folder, begins=begins, done=done)
        except Exception as error:  # as above
            raise ConfigError(f"{name} cannot be written: {' '.join(str(error).split())}"[:300]) from None
    return Tracking(writers, say=say)


def writer_class(name: str) -> Any:
    """The class of `Writer` by that name. Raises ConfigError, where its library is missing too."""
    if name not in TRACKERS:
        raise ConfigError(f"a tracker must be one of {', '.join(TRACKERS)}, got {name!r}"[:200])
    module, kind = TRACKERS[name]
    return getattr(importlib.import_module(f"kbdfl.tracking.{module}"), kind)


def track_rows(names: Sequence[str], folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a run that is there: all its `rows`, at the times when they closed, as its files tell."""

    def refuse(text: str) -> None:
        raise ConfigError(text)

    metrics = folder / "metrics.jsonl"
    began_s = metrics.stat().st_mtime - rows[-1]["wall_s"] if rows else 0.0
    with open_tracking(names, folder, begins=False, done=0, say=refuse) as tracking:
        for row in rows:
            tracking.add(row, at_s=began_s + row["wall_s"])
