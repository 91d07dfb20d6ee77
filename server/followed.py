"""Tasks' rounds for TensorBoard and MLflow, as they are closed: `kbdfl serve --track`."""

import logging
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from kbdfl.errors import ServerUnavailable
from kbdfl.run import RunFolder
from kbdfl.server.service import TaskService
from kbdfl.tracking import beside
from kbdfl.tracking.beside import Beside

log = logging.getLogger(__name__)


class Follow(Protocol):
    """What `following` gives."""

    def __call__(self, service: TaskService, *, begins: bool) -> None:
        """Follow one more task, which `begins` if it is another one than any that the trackers know.

        Raises ConfigError where a library is missing.
        """


@contextmanager
def following(trackers: Sequence[str]) -> Iterator[Follow]:
    """The rounds of services go to the trackers of these names; close the services before the block ends."""
    followed: list[tuple[TaskService, list[Beside]]] = []

    def follow(service: TaskService, *, begins: bool) -> None:
        followers: list[Beside] = []
        followed.append((service, followers))
        for name in dict.fromkeys(trackers):
            followers.append(_follower(name, service, begins=begins))

    try:
        yield follow
    finally:
        for service, followers in followed:
            rows = _rows(service) if followers else []
            for follower in followers:
                follower.end(rows, finished=service.finished)
        deadline_s = time.monotonic() + beside.LAST_S
        for _, followers in followed:
            for follower in followers:
                follower.wait(deadline_s - time.monotonic())


def _follower(name: str, service: TaskService, *, begins: bool) -> Beside:
    def rows(since: int) -> tuple[list[dict[str, Any]], int]:
        try:
            return service.metrics(since)
        except (ServerUnavailable, sqlite3.Error):  # it is closing, or its database is away
            return [], since

    def closed_s(first: int, last: int) -> dict[int, float]:
        try:
            entries = service.administration.closed_rounds(before=last + 1, most=last - first + 1)
        except (ServerUnavailable, sqlite3.Error):
            return {}
        return {entry["round"]: entry["at_s"] for entry in entries}

    def say(text: str) -> None:
        log.warning("%s: %s", service.folder.name, text)

    return Beside(name, service.folder, begins=begins, rows=rows, closed_s=closed_s, say=say)


def _rows(service: TaskService) -> list[dict[str, Any]]:
    try:
        return RunFolder(service.folder).rows(growing=True)
    except (OSError, ValueError) as error:  # followers end all the same
        log.warning("%s: its metrics.jsonl cannot be read: %s", service.folder.name, error)
        return []
