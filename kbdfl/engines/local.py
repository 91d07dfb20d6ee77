"""Worker threads in this process. The kernels hold no interpreter lock, so threads train on all cores."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from kbdfl.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")


class ThreadEngine:
    """Maps a function over items on `workers` threads and yields results in the items' order.

    The order is what makes a run end in the same bytes whatever the number of workers.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ConfigError(f"workers must be >= 1, got {workers}")
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="kbdfl-worker")

    def submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        """Begin with one item as soon as a worker is free."""
        return self._pool.submit(function, item)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        return self._pool.map(function, items)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "ThreadEngine":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
