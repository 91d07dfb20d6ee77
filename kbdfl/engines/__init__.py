"""Where client updates are computed: the same work on threads here, in other processes, on other machines."""

from kbdfl.engines.base import Engine, Shared
from kbdfl.engines.local import InlineEngine, ThreadEngine
from kbdfl.errors import ConfigError

ENGINES = ("threads", "processes", "ray")

__all__ = ["ENGINES", "Engine", "InlineEngine", "Shared", "ThreadEngine", "open_engine"]


def open_engine(name: str, workers: int, *, address: str | None = None) -> Engine:
    """The engine called `name`, one of ENGINES; `address` of a Ray cluster. Raises ConfigError."""
    if name not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}"[:200])
    if address is not None and name != "ray":
        raise ConfigError(f"an address must come with the engine ray, got {name}")
    if name == "ray":
        from kbdfl.engines.ray import RayEngine

        return RayEngine(workers, address=address)
    if name == "processes":
        from kbdfl.engines.processes import ProcessEngine

        return ProcessEngine(workers)
    return ThreadEngine(workers)
