"""Where client updates are computed: the same work on threads here, in other processes, on other machines."""

from kbdfl.engines.base import Engine, Shared
from kbdfl.engines.local import ThreadEngine
from kbdfl.errors import ConfigError

ENGINES = ("threads",)

__all__ = ["ENGINES", "Engine", "Shared", "ThreadEngine", "open_engine"]


def open_engine(name: str, workers: int) -> Engine:
    """The engine called `name`, one of ENGINES. Raises ConfigError."""
    if name not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}"[:200])
    return ThreadEngine(workers)
