"""`kbdfl bench client`: client updates a second beside the peers', on one core and on two."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import click

from kbdfl.cli.bench.contestants import BATCH, PEERS, SGEMM_REPEATS, SGEMM_SIZE, STEPS, WORDS
from kbdfl.cli.bench.race import ONE_THREAD, machine, race
from kbdfl.cli.common import json_option, seed_option, show

CANDIDATES = (1_000, 500)  # of the sampled softmax, where the vocabulary is larger


class Worker:
    """A contestant's process (`contestants.main`) on its own cores; `missing` says why it cannot run, if so."""

    def __init__(self, name: str, *, preset: str, seed: int, cores: list[int]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c"),
                "import sys; from kbdfl.cli.bench.contestants import main; main(*sys.argv[1:])",
                *(name, preset, str(seed), ",".join(map(str, cores))),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD,
        )
        ready = self._answer()
        self.missing: str | None = ready.get("missing")
        self.norm: float | None = ready.get("norm")

    def start(self) -> None:
        """Let one run begin."""
        print(file=self.process.stdin, flush=True)

    def seconds(self) -> float:
        """Wait for the run to end; what it took."""
        return self._answer()["seconds"]

    def close(self) -> None:
        """Let the process end."""
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError(f"the process of {self.name} ended, exit code {self.process.wait()}")
        return json.loads(line)


@click.command()
@click.option("--preset", default="small", show_default=True, help="Model: tiny, small, chat or gboard.")
@click.option("--peers", default=",".join(PEERS), show_default=True, help="Peers to run where installed.")
@click.option("--repetitions", type=click.IntRange(3), default=9, show_default=True, help="Runs of each.")
@seed_option
@json_option
def client(preset: str, peers: str, repetitions: int, seed: int, as_json: bool) -> None:
    """Client updates a second on one core and on two.

    On two cores ours is two threads of one process, a peer is two processes: the quickest way of each.
    """
    from kbdfl.errors import ConfigError
    from kbdfl.kernels.train import scratch_bytes
    from kbdfl.model import preset as model_preset

    config = model_preset(preset)
    wanted = [peer for peer in peers.split(",") if peer]
    for peer in wanted:
        if peer not in PEERS:
            raise ConfigError(f"peers must be among {', '.join(PEERS)}, got {peer}")
    sampled = [f"kbdfl_{count}" for count in CANDIDATES if count < config.vocab]
    result: dict[str, Any] = {
        "bench": "client",
        "preset": preset,
        "parameters": config.spec.size,
        "repetitions": repetitions,
        "machine": machine(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    with ExitStack() as stack:
        teams, missing = _teams(["kbdfl", *sampled, *wanted], stack, preset=preset, seed=seed)
        seconds = race({name: _together(team) for name, team in teams.items()}, laps=repetitions)
        norms = {name: team[0].norm for name, team in teams.items()}
    sgemm = seconds.pop("sgemm")
    rows = {}
    for name, taken in seconds.items():
        updates = 2 if name.endswith("_2_cores") else 1
        rows[name] = {
            "updates_per_s": round(updates / statistics.median(taken), 3),
            "slowest": round(updates / max(taken), 3),
            "fastest": round(updates / min(taken), 3),
            "delta_norm": float(f"{norms[name]:.5g}"),
        }
    result["contestants"] = rows
    rates = {name: row["updates_per_s"] for name, row in rows.items()}
    for peer in wanted:
        for cores in ("", "_2_cores"):
            if peer + cores in rates:
                result[f"ratio_vs_{peer}{cores}"] = round(rates[f"kbdfl{cores}"] / rates[peer + cores], 3)
    for name in sampled:
        result[f"{name}_vs_exact"] = round(rates[name] / rates["kbdfl"], 3)
    if "kbdfl_2_cores" in rates:
        result["scaling_2_cores"] = round(rates["kbdfl_2_cores"] / rates["kbdfl"], 3)
    peak = SGEMM_REPEATS * 2 * SGEMM_SIZE**3 / statistics.median(sgemm) / 1e9
    gflops = client_flops(**config.dims) * rates["kbdfl"] / 1e9
    result |= {
        "scratch_bytes": scratch_bytes(**config.dims, rows=BATCH * WORDS, sentences=BATCH),
        "gflops": round(gflops, 1),
        "sgemm_peak_gflops": round(peak, 1),
        "share_of_sgemm_peak": round(gflops / peak, 3),
    }
    result |= {peer: f"not measured: {reason}" for peer, reason in missing.items()}
    show(result, as_json=as_json, text=_lines(result))


def client_flops(*, vocab: int, embed: int, hidden: int) -> int:
    """Floating-point operations of one client update's matrix products.

    A word meets the 3H gates twice (input and recurrent state, E each), the projection (H, E) and the tied output
    (E, V): a multiplication and an addition for each of these numbers forward, and twice that backward.
    """
    multiply_adds = 2 * embed * 3 * hidden + hidden * embed + embed * vocab
    return 6 * multiply_adds * STEPS * BATCH * WORDS


def _teams(
    names: list[str], stack: ExitStack, *, preset: str, seed: int
) -> tuple[dict[str, list[Worker]], dict[str, str]]:
    """The processes behind every contestant, closed with `stack`, and why those that are missing are."""
    cores = (
        sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    teams: dict[str, list[Worker]] = {}
    missing: dict[str, str] = {}

    def worker(name: str, *pinned: int) -> Worker:
        started = Worker(name, preset=preset, seed=seed, cores=[*pinned])
        stack.callback(started.close)
        return started

    for name in [*names, "sgemm"]:
        first = worker(name, cores[0])
        if first.missing is not None:
            missing[name] = first.missing
            continue
        teams[name] = [first]
        if len(cores) > 1 and name in PEERS:
            teams[f"{name}_2_cores"] = [first, worker(name, cores[1])]
        elif len(cores) > 1 and name == "kbdfl":
            teams[f"{name}_2_cores"] = [worker(name, cores[0], cores[1])]
    return teams, missing


def _together(team: list[Worker]) -> Callable[[], float]:
    def run() -> float:
        for worker in team:
            worker.start()
        return max([worker.seconds() for worker in team])

    return run


def _lines(result: dict[str, Any]) -> str:
    lines = [
        f"client updates a second, {result['preset']}, median of {result['repetitions']} (slowest to fastest)"
    ]
    for name, row in result["contestants"].items():
        lines.append(
            f"  {name:<16}{row['updates_per_s']:>9.2f}   ({row['slowest']:.2f} to {row['fastest']:.2f})"
        )
    skip = {"bench", "preset", "parameters", "repetitions", "contestants"}
    lines += [f"  {key:<24}{value}" for key, value in result.items() if key not in skip]
    return "\n".join(lines)
