"""`kbdfl bench kernels`: the codec's kernels beside numpy and torch, one thread each, on the same arrays."""

import os
import statistics
from typing import Any

import click

from kbdfl.cli.bench.jobs import BLOCK, draw, ours
from kbdfl.cli.bench.race import ONE_THREAD, machine, peer_module, race, timed
from kbdfl.cli.common import json_option, seed_option, show

PEERS = ("numpy", "torch")
GBOARD = 1_422_336  # the parameters of the preset `gboard`, rounded up to whole blocks


@click.command()
@click.option("--size", type=click.IntRange(4 * BLOCK), default=GBOARD, show_default=True, help="Parameters.")
@click.option("--repetitions", type=click.IntRange(3), default=25, show_default=True, help="Runs of each.")
@seed_option
@json_option
def kernels(size: int, repetitions: int, seed: int, as_json: bool) -> None:
    """Milliseconds of every codec kernel and of its peers."""
    os.environ.update(ONE_THREAD)  # numpy is not loaded yet, and its norm is a product of its BLAS
    from kbdfl.errors import ConfigError
    from kbdfl.rng import stream

    if size % BLOCK:
        raise ConfigError(f"size must be a multiple of {BLOCK}, got {size}")
    result: dict[str, Any] = {
        "bench": "kernels",
        "size": size,
        "repetitions": repetitions,
        "machine": machine(),
    }
    arrays = draw(size, seed)
    contestants = {"ours": ours(arrays, stream(seed, "bench", "ours"))}
    for peer in PEERS:
        try:
            contestants[peer] = peer_module(f"kernels_{peer}").make(arrays, stream(seed, "bench", peer))
        except ImportError as error:
            result[peer] = f"not measured: {error}"
    for job in contestants["ours"]:
        # A race a job: what one contestant leaves in the cache helps the next on the same arrays, all alike.
        seconds = race({name: timed(work[job]) for name, work in contestants.items()}, laps=repetitions)
        result[job] = _row(seconds)
    show(result, as_json=as_json, text=_table(result))


def _row(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and ranges in milliseconds, and how many times as long as ours the others took."""
    row: dict[str, Any] = {}
    for name, taken in seconds.items():
        row[f"{name}_ms"] = round(1e3 * statistics.median(taken), 4)
        row[f"{name}_range_ms"] = [round(1e3 * min(taken), 4), round(1e3 * max(taken), 4)]
    ratios = {
        name: statistics.median(taken) / statistics.median(seconds["ours"])
        for name, taken in seconds.items()
        if name != "ours"
    }
    row |= {f"ratio_vs_{name}": round(ratio, 3) for name, ratio in ratios.items()}
    return row | ({"ratio_vs_best": round(min(ratios.values()), 3)} if ratios else {})


def _table(result: dict[str, Any]) -> str:
    peers = [peer for peer in PEERS if peer not in result]
    lines = [
        f"codec kernels on {result['size']} parameters, one thread of {result['machine']}",
        f"milliseconds, median of {result['repetitions']} (shortest to longest), and how many times as long as ours",
        f"{'':<20}{'kbdfl':<26}" + "".join(f"{peer:<36}" for peer in peers),
    ]
    for job, row in result.items():
        if isinstance(row, dict):
            theirs = [f"{_cell(row, peer)}{row[f'ratio_vs_{peer}']:>7.2f}x  " for peer in peers]
            lines.append(f"{job:<20}{_cell(row, 'ours')}" + "".join(theirs))
    return "\n".join([*lines, *(f"{peer} {result[peer]}" for peer in PEERS if peer in result)])


def _cell(row: dict[str, Any], name: str) -> str:
    shortest, longest = row[f"{name}_range_ms"]
    return f"{row[f'{name}_ms']:<8.3f}{f'({shortest:.3f}–{longest:.3f})':<18}"
