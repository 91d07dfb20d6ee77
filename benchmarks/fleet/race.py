"""The race: python benchmarks/fleet/race.py [--preset gboard] [--laps 3] [--quick]

Makes the peers' environments and the data where they are missing, lets every contestant show that it computes what
kbdfl computes, and then lets all of them run in turn, each in a process of its own on the same cores, lap after lap.
"""

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbdfl.cli.bench.race import machine

HERE = Path(__file__).parent
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
TIMEOUT_S = 3_600


@dataclass(frozen=True, slots=True)
class Contestant:
    """A program, the environment that it runs in ("" = this one), and what it is told beside the schedule."""

    script: str
    venv: str = ""
    arguments: tuple[str, ...] = ()


PEERS = {
    "flower": Contestant("flower_run.py", "flower"),
    "pfl": Contestant("pfl_run.py", "pfl"),
    "fedjax": Contestant("jax_run.py", "jax", ("--engine", "fedjax")),
    "jax": Contestant("jax_run.py", "jax", ("--engine", "jit")),
}
OURS = {
    f"kbdfl-{variant}": Contestant("kbdfl_run.py", arguments=("--variant", variant))
    for variant in ("exact", "int8", "sampled", "usual")
}
CONTESTANTS = PEERS | OURS
# By mode: what is compared, and whether more of it is better. Words a second depend less on who was drawn.
COMPARED = {
    "train": {"clients_per_s": True, "words_per_s": True},
    "noop": {"clients_per_s": True},
    "recall": {"seconds_to_recall": False},
}
FIGURES = {
    "train": ("clients_per_s", "words_per_s", "peak_mb", "processes", "setup_s"),
    "noop": ("clients_per_s", "peak_mb", "processes"),
    "recall": ("seconds_to_recall", "rounds", "clients_per_s", "words_per_s"),
}

FULL: dict[str, Any] = {
    "preset": "gboard",
    "laps": 3,
    "contestants": ",".join(CONTESTANTS),
    "train_rounds": 20,
    "noop_rounds": 50,
    "rounds": 200,
    "until": 0.15,
    "every": 5,
}
QUICK: dict[str, Any] = {
    "preset": "small",
    "laps": 1,
    "contestants": ",".join([*PEERS, "kbdfl-exact", "kbdfl-usual"]),
    "train_rounds": 2,
    "noop_rounds": 2,
    "rounds": 8,
    "until": 0.032,
    "every": 2,
}


def python_of(venv: str, folder: Path) -> str:
    """The interpreter of an environment, which is made, or brought up to its requirements, if need be."""
    if not venv:
        return sys.executable
    home, wanted = folder / f"venv-{venv}", HERE / f"requirements-{venv}.txt"
    stamp, digest = home / "requirements.sha256", hashlib.sha256(wanted.read_bytes()).hexdigest()
    python = str(home.resolve() / "bin" / "python")
    if not stamp.exists() or stamp.read_text() != digest:
        say(f"installing {wanted.name} in {home}")
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", str(wanted)], check=True)
        stamp.write_text(digest)
    return python


