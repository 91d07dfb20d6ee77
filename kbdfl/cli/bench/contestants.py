"""The contestants of `kbdfl bench client`: the work, who does it, and the process that each of them lives in.

A process apiece, so that no two share a thread pool or a BLAS, and each is pinned before it loads anything.
It performs one run for every line it reads and answers with the seconds, so that runs can be interleaved.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from kbdfl.model import CifgConfig

STEPS, BATCH, WORDS = 8, 16, 20  # a client update: 8 SGD steps of 16 messages with 20 words
LEARNING_RATE = 0.5
PEERS = ("numpy", "torch", "jax")
SGEMM_SIZE, SGEMM_REPEATS = 1024, 8  # about as long as a client update, so that the clock speed is alike

Update = Callable[[], Any]  # performs one client update, returns the delta: an array, or arrays by name


def tokens(vocab: int, seed: int) -> "np.ndarray":
    """What the client typed: int64 (K, B, T + 1), words by Zipf's law; the first of each message is <bos>."""
    import numpy as np

    from kbdfl.rng import stream
    from kbdfl.text import BOS, SPECIALS

    zipf = 1 / (np.arange(vocab - len(SPECIALS)) + 2.7)
    words = stream(seed, "bench").choice(len(zipf), (STEPS, BATCH, WORDS + 1), p=zipf / zipf.sum())
    words += len(SPECIALS)
    words[:, :, 0] = BOS
    return words


def client_update(name: str, *, preset: str, seed: int) -> Update:
    """The client update as `name` (kbdfl, kbdfl_S for S candidates, or one of PEERS) performs it.

    Raises ImportError where what a peer stands on is not installed.
    """
    from kbdfl.cli.bench.race import peer_module
    from kbdfl.model import init_params
    from kbdfl.model import preset as model_preset

    config = model_preset(preset)
    params, typed = init_params(config, seed=seed), tokens(config.vocab, seed)
    if name in PEERS:
        return peer_module(f"client_{name}").make(config.spec.views(params), typed, LEARNING_RATE)
    if name == "kbdfl":
        return _exact(config, params, typed)
    return _sampled(config, params, typed, candidates=int(name.removeprefix("kbdfl_")))


def _exact(config: "CifgConfig", params: "np.ndarray", typed: "np.ndarray") -> Update:
    from kbdfl.kernels.train import Workspace, local_sgd
    from kbdfl.text import EOS, pack

    batches = pack([[[*message.tolist(), EOS] for message in batch] for batch in typed])
    workspace = Workspace()
    return lambda: local_sgd(
        params, **config.dims, **batches.arrays, learning_rate=LEARNING_RATE, workspace=workspace
    )[0]


def _sampled(config: "CifgConfig", params: "np.ndarray", typed: "np.ndarray", *, candidates: int) -> Update:
    """Softmax over `candidates` words: their rows are taken out and trained as a smaller model.

    The messages are renumbered to words among them, so that every word is learned and none is skipped.
    """
    import numpy as np

    from kbdfl.model import CifgConfig
    from kbdfl.text import SPECIALS

    small = CifgConfig(candidates, config.embed, config.hidden)
    renumbered = np.where(typed < candidates, typed, typed % (candidates - len(SPECIALS)) + len(SPECIALS))
    rows = np.arange(candidates)
    whole, flat = config.spec.views(params), np.empty(small.spec.size, np.float32)
    views, train = small.spec.views(flat), _exact(small, flat, renumbered)

    def update() -> Any:
        for name, view in views.items():
            view[:] = whole[name][rows] if name in ("emb", "bias") else whole[name]
        return train()

    return update


def sgemm() -> Update:
    """SGEMM_REPEATS products of float32 matrices, the rate this core can reach."""
    import numpy as np

    from kbdfl.rng import stream

    a, b = stream(0, "sgemm").standard_normal((2, SGEMM_SIZE, SGEMM_SIZE), np.float32)
    out = np.empty_like(a)

    def multiply() -> Any:
        for _ in range(SGEMM_REPEATS):
            np.matmul(a, b, out=out)
        return out

    return multiply


def norm(delta: Any) -> float:
    """L2 norm of a delta: an array, or a dict of them."""
    import numpy as np

    arrays = delta.values() if isinstance(delta, dict) else [delta]
    return float(np.sqrt(sum(np.linalg.norm(np.asarray(array).astype(np.float64)) ** 2 for array in arrays)))


def main(name: str, preset: str, seed: str, cores: str) -> None:
    """Be `name` on the processors `cores` ("0,1"), a thread on each, until standard input ends.

    Says {"norm": of one update's delta} when ready, or {"missing": why} and ends. Then, for every line that
    comes in: one run, and {"seconds": it took} goes out.
    """
    pinned = [int(core) for core in cores.split(",")]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, pinned)

    def say(**answer: Any) -> None:
        print(json.dumps(answer), flush=True)

    try:
        updates = [
            sgemm() if name == "sgemm" else client_update(name, preset=preset, seed=int(seed)) for _ in pinned
        ]
    except ImportError as error:
        say(missing=str(error))
        return
    deltas = [update() for update in updates]  # warms up; JAX compiles
    say(norm=norm(deltas[0]))
    with ThreadPoolExecutor(len(updates)) as pool:
        for _ in sys.stdin:
            started = time.perf_counter()
            for future in [pool.submit(update) for update in updates]:
                future.result()
            say(seconds=time.perf_counter() - started)
