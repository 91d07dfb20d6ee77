"""Error feedback: what encoding lost of a phone's last report is part of its next one.

Seide et al. 2014, "1-bit stochastic gradient descent"; Karimireddy et al. 2019, arXiv 1901.09847. A phone comes back
rarely, and what it lost was lost against a model that has moved on since: after `feedback_rounds` it is forgotten.
It never leaves the phone. It is kept as int8 with stochastic rounding, without the zeros of words that did not train.
"""

from dataclasses import dataclass

import numpy as np

from kbdfl.algorithms.base import chain
from kbdfl.assignment import Assignment
from kbdfl.codec import upload_chain
from kbdfl.transform import Draws, Update, decode_chain, encode_chain

_FORM = upload_chain("nonzero+int8")


@dataclass(frozen=True, slots=True, eq=False)
class Lost:
    """What one report lost of a vector (P,): of which task and layout, in which round."""

    update: Update
    draws: Draws
    task: str
    layout: str
    round: int

    @classmethod
    def of(cls, assignment: Assignment, values: np.ndarray) -> "Lost":
        """What the report of `assignment` lost, float32 (P,). Raises ModelError if it is not finite."""
        draws = assignment.draws.of("feedback")
        update, layout = encode_chain(_FORM, values, draws), assignment.config.spec.hash
        return cls(update, draws, assignment.task, layout, assignment.round)


class ErrorMemory:
    """One phone's. What a report loses is offered, and takes the place of what was kept once the report is counted."""

    def __init__(self, kept: Lost | None = None) -> None:
        self._kept = kept
        self._offered: Lost | None = None

    @property
    def offered(self) -> Lost | None:
        """What the last report lost, until `settle`."""
        return self._offered

    @property
    def kept(self) -> Lost | None:
        """What the last counted report lost."""
        return self._kept

    @property
    def nbytes(self) -> int:
        """What it takes on the phone."""
        return sum(array.nbytes for array in self._kept.update.sections.values()) if self._kept else 0

    def at(self, assignment: Assignment) -> np.ndarray | None:
        """What was lost, float32 (P,); None, and it is forgotten, if it is of another task or layout or too old."""
        kept, oldest = self._kept, assignment.client.feedback_rounds
        if kept is None:
            return None
        same = (kept.task, kept.layout) == (assignment.task, assignment.config.spec.hash)
        if not (same and 0 < assignment.round - kept.round <= oldest):
            self._kept = None
            return None
        return decode_chain(_FORM, kept.update, assignment.config.spec.size, kept.draws)

    def offer(self, lost: Lost | None) -> None:
        """Hold what a report lost until `settle`; another offer takes its place."""
        self._offered = lost

    def settle(self) -> None:
        """The report was counted."""
        if self._offered is not None:
            self._kept, self._offered = self._offered, None


def encode_with_feedback(assignment: Assignment, delta: np.ndarray, errors: ErrorMemory | None) -> Update:
    """`delta`, at the round's coordinates, as it travels; with what earlier reports lost, if the rule says so.

    What is lost now is offered to `errors`; coordinates that this round does not report keep what they had. Raises
    ModelError if it is not finite.
    """
    transforms, at = chain(assignment.upload, assignment.update_clip_norm), assignment.coordinates
    if errors is None or not assignment.client.feedback_rounds:
        return encode_chain(transforms, delta, assignment.draws)
    before = errors.at(assignment)
    if before is None:
        before = np.zeros(assignment.config.spec.size, np.float32)
    wanted = delta + at.take(before)
    update = encode_chain(transforms, wanted, assignment.draws)
    lost = wanted - decode_chain(transforms, update, len(wanted), assignment.draws)
    errors.offer(Lost.of(assignment, at.put(before, lost)))
    return update
