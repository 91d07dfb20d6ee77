"""What a report costs on one core, by chain: python benchmarks/chains.py [--preset gboard] [--json]

A phone trains once on made-up messages with a softmax over 1,000 candidates, as in `kbdfl experiment bandwidth`. Its
update is then written, framed, read and added to a sum by every chain in turn, lap after lap; medians in milliseconds.
"""

import argparse
import json
import statistics
import time
from itertools import pairwise

import numpy as np

from kbdfl.algorithms import Algorithm, ClientRule
from kbdfl.codec import UPLOADS, upload_chain
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim.experiments.bandwidth import CHAINS
from kbdfl.device_sim.runtime import prepare, train
from kbdfl.kernels.train import Workspace
from kbdfl.model import init_params, preset
from kbdfl.rng import stream
from kbdfl.rounds import MemoryStore
from kbdfl.task import RoundRule, Task
from kbdfl.transform import Draws, accumulate_chain, decode_chain, encode_chain
from kbdfl.wire import decode_report, encode_report
from kbdfl.wire.messages import REPORT_FIELDS

NORM = 3.0
MESSAGES, WORDS = 200, 12
LIMIT = 1 << 26


def update_of(config) -> tuple[np.ndarray, dict]:
    """A phone's delta float32 (P,) and what its report says besides."""
    task = Task(
        name="chains",
        config=config,
        algorithm=Algorithm(client=ClientRule(candidates=1_000), upload="float32"),
        rule=RoundRule(cohort=1, over_selection=1.0),
        vocabulary_sha256="ab" * 32,
        seed=1,
    )
    params = init_params(config, seed=1)
    coordinator = Coordinator(task, params, store=MemoryStore(), random=np.random.default_rng(1))
    assignment = coordinator.check_in("phone", 0.0)
    random = stream(1, "chains")
    # Words as people use them: the frequency falls with the rank.
    rows = 4 + np.minimum(random.zipf(1.3, (MESSAGES, WORDS)), config.vocab - 4) - 1
    sentences = [[2, *row.tolist(), 3] for row in rows]
    frame = train(assignment, params, prepare(assignment, sentences), device="phone", workspace=Workspace())
    report = decode_report(frame, max_bytes=LIMIT)
    delta = decode_chain(upload_chain("float32"), report.update, config.spec.size, assignment.draws)
    return delta, {name: getattr(report, name) for name in REPORT_FIELDS if name != "upload"}


def measure(delta: np.ndarray, fields: dict, laps: int) -> list[dict]:
    """A row a chain."""
    uploads = list(dict.fromkeys([*UPLOADS, *(UPLOADS.get(c.upload, c.upload) for c in CHAINS.values())]))
    uploads = [upload for upload in uploads if upload in UPLOADS or upload not in UPLOADS.values()]
    times: dict[str, list[list[float]]] = {upload: [] for upload in uploads}
    total, sizes = np.zeros(len(delta)), {}
    for lap in range(laps):
        for upload in uploads:
            chain, draws = upload_chain(upload, NORM), Draws(lap, lap)
            at = [time.perf_counter()]
            update = encode_chain(chain, delta, draws)
            at.append(time.perf_counter())
            frame = encode_report(update, upload=upload, **fields)
            at.append(time.perf_counter())
            report = decode_report(frame, max_bytes=LIMIT)
            at.append(time.perf_counter())
            accumulate_chain(chain, report.update, draws, weight=0.1, acc=total)
            at.append(time.perf_counter())
            times[upload].append([1e3 * (b - a) for a, b in pairwise(at)])
            sizes[upload] = len(frame)
    rows = []
    for upload in uploads:
        written, framed, read, added = (statistics.median(each) for each in zip(*times[upload], strict=True))
        rows.append(
            {"chain": upload, "bytes": sizes[upload], "ratio": round(4 * len(delta) / sizes[upload], 1),
             "encode_ms": round(written + framed, 2), "of_it_zstd_ms": round(framed, 2),
             "decode_accumulate_ms": round(read + added, 2), "of_it_unzstd_ms": round(read, 2)}
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="gboard")
    parser.add_argument("--laps", type=int, default=25)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(*update_of(preset(options.preset)), options.laps)
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{'chain':44} {'bytes':>9} {'ratio':>7} {'encode':>8} {'zstd':>7} {'decode':>8} {'unzstd':>7}")
    for row in rows:
        print(
            f"{row['chain']:44} {row['bytes']:9,} {row['ratio']:6.1f}x {row['encode_ms']:8.2f} "
            f"{row['of_it_zstd_ms']:7.2f} {row['decode_accumulate_ms']:8.2f} {row['of_it_unzstd_ms']:7.2f}"
        )


if __name__ == "__main__":
    main()
