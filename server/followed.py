"""A task's rounds for TensorBoard and MLflow, as they are closed: `kbdfl serve --track`."""

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kbdfl.errors import ServerUnavailable
from kbdfl.run import RunFolder
from kbdfl.server.service import TaskService
from kbdfl.tracking.beside import Beside

log = logging.getLogger(__name__)


@contextmanager
def followed(service: TaskService, trackers: Sequence[str], *, begins: bool) -> Iterator[None]:
    """The rounds of `service` go to the trackers of these names; close it before the block ends.

    A task that `begins` is another one than any that they know. Raises ConfigError where a library is missing.
    """

    def rows(since: int) -> tuple[list[dict[str, Any]], int]:
        try:
            return service.metrics(since)
        except (ServerUnavailable, sqlite3.Error):  # it is closing, or its database is away
            return [], since

    def closed_s(count: int) -> dict[int, float]:
        try:
            entries = service.administration.closed_rounds(most=count)
        except (ServerUnavailable, sqlite3.Error):
            return {}
        return {entry["round"]: entry["at_s"] for entry in entries}

    followers: list[Beside] = []
    try:
        for name in dict.fromkeys(trackers):
            follower = Beside(
                name, service.folder, begins=begins, rows=rows, closed_s=closed_s, say=log.warning
            )
            followers.append(follower)
        yield
    finally:
        last = RunFolder(service.folder).rows(growing=True) if followers else []
        for follower in followers:
            follower.close(last, finished=service.finished)
