"""Worker threads in this process. The kernels hold no interpreter lock, so threads train on all cores."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kbdfl.engines.base import Item, Result
from kbdfl.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class _Own:
    """An array of this process."""

    array: np.ndarray

    def get(self) -> np.ndarray:
        return self.array


class ThreadEngine:
    """Threads; see `kbdfl.engines.base.Engine`. Work begins in order of submission, whatever it costs."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ConfigError(f"workers must be >= 1, got {workers}")
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="kbdfl-worker")

    def share(self, array: np.ndarray) -> _Own:
        """The array itself, read-only from now on."""
        array.setflags(write=False)
        return _Own(array)

    def release(self, shared: _Own) -> None:
        pass

    def submit(self, function: Callable[[Item], Result], item: Item, *, cost: float = 0.0) -> Future[Result]:
        return self._pool.submit(function, item)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        return self._pool.map(function, items)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "ThreadEngine":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
