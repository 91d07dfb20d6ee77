"""What every engine does: compute client updates elsewhere, on models that are handed over once.

Results do not depend on the engine or on the number of its workers: work is computed from its item alone, and who asks
for it takes the results in an order of his own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")


class Shared(Protocol):
    """An array that all workers see."""

    def get(self) -> np.ndarray:
        """The array, read-only; not a copy where a worker can see the same memory."""
        ...


class Engine(Protocol):
    """Workers that carry out functions of items. Closed when its `with` block is left."""

    workers: int
    far: bool  # workers may be on other machines: what need not travel should stay there

    def share(self, array: np.ndarray) -> Shared:
        """Hand an array over to all workers, once; what comes back may be part of any item."""
        ...

    def release(self, shared: Any) -> None:
        """No item that is submitted from now on needs `shared`; those that were are still carried out."""

    def submit(
        self, function: Callable[[Item], Result], item: Item, *, cost: float = 0.0, apart: bool = False
    ) -> Future[Result]:
        """Begin with one item as soon as a worker is free; among those that wait, the dearest first.

        `function` is a module's own and `item` can be pickled, as on other machines they are. With `apart` it gives
        two results, of which the second may stay where it was made: it is for `combine`.
        """
        ...

    def combine(self, function: Callable[[Sequence[Result]], Result], apart: Sequence[Any]) -> Result:
        """`function` of what was left `apart`, which may have any order and be split: f([f([a, b]), c]).

        It must leave its arguments as they are, and may give one of them back.
        """
        ...

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results in the items' order."""
        ...

    def close(self) -> None:
        """Let the workers end; what has not begun is cancelled."""

    def __enter__(self) -> "Engine": ...

    def __exit__(self, *exception: object) -> None: ...
