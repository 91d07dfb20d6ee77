"""Worker threads in this process, or none. The kernels hold no interpreter lock, so threads train on all cores."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from kbdfl.engines.base import Item, Result
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

    def _do(self, place: int, function: Callable[..., Any], item: Any, *, apart: bool) -> Any:
        return function(item)


class InlineEngine:
    """No threads: work is done as it is submitted, for work that takes less than handing it over would.

    See `kbdfl.engines.base.Engine`; what has been submitted cannot be cancelled.
    """

    workers, far = 1, False

    def share(self, array: np.ndarray) -> _Own:
        """The array itself, read-only from now on."""
        array.setflags(write=False)
        return _Own(array)

    def release(self, shared: _Own) -> None:
        """Nothing: it goes with its last user."""

    def submit(
        self, function: Callable[[Item], Result], item: Item, *, cost: float = 0.0, apart: bool = False
    ) -> Future[Result]:
        """As `Engine.submit`, and done when it returns."""
        result: Future[Result] = Future()
        try:
            result.set_result(function(item))
        except Exception as error:
            result.set_exception(error)
        return result

    def combine(self, function: Callable[[Sequence[Result]], Result], apart: Sequence[Any]) -> Result:
        """As `Engine.combine`."""
        return function(apart)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """As `Engine.map`, one after another."""
        return map(function, items)

    def close(self) -> None:
        """Nothing."""

    def __enter__(self) -> "InlineEngine":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
