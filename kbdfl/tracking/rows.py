"""What of a run is written: the numbers of a row of metrics.jsonl, and the settings of config.toml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from kbdfl.config import read_toml


class Writer(Protocol):
    """One library's files of one run. Steps are rounds closed so far, as in report.html: the first one is step 1.

    A class of these is called with the run's `folder`, and with `begins` and `done` of `open_tracking`.
    """

    def add(self, row: Mapping[str, Any], *, at_s: float) -> None:
        """Write a row of metrics.jsonl, of a round that closed at `at_s`, seconds since 1970.

        A row may come again with more figures. Those that stand there are passed over, by their names: each figure's
        steps only grow.
        """

    def close(self, *, finished: bool) -> None:
        """Write what is left; `finished` says whether the run came to its end."""


def step_of(row: Mapping[str, Any]) -> int:
    """The step that a row of metrics.jsonl is written at."""
    return int(row["round"]) + 1


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics.jsonl under their names there; what was not measured is left out."""
    return {
        name: float(value)
        for name, value in row.items()
        if name != "round" and isinstance(value, int | float) and not isinstance(value, bool)
    }


def parameters(folder: Path) -> dict[str, str]:
    """The settings in the folder's config.toml as texts: {"run.seed": "1", "client.epochs": "1", ...}."""
    return dict(_flat("", read_toml(folder / "config.toml")))


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, Mapping):
        return [(prefix, str(value))]
    return [
        pair for name, inner in value.items() for pair in _flat(f"{prefix}.{name}" if prefix else name, inner)
    ]
