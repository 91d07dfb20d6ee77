"""A Ray cluster's workers (https://docs.ray.io), with the model in its object store: one copy a machine.

Work waits on our side, dearest first, and Ray is given as much as there are workers; one that is lost with its worker
or its machine is begun again elsewhere by Ray. Needs the extra `ray`.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kbdfl.engines.processes import MOST_LOSSES
from kbdfl.engines.pull import PullEngine
from kbdfl.errors import ConfigError, EngineError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # it would print of lost workers on standard output

try:
    import ray
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

    def share(self, array: np.ndarray) -> _InStore:
        """One copy in the object store of each machine that needs it."""
        return _InStore(ray.put(array))

    def release(self, shared: _InStore) -> None:
        """Nothing: the store lets go of it with its last user."""

    def close(self) -> None:
        """As `Engine.close`; a Ray that was begun here ends."""
        super().close()
        if self._mine and ray.is_initialized():
            ray.shutdown()

    def _do(self, place: int, function: Callable, item: Any) -> Any:
        try:
            return ray.get(self._run.remote(function, item))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
        ):
            raise EngineError(
                f"a client's work was lost with its worker {MOST_LOSSES} times, and is given up"
            ) from None


def start(workers: int, *, address: str | None = None) -> None:
    """Begin a Ray on this machine with so many workers, or join the cluster at `address`; it says nothing."""
    # "local", for without an address Ray would join one that happens to run on this machine, and refuse num_cpus.
    options = {"num_cpus": workers, "include_dashboard": False} if address is None else {}
    ray.init(
        address or "local",
        **options,
        configure_logging=True,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


def _call(function: Callable, item: Any) -> Any:
    return function(item)
