"""The tasks that one server serves, by their names, and which of them a phone of some population works for.

A population is a word for the phones that a task is meant for, those that type English, say. A phone names its own as
it checks in, and gets a part in one of that population's tasks: the one it has already, or else each task in turn.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kbdfl.assignment import Assignment
from kbdfl.errors import ConfigError, NotFound
from kbdfl.rounds import Finished, Wait
from kbdfl.server.administration import Administration
from kbdfl.server.service import TaskService
from kbdfl.server.traffic import Traffic

NAME = re.compile("[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")  # a folder, a label and a part of an address
ALONE = "default"  # what the task of a server that has but one is called in addresses, and its population
PREFIX = "/v1"
_TURNS = 64  # phones that are given parts at once

Answer = Assignment | Wait | Finished


def check_name(kind: str, name: str) -> str:
    """`name`, if a task or a population can be called so. Raises ConfigError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(
            f"a {kind} must be called by 1 to 40 lowercase letters, digits and hyphens inside, got {name!r}"[
                :200
            ]
        )
    return name


@dataclass(frozen=True, slots=True)
class ServedTask:
    """A task under its name, for the phones of one population."""

    name: str
    population: str
    service: TaskService = field(repr=False)
    alone: bool = False  # it has no name of its own, and the addresses of a server that has but one

    def __post_init__(self) -> None:
        check_name("task", self.name)
        check_name("population", self.population)

    @property
    def base(self) -> str:
        """Where its addresses begin."""
        return PREFIX if self.alone else f"{PREFIX}/tasks/{self.name}"

    @property
    def state(self) -> str:
        """open, paused, stopped; finished once all of its rounds are over, or its privacy budget is spent."""
        return "finished" if self.service.finished else self.service.administration.state

    def claimed(self, device: str) -> str:
        """What names the device to those who count bytes, and with it the task that it works for."""
        return device if self.alone else f"{self.name}/{device}"


class Tasks:
    """What an application serves: one task or several, the first of which answers where none is named.

    `folder` is the server's. Thread-safe. Raises ConfigError if two have the same name.
    """

    def __init__(self, tasks: Sequence[ServedTask], *, folder: Path) -> None:
        if not tasks:
            raise ConfigError("a server must have a task")
        self._tasks = {task.name: task for task in tasks}
        if len(self._tasks) < len(tasks):
            raise ConfigError(
                f"tasks must have different names, got {', '.join(t.name for t in tasks)}"[:200]
            )
        self.first, self.folder = tasks[0], folder
        self._turns = [threading.Lock() for _ in range(_TURNS)]
        self._next: dict[str, int] = {}  # by population, whose turn it is

    @classmethod
    def alone(cls, service: TaskService) -> "Tasks":
        """A server's only task, without a name, in the server's own folder."""
        return cls([ServedTask(ALONE, ALONE, service, alone=True)], folder=service.folder)

    def __iter__(self) -> Iterator[ServedTask]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def administration(self) -> Administration:
        """What is the server's."""
        return self.first.service.administration.server

    @property
    def max_report_bytes(self) -> int:
        """Of the task with the largest reports."""
        return max(task.service.task.max_report_bytes for task in self)

    @property
    def traffic(self) -> Traffic:
        """For the server that the application runs on."""
        return self.first.service.traffic if self.first.alone else _Shared(self._tasks)

    @property
    def ready(self) -> bool:
        """Whether the reports of all tasks can be made durable."""
        return all(task.service.ready for task in self)

    def known(self, name: str | None) -> bool:
        """Whether a task of that name is served."""
        return name in self._tasks

    def find(self, name: str | None) -> ServedTask:
        """The task of that name, or the first one. Raises NotFound."""
        if name is None:
            return self.first
        if not self.known(name):
            raise NotFound(f"no task {name[:40]!r} is served; there are {', '.join(self._tasks)}"[:300])
        return self._tasks[name]

    def check_in(
        self, device: str, population: str, *, tier: str = "", again: bool = False
    ) -> tuple[ServedTask, Answer]:
        """What a phone of `population` is told, and by which task. Raises NotFound if no task is for such phones.

        It goes on with the part that it has. Otherwise the tasks are asked in turn, beginning after the one that gave
        the last part; none has work for it if all say so, and all is over once it is over for each of them.
        """
        tasks = [task for task in self if task.population == population]
        if not tasks:
            known = ", ".join(sorted({task.population for task in self}))
            raise NotFound(f"no task is for the population {population!r}; there are {known}"[:300])
        with self._turns[hash(device) % _TURNS]:  # a phone that asks twice at once gets one part
            answers: list[tuple[ServedTask, Answer]] = []
            for only_held in (True, False) if len(tasks) > 1 and not again else (again,):
                begin = self._next.get(population, 0)
                answers.clear()
                for place in range(begin, begin + len(tasks)):
                    task = tasks[place % len(tasks)]
                    answer = task.service.check_in(device, tier=tier, again=only_held)
                    if isinstance(answer, Assignment):
                        if not only_held:
                            self._next[population] = (place + 1) % len(tasks)
                        return task, answer
                    answers.append((task, answer))
        return min(answers, key=lambda told: _wait_s(told[1]))


def _wait_s(answer: Answer) -> float:
    return answer.retry_after_s if isinstance(answer, Wait) else float("inf")


class _Shared(Traffic):
    """Bytes at the socket, each to the task that it belongs to; what belongs to none is the first one's."""

    def __init__(self, tasks: dict[str, ServedTask]) -> None:
        super().__init__()
        self._of = {name: task.service.traffic for name, task in tasks.items()}
        self._others = next(iter(self._of.values()))

    def add(self, device: str, *, up: int = 0, down: int = 0) -> None:
        name, _, device = device.rpartition("/")
        self._of.get(name, self._others).add(device, up=up, down=down)
