"""`kbdfl bench client`: client updates a second, ours and the peers'."""

import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from kbdfl.cli.bench.race import peer_module, race, timed
from kbdfl.cli.common import json_option, seed_option, show

STEPS, BATCH, WORDS = 8, 16, 20  # a client update: 8 SGD steps of 16 messages with 20 words
LEARNING_RATE = 0.5
PEERS = ("numpy", "torch")


@click.command()
@click.option("--preset", default="small", show_default=True, help="Model: tiny, small, chat or gboard.")
@click.option("--peers", default="numpy,torch", show_default=True, help="Peers to run where installed.")
@click.option("--repetitions", type=click.IntRange(3), default=9, show_default=True, help="Runs of each.")
@seed_option
@json_option
def client(preset: str, peers: str, repetitions: int, seed: int, as_json: bool) -> None:
    """Client updates a second on one core and on two."""
    import numpy as np

    from kbdfl.errors import ConfigError
    from kbdfl.model import init_params
    from kbdfl.model import preset as model_preset
    from kbdfl.model.cifg import SPECIAL_TOKENS
    from kbdfl.rng import stream

    config = model_preset(preset)
    wanted = [peer for peer in peers.split(",") if peer]
    for peer in wanted:
        if peer not in PEERS:
            raise ConfigError(f"peers must be among {', '.join(PEERS)}, got {peer}")
    params = init_params(config, seed=seed)
    zipf = 1 / (np.arange(config.vocab - SPECIAL_TOKENS) + 2.7)
    tokens = (
        stream(seed, "bench").choice(len(zipf), (STEPS, BATCH, WORDS + 1), p=zipf / zipf.sum())
        + SPECIAL_TOKENS
    )
    contestants: dict[str, Callable[[], object]] = {}
    ours = [_ours(config, params, tokens) for _ in range(2)]
    contestants["kbdfl"] = ours[0]
    contestants["kbdfl_2_cores"] = lambda: _together(ours)
    missing: dict[str, str] = {}
    views = config.spec.views(params)
    for peer in wanted:
        try:
            module = peer_module(f"client_{peer}")
        except ImportError as error:
            missing[peer] = f"not measured: {error}"
            continue
        pair = [module.make(views, tokens, LEARNING_RATE) for _ in range(2)]
        if hasattr(module, "use_threads"):  # a peer with threads of its own inside one update
            contestants[peer] = _with_threads(module, 1, pair[0])
            contestants[f"{peer}_2_cores"] = _with_threads(module, 2, pair[0])
        else:
            contestants[peer] = pair[0]
            contestants[f"{peer}_2_cores"] = lambda pair=pair: _together(pair)
    seconds = race({name: timed(run) for name, run in contestants.items()}, laps=repetitions)
    result: dict[str, Any] = {
        "bench": "client",
        "preset": preset,
        "parameters": config.spec.size,
        "repetitions": repetitions,
        "contestants": _rates(seconds, {"kbdfl_2_cores": 2, "numpy_2_cores": 2}),
    }
    rates = {name: row["updates_per_s"] for name, row in result["contestants"].items()}
    for peer in wanted:
        if peer in rates:
            result[f"ratio_vs_{peer}"] = round(rates["kbdfl"] / rates[peer], 3)
            result[f"ratio_vs_{peer}_2_cores"] = round(rates["kbdfl_2_cores"] / rates[f"{peer}_2_cores"], 3)
    result["scaling_2_cores"] = round(rates["kbdfl_2_cores"] / rates["kbdfl"], 3)
    result |= missing
    show(result, as_json=as_json, text=_lines(result))


def _ours(config: Any, params: Any, tokens: Any) -> Callable[[], object]:
    from kbdfl.kernels.train import Workspace, local_sgd
    from kbdfl.text import BOS, EOS, pack

    # The peers read a first word and predict WORDS more; ours reads <bos> in its place.
    batches = pack([[[BOS, *sentence[1:].tolist(), EOS] for sentence in batch] for batch in tokens])
    workspace = Workspace()
    return lambda: local_sgd(
        params,
        **config.dims,
        **batches.arrays,
        learning_rate=LEARNING_RATE,
        workspace=workspace,
    )


_POOL = ThreadPoolExecutor(2)


def _together(updates: list[Callable[[], object]]) -> None:
    for future in [_POOL.submit(update) for update in updates]:
        future.result()


def _with_threads(module: Any, count: int, update: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        module.use_threads(count)
        return update()

    return run


def _rates(seconds: dict[str, list[float]], updates: dict[str, int]) -> dict[str, Any]:
    rows = {}
    for name, taken in seconds.items():
        count = updates.get(name, 1)
        rows[name] = {
            "updates_per_s": round(count / statistics.median(taken), 3),
            "slowest": round(count / max(taken), 3),
            "fastest": round(count / min(taken), 3),
        }
    return rows


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
