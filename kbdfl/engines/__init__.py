"""Where client updates are computed: the same work on threads here, elsewhere later."""

from kbdfl.engines.base import Engine, Shared
from kbdfl.engines.local import ThreadEngine

__all__ = ["Engine", "Shared", "ThreadEngine"]
