"""What a phone remembers of its own parts in tasks that promise privacy, so that it keeps the promise itself.

A server that forgot a phone, or was set up wrongly, could ask it more often than was promised. A phone counts versions
of the model that it reported on, which are at least as many as the releases that the server counts; it notes one
before the report leaves it, so that one that was lost on the way counts too. And it remembers what it was promised when
it first took part: a server that promises less of the same task later on gets nothing.
"""

import json
from dataclasses import astuple, dataclass
from math import inf
from pathlib import Path

from kbdfl.assignment import Assignment
from kbdfl.device_sim.runtime import Declined
from kbdfl.errors import DataError
from kbdfl.params import write_atomically
from kbdfl.privacy.participation import Parts, allowed


@dataclass(frozen=True, slots=True)
class Promise:
    """What a task says that it will keep to: so many parts, so far apart, in sums with so much noise of phones."""

    participations: int
    separation: int
    noise: float

    @classmethod
    def of(cls, assignment: Assignment) -> "Promise":
        """Of this assignment's task."""
        return cls(assignment.participations, assignment.separation, assignment.noise_multiplier)

    def keeps(self, first: "Promise") -> bool:
        """Whether it is as good as the `first` one; 0 parts are any number."""
        parts = (self.participations or inf) <= (first.participations or inf)
        return parts and self.separation >= first.separation and self.noise >= first.noise


class Taken:
    """One phone's memory, by task. With a `path` it is kept there; without, in memory.

    `kept` are its parts, `promised` what it was told of a task when it first took part.
    """

    def __init__(self, *, path: Path | None = None, kept: dict[str, Parts] | None = None) -> None:
        self._path = path
        self.kept = dict(kept or {})
        self.promised: dict[str, Promise] = {}
        if path is not None and path.exists():
            try:
                document = json.loads(path.read_bytes())
                for task, (count, last, *promise) in document.items():
                    self.kept[task] = Parts(int(count), int(last))
                    if promise:  # a file of an earlier version has none
                        parts, apart, noise = promise
                        self.promised[task] = Promise(int(parts), int(apart), float(noise))
            except (ValueError, TypeError, AttributeError, RecursionError):
                # Forgetting would break the promise: such a phone takes no part until somebody looks.
                raise DataError(f"{path} must hold a phone's parts by task, and does not") from None

    def check(self, assignment: Assignment) -> None:
        """Raise Declined where one more part would break the promise of the assignment."""
        first = self.promised.get(assignment.task)
        if first is not None and not Promise.of(assignment).keeps(first):
            raise Declined(f"the task promised more when this phone first took part: {_promised(first)}")
        bounds = {"participations": assignment.participations, "separation": assignment.separation}
        parts = self.kept.get(assignment.task)
        if any(bounds.values()) and parts is not None and not allowed(parts, assignment.version, **bounds):
            raise Declined(
                f"the task promises {_bounds(**bounds)}, and this phone has {_parts(parts.count)}, "
                f"the last one in version {parts.last}"
            )

    def note(self, assignment: Assignment) -> None:
        """The phone is about to report."""
        if not (assignment.participations or assignment.separation):
            return
        before = self.kept.get(assignment.task)
        self.kept[assignment.task] = Parts(1 if before is None else before.count + 1, assignment.version)
        self.promised.setdefault(assignment.task, Promise.of(assignment))
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            document = {
                task: [parts.count, parts.last, *self._told(task)] for task, parts in self.kept.items()
            }
            write_atomically(self._path, json.dumps(document, sort_keys=True).encode())

    def _told(self, task: str) -> tuple[()] | tuple[int, int, float]:
        return astuple(self.promised[task]) if task in self.promised else ()


def _promised(first: Promise) -> str:
    noise = f"noise of {first.noise:g} clip norms" if first.noise else ""
    return " and ".join(filter(None, (_bounds(first.participations, first.separation), noise)))


def _bounds(participations: int, separation: int) -> str:
    most = f"at most {_parts(participations)}" if participations else ""
    apart = f"one part in {separation} versions" if separation else ""
    return " and ".join(filter(None, (most, apart)))


def _parts(count: int) -> str:
    return f"{count} part{'s' if count != 1 else ''}"
