"""Federated learning for a phone keyboard."""

from kbdfl._version import __version__

__all__ = ["__version__"]
