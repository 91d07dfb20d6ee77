"""`kbdfl interop`: the same phones inside Flower and NVIDIA FLARE (docs/interop.md)."""

from pathlib import Path
from typing import Any

import click

from kbdfl.cli.common import Group, json_option, show


@click.group(cls=Group)
def interop() -> None:
    """The same phones in other people's frameworks."""


@interop.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--logs", default="personas", show_default=True, help="chat, personas or a JSONL typing log.")
@click.option("--preset", default="small", show_default=True, help="Model: tiny, small, chat or gboard.")
@click.option("--devices", type=int, default=100, show_default=True, help="Phones, a supernode each.")
@click.option("--rounds", type=int, default=50, show_default=True, help="Rounds to run.")
@click.option("--cohort", type=int, default=10, show_default=True, help="Phones of a round.")
@click.option("--server", default="fedadam", show_default=True, help="Flower's strategy: fedadam or fedavg.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of all that kbdfl draws.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [default: FOLDER/run]")
@json_option
def flower(folder: Path, logs: str, out: Path | None, as_json: bool, **plan: Any) -> None:
    """Write a Flower app into FOLDER, for `flwr run FOLDER`."""
    from kbdfl.interop.flower import command, write_app
    from kbdfl.interop.learner import Plan

    made = Plan(source=_absolute(logs), **plan)
    write_app(folder, made, out=out or folder / "run")
    line = command(folder, made)
    show(
        {"folder": str(folder), "command": line}, as_json=as_json, text=f"wrote {folder}; run it with\n{line}"
    )


@interop.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--logs", default="chat", show_default=True, help="chat, personas or a JSONL typing log.")
@click.option("--preset", default="small", show_default=True, help="Model: tiny, small, chat or gboard.")
@click.option("--rounds", type=int, default=300, show_default=True, help="Rounds of the joint model.")
@click.option("--words", type=click.IntRange(1), default=60_000, show_default=True, help="Held-out words.")
@click.option("--quick", is_flag=True, help="One rate each, 40 rounds, half a pass alone.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all randomness.")
@json_option
def flare(
    folder: Path, logs: str, quick: bool, words: int, rounds: int, as_json: bool, **shared: Any
) -> None:
    """Eight organisations in NVIDIA FLARE's simulator: a joint model against each one's own, in FOLDER.

    FOLDER holds what each organisation has, FLARE's workspace with its logs, every model and results.json.
    """
    from kbdfl.interop.flare.job import run_silos, table
    from kbdfl.interop.flare.silos import Shared, quickly

    made = Shared(logs=_absolute(logs), rounds=rounds, **shared)
    results = run_silos(folder, quickly(made) if quick else made, words=words)
    show({"folder": str(folder)} | results, as_json=as_json, text=f"{table(results)}\nresults in {folder}")


def _absolute(logs: str) -> str:
    """A log's path as processes with other working folders find it; the names of sources are no paths."""
    return str(Path(logs).resolve()) if logs.endswith((".jsonl", ".jsonl.gz")) else logs
