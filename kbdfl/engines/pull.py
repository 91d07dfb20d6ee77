"""What all engines share: work waits in one place, and whoever is free takes the dearest.

So nobody is idle while there is work, however unequal it is, and what takes longest is not begun last.
"""

import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Self

from kbdfl.engines.base import Item, Result
from kbdfl.errors import ConfigError

# Minus its cost, its number, its result, what to do, and whether it gives a second result that stays apart.
Work = tuple[float, int, Future[Any], Callable[..., Any], Any, bool]


class PullEngine:
    """Threads that take work and have it done; what that means is `_do`'s. See `kbdfl.engines.base.Engine`."""

    far = False

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ConfigError(f"workers must be >= 1, got {workers}")
        self.workers = workers
        self._waiting: list[Work] = []
        self._change = threading.Condition()
        self._number = 0
        self._open: set[int] = set()  # numbers of what is not done
        self._closed = False
        self._threads = [
            threading.Thread(target=self._pull, args=(place,), name=f"kbdfl-worker-{place}", daemon=True)
            for place in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self, function: Callable[[Item], Result], item: Item, *, cost: float = 0.0, apart: bool = False
    ) -> Future[Result]:
        """As `Engine.submit`."""
        result: Future[Result] = Future()
        with self._change:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._number += 1
            self._open.add(self._number)
            heapq.heappush(self._waiting, (-cost, self._number, result, function, item, apart))
            self._change.notify()
        return result

    def combine(self, function: Callable[[Sequence[Result]], Result], apart: Sequence[Any]) -> Result:
        """As `Engine.combine`: here, where everything is."""
        return function(apart)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """As `Engine.map`; all of it is begun at once."""
        return _in_order([self.submit(function, item) for item in items])

    def close(self) -> None:
        """As `Engine.close`."""
        with self._change:
            self._closed = True
            waiting, self._waiting = self._waiting, []
            self._change.notify_all()
        for _, _, result, *_ in waiting:
            result.cancel()
            result.set_running_or_notify_cancel()  # or who waits for it waits for ever
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _do(self, place: int, function: Callable[..., Any], item: Any, *, apart: bool) -> Any:
        """Have a worker do it; `place` is which of them. With `apart` the second result is what `combine` takes."""
        raise NotImplementedError

    def _done(self) -> None:
        """Some work is done, and forgotten."""

    def _pull(self, place: int) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                _, number, result, function, item, apart = heapq.heappop(self._waiting)
            if result.set_running_or_notify_cancel():
                try:
                    made = self._do(place, function, item, apart=apart)
                except BaseException as error:
                    result.set_exception(error)
                else:
                    result.set_result(made)
                    del made
            with self._change:
                self._open.discard(number)
                self._done()
            del result, function, item  # not kept until the next one comes


def _in_order(results: list[Future[Result]]) -> Iterator[Result]:
    """Their results; what nobody waits for any more is cancelled."""
    results.reverse()
    try:
        while results:
            yield results.pop().result()
    finally:
        for result in results:
            result.cancel()