def run(name: str, mode: str, options: argparse.Namespace, *, lap: int) -> dict[str, Any] | None:
    """The line of JSON that a contestant ends with, or None if it ends otherwise; what else it says is kept."""
    contestant, folder = CONTESTANTS[name], options.folder
    rounds = options.rounds.get(mode, 1)
    command = [
        python_of(contestant.venv, folder),
        str(HERE / contestant.script),
        *contestant.arguments,
        *("--mode", mode, "--data", str(folder / f"{options.preset}.npz"), "--rounds", str(rounds)),
        *("--server", options.server, "--seed", str(lap), "--until", str(options.until)),
        *("--every", str(options.every)),
    ]
    log = folder / "logs" / f"{options.preset}-{mode}-{name}-{lap}.txt"
    log.parent.mkdir(exist_ok=True)
    say(f"lap {lap} {mode:<6} {name}", end=" ")
    # What XLA compiled in one lap serves the next; it is off the clock in all of them.
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(folder.resolve() / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = os.environ | dict.fromkeys(THREADS, "1") | compiled
    with open(log, "w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=TIMEOUT_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as ended:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(ended, KeyboardInterrupt):
                raise
            output = ""
    try:
        line = json.loads(output.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        say(f"failed, see {log}")
        return None
    if "peak_rss_bytes" in line:
        line["peak_mb"] = round(line["peak_rss_bytes"] / 1e6)
    shown = "agrees" if mode == "check" else next(iter(COMPARED[mode]))
    say(f"{shown} {line.get(shown)}")
    return line | {"lap": lap}


def summary(runs: list[dict[str, Any]], mode: str) -> dict[str, dict[str, list[float | None]]]:
    """By contestant and figure: median, least and most; without a median where a run has none."""
    table: dict[str, dict[str, list[float | None]]] = {}
    for name in CONTESTANTS:
        found = [one for one in runs if (one["name"], one["mode"]) == (name, mode)]
        if found:
            table[name] = {figure: _spread([one.get(figure) for one in found]) for figure in FIGURES[mode]}
    return table


def ratios(runs: list[dict[str, Any]], mode: str, figure: str) -> dict[str, dict[str, list[float | None]]]:
    """How many times better each of ours is than each peer, and than the best of them, lap by lap: median, range.

    What another of ours gives is told by their ratios too: of `exact` to `sampled`, for one.
    """
    more = COMPARED[mode][figure]
    laps: dict[int, dict[str, float]] = {}
    for one in runs:
        if one["mode"] == mode and one.get(figure):
            laps.setdefault(one["lap"], {})[one["name"]] = one[figure] if more else 1 / one[figure]
    for lap in laps.values():
        peers = [lap[name] for name in PEERS if name in lap]
        if peers:
            lap["best peer"] = max(peers)
    table: dict[str, dict[str, list[float | None]]] = {}
    for ours in OURS:
        for other in ("best peer", *PEERS, *OURS):
            found = [lap[ours] / lap[other] for lap in laps.values() if ours in lap and other in lap]
            if found and other != ours:
                table.setdefault(ours, {})[other] = _spread(found)
    return table


def _spread(values: list[Any]) -> list[float | None]:
    known = [value for value in values if value is not None]
    if not known:
        return [None, None, None]
    middle = statistics.median(known) if len(known) == len(values) else None
    return [middle, min(known), max(known)]


def lines(result: dict[str, Any]) -> list[str]:
    """The result as tables."""
    text = []
    for mode, table in result["modes"].items():
        figures = FIGURES[mode]
        text += ["", f"{mode}, {result['preset']}: median (least to most)", _row("", figures)]
        for name, row in table["figures"].items():
            text.append(_row(name, [_shown(row[figure]) for figure in figures]))
        for figure, ratio in table["ratios"].items():
            others = [one for one in ("best peer", *CONTESTANTS) if any(one in row for row in ratio.values())]
            if others:
                text += ["", f"{mode}: how many times better, by {figure}", _row("", others)]
            for ours, row in ratio.items():
                text.append(_row(ours, [_shown(row[one]) if one in row else "" for one in others]))
    return text


def _row(name: str, cells: Iterable[str]) -> str:
    return f"{name:14}" + "".join(f"{cell:>24}" for cell in cells)


def _shown(spread: list[float | None]) -> str:
    middle, least, most = ("never" if value is None else _short(value) for value in spread)
    return middle if least == most else f"{middle} ({least} to {most})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", help="small, chat or gboard  [default: gboard]")
    add("--laps", type=int, help="[default: 3]")
    add("--modes", default="train,noop,recall")
    add("--contestants", help=f"[default: {FULL['contestants']}]")
    add("--server", choices=("fedadam", "fedavg"), default="fedadam")
    add("--train-rounds", type=int, help="of --mode train  [default: 20]")
    add("--noop-rounds", type=int, help="of --mode noop  [default: 50]")
    add("--rounds", type=int, help="of --mode recall at most; its rate falls over so many  [default: 200]")
    add("--until", type=float, help="recall@1 to reach  [default: 0.15]")
    add("--every", type=int, help="rounds between two measurements of recall  [default: 5]")
    add("--cores", default="0,1", help="that all run on")
    add("--folder", type=Path, default=Path("build/fleet"), help="of environments, data and logs")
    add("--out", type=Path, help="write the result here as JSON too")
    add("--quick", action="store_true", help="a lap of a few rounds of a small model: does it run?")
    options = parser.parse_args()
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.rounds = {"train": options.train_rounds, "noop": options.noop_rounds, "recall": options.rounds}
    names, modes = options.contestants.split(","), options.modes.split(",")
    if unknown := [name for name in names if name not in CONTESTANTS] + [
        m for m in modes if m not in COMPARED
    ]:
        parser.error(f"unknown: {', '.join(unknown)}")

    os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    options.folder.mkdir(parents=True, exist_ok=True)
    data = options.folder / f"{options.preset}.npz"
    if not data.exists():
        prepare = [sys.executable, str(HERE / "prepare.py"), "--preset", options.preset, "--out", str(data)]
        subprocess.run(prepare, check=True, stdout=sys.stderr)

    checks = {}
    for name in names:
        # All of ours have one check: it is the data's, against the kbdfl that runs.
        if name in PEERS or not checks.keys() & OURS.keys():
            checks[name] = run(name, "check", options, lap=0)
            if not (checks[name] or {}).get("agrees"):
                raise SystemExit(f"{name} does not compute what kbdfl does: {checks[name]}")
    runs = []
    for lap in range(1, options.laps + 1):
        for mode in modes:
            for name in names:
                found = run(name, mode, options, lap=lap)
                if found is not None:
                    runs.append(found | {"name": name})
    result = {
        "bench": "fleet",
        "preset": options.preset,
        "server": options.server,
        "laps": options.laps,
        "machine": machine(),
        "cores": options.cores,
        "load_average": round(os.getloadavg()[2], 2),
        "checks": checks,
        "modes": {
            mode: {
                "figures": summary(runs, mode),
                "ratios": {figure: ratios(runs, mode, figure) for figure in COMPARED[mode]},
            }
            for mode in modes
        },
        "runs": runs,
    }
    print("\n".join(lines(result)))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps({name: value for name, value in result.items() if name != "runs"}))


if __name__ == "__main__":
    main()
