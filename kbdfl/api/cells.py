"""The cells of a notebook, as far as what is shown there needs to know of them."""

import sys
from typing import Any


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this interpreter."""
    return "ipykernel.zmqshell" in sys.modules


def output(shown: dict[str, Any]) -> Any:
    """A new output of the cell that runs, by kinds of content; `update(shown, raw=True)` of it takes its place."""
    from IPython import display

    publish: Any = display.display  # it says nothing of its types
    return publish(shown, raw=True, display_id=True)
