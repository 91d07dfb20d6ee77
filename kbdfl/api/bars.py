"""The progress bar of a simulation, in a script's terminal and in a notebook."""

import sys
import warnings
from typing import Any


def rounds_bar(total: int, done: int, *, shown: bool | None) -> Any:
    """tqdm's bar: widgets in a notebook that has ipywidgets, else a line on standard error.

    `shown` None shows it in notebooks and on terminals, and nowhere else.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a notebook has no ipywidgets: the line will do
        from tqdm.auto import tqdm
    if shown is None:
        shown = in_notebook() or sys.stderr.isatty()
    return tqdm(total=total, initial=done, unit="round", desc="simulate", disable=not shown)


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this interpreter; its standard error is shown, though it is no terminal."""
    return "ipykernel.zmqshell" in sys.modules
