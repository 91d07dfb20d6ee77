"""What every bench shares: an interleaved race, and the peers of `benchmarks/`."""

import importlib.util
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kbdfl.cli.common import progress

ONE_THREAD = {  # read by a library when it is loaded
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
}


def race(contestants: dict[str, Callable[[], float]], *, laps: int) -> dict[str, list[float]]:
    """Seconds of every contestant in each of `laps`, after one lap that warms up and does not count.

    Everybody runs once a lap, so that a slow moment of the machine meets all of them. A contestant runs once
    and returns the seconds it took; `timed` makes one of a plain function.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for lap in progress(range(laps + 1), unit="lap", desc="bench"):
        for name, run in contestants.items():
            taken = run()
            if lap:
                seconds[name].append(taken)
    return seconds


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """`work` as a contestant: runs it and returns the seconds it took."""

    def run() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return run


def peer_module(name: str) -> Any:
    """A module of benchmarks/, which is part of a checkout and not of an installed package.

    Raises ImportError where there is no checkout or where what the peer stands on is not installed.
    """
    path = Path(__file__).parents[3] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.exists() or spec is None or spec.loader is None:
        raise ImportError("the peers stand in benchmarks/ of a source checkout")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine() -> str:
    """Processor and number of cores at hand: figures mean nothing without it."""
    named = [line for line in _cpuinfo() if line.startswith("model name")]
    processor = named[0].partition(":")[2].strip() if named else platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
