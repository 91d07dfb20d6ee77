"""What a phone remembers of its own parts in tasks that promise privacy, so that it keeps the promise itself.

A server that forgot a phone, or was set up wrongly, could ask it more often than was promised. A phone counts versions
of the model that it reported on, which are at least as many as the releases that the server counts; it notes one
before the report leaves it, so that one that was lost on the way counts too.
"""

import json
from pathlib import Path

from kbdfl.assignment import Assignment
from kbdfl.device_sim.runtime import Declined
from kbdfl.errors import DataError
from kbdfl.params import write_atomically
from kbdfl.privacy.participation import Parts, allowed


class Taken:
    """One phone's memory, by task. With a `path` it is kept there; without, in memory. `kept` is all of it."""

    def __init__(self, *, path: Path | None = None, kept: dict[str, Parts] | None = None) -> None:
        self._path = path
        self.kept = dict(kept or {})
        if path is not None and path.exists():
            try:
                document = json.loads(path.read_bytes())
                self.kept = {task: Parts(int(count), int(last)) for task, (count, last) in document.items()}
            except (ValueError, TypeError, AttributeError, RecursionError):
                # Forgetting would break the promise: such a phone takes no part until somebody looks.
                raise DataError(f"{path} must hold a phone's parts by task, and does not") from None

    def check(self, assignment: Assignment) -> None:
        """Raise Declined where one more part would break the promise of the assignment."""
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
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            document = {task: [parts.count, parts.last] for task, parts in self.kept.items()}
            write_atomically(self._path, json.dumps(document, sort_keys=True).encode())


def _bounds(participations: int, separation: int) -> str:
    most = f"at most {_parts(participations)}" if participations else ""
    apart = f"one part in {separation} versions" if separation else ""
    return " and ".join(filter(None, (most, apart)))


def _parts(count: int) -> str:
    return f"{count} part{'s' if count != 1 else ''}"
