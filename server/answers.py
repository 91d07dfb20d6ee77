"""What a phone's check-in and its report are answered: by the views of `device_api`, and past them by `express`."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from werkzeug.exceptions import UnsupportedMediaType

from kbdfl.assignment import Assignment
from kbdfl.errors import DataError, KbdflError, NotFound
from kbdfl.rounds import Wait
from kbdfl.server.gate import Caller, admit
from kbdfl.server.rates import CHECK_IN
from kbdfl.server.tasks import NAME, ServedTask, Tasks

JSON, BINARY = "application/json", "application/octet-stream"
TIER_CHARACTERS = 32

Claim = Callable[[str], None]  # see `kbdfl.server.traffic.CLAIM`


@dataclass(frozen=True, slots=True)
class Told:
    """An answer: its `document`, in one word what it is, and the task that it is of."""

    document: dict[str, Any]
    outcome: str
    task: ServedTask
    retry_after_s: float | None = None


def parse_object(body: bytes, kind: str) -> dict[str, Any]:
    """A body of the media type `kind`, which must be a JSON object. Raises UnsupportedMediaType or DataError."""
    if kind != JSON:
        raise UnsupportedMediaType(f"{JSON} is needed, got {kind[:60] or 'no content type'}")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise DataError("the body is not JSON") from None
    if not isinstance(value, dict):
        raise DataError(f"the body must be a JSON object, got {type(value).__name__}")
    return value


@dataclass(frozen=True, slots=True)
class Asked:
    """A signed request to the `path` of the task `name`, or of none: its `body` of the media type `kind`.

    `claim` is called with the device that it is from.
    """

    name: str | None
    path: str
    headers: Mapping[str, str]
    body: bytes
    kind: str
    claim: Claim | None
    method: str = "POST"


class Headers(Mapping[str, str]):
    """A request's headers by their own names, out of its WSGI environment."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        return self._environ[_key(name)]

    def __iter__(self) -> Iterator[str]:
        return (key[5:].replace("_", "-") for key in self._environ if key.startswith("HTTP_"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@cache
def _key(name: str) -> str:
    """What WSGI calls a header; the code names few of them."""
    return "HTTP_" + name.upper().replace("-", "_")


def check_in(served: Tasks, asked: Asked) -> Told:
    """An assignment, a time to come back, or that all rounds are over.

    A phone that names its population at no task's address gets a part in any task for that, and is told where that
    task's addresses begin. Raises what `gate.admit` and `parse_object` raise, TooMany, and NotFound for no such task or
    population.
    """
    task, administration = served.find(asked.name), served.administration
    caller = _admitted(task, asked)
    try:
        administration.rates.check(CHECK_IN, caller.device)
        offered = parse_object(asked.body, asked.kind) if asked.body else {}
        tier, population = _tier(offered), _population(offered)
        if population is None or asked.name is not None:
            if population not in (None, task.population):
                raise NotFound(f"{task.name} is for the population {task.population!r}, not {population!r}")
            answer = task.service.check_in(caller.device, tier=tier, again=not caller.fresh)
        else:
            task, answer = served.check_in(caller.device, population, tier=tier, again=not caller.fresh)
    finally:
        _claim(task, asked, caller)
    if isinstance(answer, Assignment):
        base = {} if population is None else {"base": task.base}
        return Told({"status": "assigned", **answer.to_json(), **base}, "assigned", task)
    if isinstance(answer, Wait):
        wait_s = answer.retry_after_s
        return Told({"status": "wait", "retry_after_s": wait_s}, "wait", task, wait_s)
    return Told({"status": "finished"}, "finished", task)


def report(served: Tasks, asked: Asked, *, number: int) -> Told:
    """That a frame was counted in round `number`, or had been; once that is durable.

    Raises what `gate.admit` and `TaskService.report` raise, UnsupportedMediaType, and NotFound for no such task.
    """
    if asked.kind != BINARY:
        raise UnsupportedMediaType(f"{BINARY} is needed, got {asked.kind[:60] or 'no content type'}")
    task = served.find(asked.name)
    administration = task.service.administration
    try:
        caller = signed(task, asked)
        receipt = task.service.report(caller.device, number, asked.body)
    except KbdflError as error:
        administration.refused(error)
        raise
    if receipt.duplicate and caller.first:
        administration.server.nonces.mark(caller.use)  # its repetitions are to be answered like it
    again = receipt.duplicate and (caller.first or caller.use.marked)
    outcome = "duplicate" if receipt.duplicate else "counted"
    return Told({"accepted": True, "duplicate": again}, outcome, task)


def signed(task: ServedTask, asked: Asked) -> Caller:
    """The enrolled device that signed a request, whose bytes are counted as its; raises what `gate.admit` raises."""
    caller = _admitted(task, asked)
    _claim(task, asked, caller)
    return caller


def _admitted(task: ServedTask, asked: Asked) -> Caller:
    server = task.service.administration.server
    return admit(
        server.registry,
        server.nonces,
        method=asked.method,
        path=asked.path,
        body=asked.body,
        headers=asked.headers,
        now=task.service.wall_clock(),
    )


def _claim(task: ServedTask, asked: Asked, caller: Caller) -> None:
    if asked.claim is not None:
        asked.claim(task.claimed(caller.device))


def _tier(offered: dict[str, Any]) -> str:
    tier = offered.get("tier", "")
    if not isinstance(tier, str) or len(tier) > TIER_CHARACTERS or not tier.isprintable():
        raise DataError(f"tier must be at most {TIER_CHARACTERS} printable characters, got {tier!r}"[:200])
    return tier


def _population(offered: dict[str, Any]) -> str | None:
    population = offered.get("population")
    if population is not None and not (isinstance(population, str) and NAME.fullmatch(population)):
        raise DataError(f"population must be a population's name, got {population!r}"[:200])
    return population
