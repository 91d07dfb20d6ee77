"""A Ray cluster's workers (https://docs.ray.io), with the model in its object store: one copy a machine.

Work waits on our side, dearest first, and Ray is given as much as there are workers; one that is lost with its worker
or its machine is begun again elsewhere by Ray. What is left apart stays in the object store of its machine, and is
combined there before it travels. Needs the extra `ray`.
"""

# Without the extra, pyright takes `import ray` for this very file.
# pyright: reportAttributeAccessIssue=false

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from kbdfl.engines.base import Result
from kbdfl.engines.processes import MOST_LOSSES
from kbdfl.engines.pull import PullEngine
from kbdfl.errors import ConfigError, EngineError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # it would print of lost workers on standard output

try:
    import ray
    import ray.exceptions
    from ray.experimental import get_object_locations
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError:
    raise ConfigError("the engine ray needs Ray: pip install 'kbdfl[ray]'") from None


@dataclass(frozen=True, slots=True)
class _InStore:
    """Where a shared array is."""

    reference: Any

    def get(self) -> np.ndarray:
        return ray.get(self.reference)


class RayEngine(PullEngine):
    """Ray's workers; see `kbdfl.engines.base.Engine`. With an `address` those of a cluster that runs already."""

    far = True

    def __init__(self, workers: int, *, address: str | None = None) -> None:
        super().__init__(workers)  # refuses a wrong number before there is a Ray to end
        self._mine = not ray.is_initialized()
        if self._mine:
            try:
                start(workers, address=address)
            except BaseException:
                super().close()
                raise
        self._run = ray.remote(max_retries=MOST_LOSSES - 1, num_cpus=1)(_call)
        self._combine = ray.remote(max_retries=MOST_LOSSES - 1, num_cpus=0)(_call_with)

    def share(self, array: np.ndarray) -> _InStore:
        """One copy in the object store of each machine that needs it."""
        return _InStore(ray.put(array))

    def release(self, shared: _InStore) -> None:
        """Nothing: the store lets go of it with its last user."""

    def combine(self, function: Callable[[Sequence[Result]], Result], apart: Sequence[Any]) -> Result:
        """As `Engine.combine`: on each machine what it holds, and here what they give."""
        here, held = ray.get_runtime_context().get_node_id(), defaultdict(list)
        for reference, where in get_object_locations(list(apart)).items():
            nodes = where["node_ids"]  # none, if it is so small that it came with the answer
            held[here if here in nodes or not nodes else nodes[0]].append(reference)
        with _lost_and_given_up():
            sums = [
                self._combine.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True)
                ).remote(function, *references)
                for node, references in held.items()
                if node != here
            ]
            return function(ray.get(held[here] + sums))

    def close(self) -> None:
        """As `Engine.close`; a Ray that was begun here ends."""
        super().close()
        if self._mine and ray.is_initialized():
            ray.shutdown()

    def _do(self, place: int, function: Callable[..., Any], item: Any, *, apart: bool) -> Any:
        with _lost_and_given_up():
            if not apart:
                return ray.get(self._run.remote(function, item))
            both: Any = self._run.options(num_returns=2).remote(function, item)
            first, second = both
            return ray.get(first), second


@contextmanager
def _lost_and_given_up() -> Iterator[None]:
    """Errors of work as they were raised there, and of workers that were lost too often as EngineError."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.ObjectLostError,
        ray.exceptions.OutOfMemoryError,
    ):
        raise EngineError(
            f"a client's work was lost with its worker {MOST_LOSSES} times, and is given up"
        ) from None


def start(workers: int, *, address: str | None = None) -> None:
    """Begin a Ray on this machine with so many workers, or join the cluster at `address`; it says nothing."""
    # "local", for without an address Ray would join one that happens to run on this machine, and refuse num_cpus.
    options: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if address is None else {}
    ray.init(
        address or "local",
        **options,
        configure_logging=True,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


def _call(function: Callable[..., Any], item: Any) -> Any:
    return function(item)


def _call_with(function: Callable[..., Any], *items: Any) -> Any:
    return function(items)
