"""The tasks that a phone works for: which there are, where their addresses begin, and what it keeps of each."""

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from kbdfl.device_sim.control import ControlStore
from kbdfl.device_sim.feedback import ErrorMemory
from kbdfl.downlink import Held
from kbdfl.errors import WireError
from kbdfl.text import Vocabulary

FIRST = "/v1"  # the addresses of the task that answers where none is named
_BASE = re.compile(r"/v1(?:/tasks/[a-z0-9-]{1,40})?")
_MOST = 16  # tasks of which a phone keeps something, those it worked for last


@dataclass(slots=True)
class Work:
    """What a phone keeps of one task: its words, its control variate, what encoding lost, the version it holds."""

    base: str
    vocabulary: Vocabulary
    controls: ControlStore = field(default_factory=ControlStore)
    errors: ErrorMemory = field(default_factory=ErrorMemory)
    held: tuple[str, Held] | None = None  # of which task


class Works:
    """One phone's work by task; `vocabulary_of` fetches the words of a task that is new to it."""

    def __init__(self, vocabulary_of: Callable[[str], Vocabulary], *known: Work) -> None:
        self._vocabulary_of = vocabulary_of
        self._works = OrderedDict((work.base, work) for work in known)

    def at(self, base: str) -> Work:
        """The work for the task whose addresses begin with `base`."""
        if base not in self._works:
            self._works[base] = Work(base, self._vocabulary_of(base))
            if len(self._works) > _MOST:
                self._works.popitem(last=False)
        self._works.move_to_end(base)
        return self._works[base]


def check_base(base: object) -> str:
    """What a server says is where a task's addresses begin. Raises WireError for what a phone would not sign."""
    if not isinstance(base, str) or not _BASE.fullmatch(base):
        raise WireError(f"a task's addresses must begin with /v1/tasks/NAME, got {base!r}"[:200])
    return base
