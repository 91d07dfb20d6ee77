"""Worker threads in this process. The kernels hold no interpreter lock, so threads train on all cores."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kbdfl.engines.pull import PullEngine


@dataclass(frozen=True, slots=True, eq=False)
class _Own:
    """An array of this process."""

    array: np.ndarray

    def get(self) -> np.ndarray:
        return self.array


class ThreadEngine(PullEngine):
    """Threads; see `kbdfl.engines.base.Engine`."""

    def share(self, array: np.ndarray) -> _Own:
        """The array itself, read-only from now on."""
        array.setflags(write=False)
        return _Own(array)

    def release(self, shared: _Own) -> None:
        """Nothing: it goes with its last user."""

    def _do(self, place: int, function: Callable, item: Any, *, apart: bool) -> Any:
        return function(item)
