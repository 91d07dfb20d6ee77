"""What a server takes to refuse a bad report, by reason: python benchmarks/refusals.py [--json]

For each the longest of 20 times in milliseconds, and the most memory that was taken meanwhile: of Python's and
numpy's own (tracemalloc), and what the process grew by, which counts a decompressor's too.
"""

import argparse
import json
import resource
import struct
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import replace

import msgpack
import numpy as np

from kbdfl.algorithms import Algorithm, FedAvg
from kbdfl.assignment import Assignment
from kbdfl.codec import upload_chain
from kbdfl.coordinator import Coordinator
from kbdfl.errors import KbdflError
from kbdfl.model import CifgConfig, init_params, preset
from kbdfl.rounds import MemoryStore
from kbdfl.task import RoundRule, Task
from kbdfl.transform import encode_chain
from kbdfl.wire import decode_report, encode_report
from kbdfl.wire.frame import ZSTD, padding_after, zstd
from kbdfl.wire.messages import REPORT_FIELDS

DEVICE = "phone"
REPEATS = 20
NOTHING = b"\0" * 1_000_000


def coordinate(config: CifgConfig, upload: str) -> tuple[Coordinator, Assignment]:
    """A coordinator that waits for one report of DEVICE in this form, and its assignment."""
    task = Task(
        name="refusals",
        config=config,
        algorithm=Algorithm(server=FedAvg(), upload=upload, update_clip_norm=100.0),
        rule=RoundRule(cohort=2, over_selection=1.0, min_reports=1),
        vocabulary_sha256="ab" * 32,
        seed=1,
    )
    coordinator = Coordinator(
        task, init_params(config, seed=1), store=MemoryStore(), random=np.random.default_rng(1)
    )
    return coordinator, coordinator.check_in(DEVICE, 0.0)


def honest(assignment: Assignment, **changes: object) -> bytes:
    """A report of some noise, honest but for `changes`."""
    delta = 0.001 * np.random.default_rng(5).standard_normal(assignment.coordinates.model.spec.size)
    update = encode_chain(
        upload_chain(assignment.upload, assignment.update_clip_norm),
        delta.astype(np.float32),
        assignment.draws,
    )
    fields = {
        "task": assignment.task,
        "round": assignment.round,
        "device": DEVICE,
        "model_sha256": assignment.model_sha256,
        "spec_hash": assignment.spec,
        "upload": assignment.upload,
        "examples": 3,
        "tokens": 10,
        "train_loss": 2.0,
    }
    return encode_report(update, **(fields | changes))


