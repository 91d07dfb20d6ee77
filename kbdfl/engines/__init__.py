"""Where client updates are computed: the same work on threads here, elsewhere later."""

from kbdfl.engines.local import ThreadEngine

__all__ = ["ThreadEngine"]
