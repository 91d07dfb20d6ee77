"""The progress bar of a simulation, in a script's terminal and in a notebook."""

import sys
from typing import Any

from tqdm import tqdm

from kbdfl.api.cells import in_notebook, output


class _Cell:
    """What tqdm writes to in a notebook: one output of the cell, in which each line takes the place of the last.

    Standard error would do in JupyterLab. Whoever runs notebooks without a browser keeps each line of it, ten a second.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        self._output: Any = None

    def write(self, text: str) -> None:
        """Show a line; the end of one is none."""
        line = text.strip()
        if not line:
            return
        if self._output is None:
            self._output = output({"text/plain": line})
        else:
            self._output.update({"text/plain": line}, raw=True)

    def flush(self) -> None:
        """Nothing waits."""


def rounds_bar(total: int, done: int, *, shown: bool | None) -> Any:
    """tqdm's bar: an output of its cell in a notebook, else a line on standard error.

    `shown` None shows it in notebooks and on terminals, and nowhere else.
    """
    notebook = in_notebook()
    if shown is None:
        shown = notebook or sys.stderr.isatty()
    file: Any = _Cell() if notebook else sys.stderr
    return tqdm(total=total, initial=done, unit="round", desc="simulate", disable=not shown, file=file)