def reports(config: CifgConfig) -> Iterator[tuple[str, str, bytes]]:
    """(what is wrong, upload, frame) of every bad report."""
    _, float32 = coordinate(config, "float32")
    frame = honest(float32)
    yield "a bomb that says its gigabyte", "float32", bomb(says=1 << 30, is_=1 << 30)
    most = 4 * config.spec.size
    yield "a bomb that says little", "float32", bomb(says=most, is_=1 << 30)
    yield "a bomb that says a byte less", "float32", bomb(says=most - 1, is_=most)
    yield "half a frame", "float32", frame[: len(frame) // 2]
    yield "an empty body", "float32", b""
    yield "a byte after the end", "float32", frame + b"\0"
    yield "a byte that flipped", "float32", frame[:-9] + bytes([frame[-9] ^ 1]) + frame[-8:]
    yield "a header of 4 GB", "float32", resealed(frame[:8] + struct.pack("<I", 2**32 - 1) + frame[12:])
    yield "another model's layout", "float32", honest(float32, spec_hash="f" * 16)
    yield "another round's model", "float32", honest(float32, model_sha256="e" * 64)
    yield "a value too few", "float32", rebuilt(frame, values=lambda values: values[:-1])
    for name, bad in (("a NaN", np.nan), ("an infinity", np.inf), ("a huge value", 1e38)):
        yield name, "float32", rebuilt(frame, values=lambda values, bad=bad: put(values, bad))
    for upload in ("int8", "compact", "tiny-uplink", "drive"):
        _, assignment = coordinate(config, CHAINS.get(upload, upload))
        frame = honest(assignment)
        yield "a scale too few", upload, rebuilt(frame, scales=lambda scales: scales[:-1])
        for name, bad in (("NaN", np.nan), ("infinite", np.inf), ("negative", -1.0), ("huge", 1e30)):
            yield f"a scale that is {name}", upload, rebuilt(frame, scales=lambda s, bad=bad: put(s, bad))
    for upload, section in (("tiny-uplink", "places"), ("compact", "changes"), ("drive", "outlier_places")):
        _, assignment = coordinate(config, CHAINS.get(upload, upload))
        frame = honest(assignment)
        yield "places out of range", upload, rebuilt(frame, **{section: lambda p: np.full_like(p, 254)})
        yield "places that never end", upload, rebuilt(frame, **{section: lambda p: np.full_like(p, 255)})
        longest = {section: lambda _: np.zeros(most, np.uint8)}  # small on the wire, since zeros pack well
        yield "places without end", upload, rebuilt(frame, **longest)
        yield "a place too few", upload, rebuilt(frame, **{section: lambda places: places[:-1]})
    _, assignment = coordinate(config, "int8")
    yield "levels of -128", "int8", rebuilt(honest(assignment), levels=lambda v: put(v, -128))
    _, assignment = coordinate(config, "summable")
    yield "levels of -128", "summable", rebuilt(honest(assignment), levels=lambda v: put(v, 128))


CHAINS = {"drive": "nonzero+outliers:0.01+rotate+sample:0.6+sign"}


def put(array: np.ndarray, value: float) -> np.ndarray:
    """A copy with `value` near the end, where it is found last."""
    copy = array.copy()
    copy[-1] = value
    return copy


def rebuilt(frame: bytes, **changes: object) -> bytes:
    """The frame with sections made anew by functions of the old ones."""
    report = decode_report(frame, max_bytes=1 << 30)
    sections = {
        name: changes.get(name, lambda same: same)(array) for name, array in report.update.sections.items()
    }
    return encode_report(
        replace(report.update, sections=sections), **{name: getattr(report, name) for name in REPORT_FIELDS}
    )


def bomb(*, says: int, is_: int) -> bytes:
    """A frame whose body of `is_` zeros claims to have `says` bytes."""
    compressor = zstd.ZstdCompressor(level=1)
    chunks = [
        compressor.compress(NOTHING[: min(len(NOTHING), is_ - at)]) for at in range(0, is_, len(NOTHING))
    ]
    stored = b"".join(chunks) + compressor.flush()
    header = msgpack.packb({"fields": {}, "sections": [["values", "uint8", [says]]]})
    head = struct.pack("<4sBBBBIIII", b"KBF1", 1, 2, ZSTD, 0, len(header), len(stored), says, 0)
    return resealed(head + header + bytes(padding_after(len(header))) + stored)


def resealed(frame: bytes) -> bytes:
    """The frame with the checksum that fits it."""
    crc = zlib.crc32(frame[24:], zlib.crc32(frame[:20]))
    return frame[:20] + struct.pack("<I", crc) + frame[24:]


def refuse(coordinator: Coordinator, frame: bytes) -> str:
    """Why the report is refused. Raises AssertionError if it is not."""
    try:
        coordinator.report(DEVICE, frame, 1.0)
    except KbdflError as reason:
        return str(reason)
    raise AssertionError("a bad report was accepted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="gboard")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    config, rows = preset(options.preset), []
    for name, upload, frame in reports(config):
        coordinator, _ = coordinate(config, CHAINS.get(upload, upload))
        reason, times = refuse(coordinator, frame), []
        for _ in range(REPEATS):
            started = time.perf_counter()
            refuse(coordinator, frame)
            times.append(1e3 * (time.perf_counter() - started))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tracemalloc.start()
        refuse(coordinator, frame)
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        grew = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        rows.append(
            {"what": name, "upload": upload, "ms": round(max(times), 2), "mb": round(traced / 1e6, 2),
             "grew_mb": round(grew / 1e3, 2), "reason": reason}
        )  # fmt: skip
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['upload']:12} {row['what']:30} {row['ms']:8.2f} ms {row['mb']:7.2f} MB  {row['reason'][:90]}"
        )


if __name__ == "__main__":
    main()
