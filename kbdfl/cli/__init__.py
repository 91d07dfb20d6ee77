"""The `kbdfl` command."""

from kbdfl.cli.main import main

__all__ = ["main"]
