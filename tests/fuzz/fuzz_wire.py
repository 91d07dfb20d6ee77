"""Fuzz `target.one` with atheris: python tests/fuzz/fuzz_wire.py [libFuzzer options] CORPUS; see `make fuzz`.

The mutations know what a frame is: they change a section, a field or any byte, and mend lengths and checksum, which a
fuzzer would hardly ever get past.
"""

import random
import sys
import zlib
from pathlib import Path

import atheris
import msgpack
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(include=["kbdfl", "target"]):
    from target import SIZES, one

    from kbdfl.wire.frame import DTYPES, PREFIX, ZSTD, padding_after, zstd

CRC_AT = PREFIX.size - 4
LONGEST = 8192  # bytes of a section


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """`data` changed somewhere, at most `most` bytes."""
    changed = _changed(data, most, seed)
    return changed if len(changed) <= most else data


def _changed(data: bytes, most: int, seed: int) -> bytes:
    dice = random.Random(seed)
    if len(data) < 1 + PREFIX.size or dice.random() < 0.1:
        return atheris.Mutate(data, most)
    size, frame = data[:1], data[1:]
    try:
        head = list(PREFIX.unpack_from(frame))
        body_at = PREFIX.size + head[5] + padding_after(head[5])
        content, body = msgpack.unpackb(frame[PREFIX.size : PREFIX.size + head[5]]), frame[body_at:]
        if head[3] & ZSTD:
            body = zstd.decompress(body)
        fields, sections = dict(content["fields"]), content["sections"]
        parts = _parts(sections, body)
    except Exception:  # it is no frame any more
        return size + _mended(atheris.Mutate(frame, most - 1))
    what = dice.random()
    if what < 0.1:
        size = bytes([dice.randrange(len(SIZES))])
    elif what < 0.7 and parts:
        place = dice.randrange(len(parts))
        section = sections[place]
        width = DTYPES[section[1]].itemsize if section[1] in DTYPES else 1
        changed = atheris.Mutate(parts[place], LONGEST)
        parts[place] = changed[: len(changed) // width * width]
        section[2] = [len(parts[place]) // width]
    elif what < 0.9 and fields:
        name = dice.choice(list(fields))
        fields[name] = _other(fields[name], dice)
    else:
        return size + _mended(atheris.Mutate(frame, most - 1))
    header, body = msgpack.packb({"fields": fields, "sections": sections}), b"".join(parts)
    head[3], head[5], head[6], head[7] = 0, len(header), len(body), len(body)
    if dice.random() < 0.2:
        stored = zstd.compress(body, level=1)
        head[3], head[6], body = ZSTD, len(stored), stored
    return size + _mended(PREFIX.pack(*head) + header + bytes(padding_after(len(header))) + body)


def _parts(sections: list, body: bytes) -> list[bytes]:
    parts, at = [], 0
    for _, dtype, shape in sections:
        nbytes = int(np.prod(shape)) * DTYPES[dtype].itemsize
        parts.append(body[at : at + nbytes])
        at += nbytes
    return parts


def _other(value: object, dice: random.Random) -> object:
    if isinstance(value, str):
        return atheris.Mutate(value.encode(), 200).decode("utf-8", "replace")
    return dice.choice([None, True, -1, 0, 2, 4, 8, 2**53, 0.5, float("nan"), float("inf"), "x", [], {}])


def _mended(frame: bytes) -> bytes:
    """`frame` with the checksum that fits it."""
    if len(frame) < PREFIX.size:
        return frame
    crc = zlib.crc32(frame[PREFIX.size :], zlib.crc32(frame[:CRC_AT]))
    return frame[:CRC_AT] + crc.to_bytes(4, "little") + frame[PREFIX.size :]


if __name__ == "__main__":
    atheris.Setup(sys.argv, one, custom_mutator=mutate)
    atheris.Fuzz()
