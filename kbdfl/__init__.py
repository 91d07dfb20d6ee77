"""Federated learning for a phone keyboard.

The front page, for scripts and notebooks; each name is imported when it is first used:

    simulate     run federated rounds in this process, as `kbdfl simulate` does, and give back the Run
    load         the Run in a folder
    compare      the recall of several runs in one figure
    track        write a run for TensorBoard or MLflow
    Run          its configuration, its rounds, its plots, its model
    Model        a bundle that predicts the next word
    Algorithm    how a federated task learns: a client rule, an upload, a server rule ...
    PRESETS      algorithms by name: fedavg, fedadam, dp-ftrl ...
    Privacy      noise on sums, and the budget it keeps
    KbdflError   what is raised, in one line, for what cannot be
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kbdfl._version import __version__

if TYPE_CHECKING:
    from kbdfl.algorithms import PRESETS, Algorithm
    from kbdfl.api.model import Model
    from kbdfl.api.run import Run, compare, load
    from kbdfl.api.simulate import simulate, track
    from kbdfl.errors import KbdflError
    from kbdfl.privacy import Privacy

__all__ = [
    "PRESETS",
    "Algorithm",
    "KbdflError",
    "Model",
    "Privacy",
    "Run",
    "__version__",
    "compare",
    "load",
    "simulate",
    "track",
]

_ROOMS = {
    "PRESETS": "kbdfl.algorithms",
    "Algorithm": "kbdfl.algorithms",
    "KbdflError": "kbdfl.errors",
    "Model": "kbdfl.api.model",
    "Privacy": "kbdfl.privacy",
    "Run": "kbdfl.api.run",
    "compare": "kbdfl.api.run",
    "load": "kbdfl.api.run",
    "simulate": "kbdfl.api.simulate",
    "track": "kbdfl.api.simulate",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'kbdfl' has no attribute {name!r}")
    found = getattr(import_module(_ROOMS[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
