"""The wire format as a whole, held against a second decoder that was written from docs/wire-format.md alone.

KBDFL_FRAMES=1000000 (`make frames`) tries as many frames, and five times as many mutated ones.
"""

import importlib.util
import os
import struct
import zlib
from pathlib import Path

import msgpack
import numpy as np
import pytest

from kbdfl.algorithms.coordinates import Coordinates
from kbdfl.algorithms.download import Download
from kbdfl.algorithms.words import draw_words
from kbdfl.codec import UPLOADS, upload_chain
from kbdfl.codec.grid import Grid
from kbdfl.downlink import Downlink, Held, read_part, read_whole
from kbdfl.errors import TooLarge, WireError
from kbdfl.model import CifgConfig
from kbdfl.rng import stream
from kbdfl.transform import Draws, decode_chain, encode_chain
from kbdfl.wire import decode_model, decode_report, encode_report
from kbdfl.wire.frame import zstd

HERE = Path(__file__).parent
FRAMES = int(os.environ.get("KBDFL_FRAMES", "2000"))
CLIP_NORM = 4.0
LIMIT = 1 << 20
BEFORE = ("nonzero", "topk", "outliers", "sample", "shared", "rotate", "rotate-shared")
LAST = ("float32", "int8", "int4", "int2", "sign", "fixed")
FRACTIONS = (0.01, 0.035, 0.125, 0.3, 0.5, 0.9, 1.0)


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


second = load(HERE / "second_decoder.py")
make_frames = load(HERE / "golden" / "make_frames.py")
target = load(HERE / "fuzz" / "target.py")


# what both make of a frame


def ours(data, *, upload, size, draws):
    """(fields, update, change of a control variate or None), or None if the frame is refused."""
    try:
        report = decode_report(data, max_bytes=LIMIT)
        if report.upload != upload:
            return None
        chain = upload_chain(upload, CLIP_NORM)
        update = decode_chain(chain, report.update, size, draws)
        change = None
        if report.control is not None:
            change = decode_chain(chain, report.control, size, control_draws(draws))
    except (WireError, TooLarge):
        return None
    fields = {name: getattr(report, name) for name in FIELDS}
    return fields, update, change


def control_draws(draws):
    return Draws(second.seed_of(draws.report, "control"), second.seed_of(draws.round, "control"))


def theirs(data, *, upload, size, draws):
    """The same by the second decoder."""
    try:
        fields, sections, control = second.read_report(data, LIMIT)
        if fields["upload"] != upload:
            return None
        seeds = {"seed": draws.report, "round_seed": draws.round, "clip_norm": CLIP_NORM}
        update = second.read_update(upload, sections, size, **seeds)
        change = None
        if control is not None:
            change = second.read_update(upload, control, size, **seeds, control=True)
    except second.Refused:
        return None
    return {name: fields[name] for name in FIELDS}, update, change


def assert_same(data, **task):
    """Whether the frame is accepted, by both alike."""
    mine, other = ours(data, **task), theirs(data, **task)
    assert (mine is None) == (other is None), (task, data.hex())
    if mine is None:
        return False
    assert mine[0] == other[0]
    for vector, values in zip(mine[1:], other[1:], strict=True):
        assert (vector is None) == (values is None)
        if vector is not None:
            np.testing.assert_array_equal(vector, np.array(values, np.float32), err_msg=str(task))
    return True


# frames


FIELDS = (
    "task",
    "round",
    "device",
    "model_sha256",
    "spec_hash",
    "upload",
    "examples",
    "tokens",
    "train_loss",
)


def draw_vector(random):
    """Some float32 vector: short or several blocks long, dense or full of zeros, of any size."""
    size = int(
        random.choice(
            [random.integers(1, 40), random.integers(1, 700), 4096, 9000], p=[0.6, 0.38, 0.01, 0.01]
        )
    )
    vector = random.standard_normal(size, np.float32) * np.float32(10.0 ** random.integers(-9, 4))
    if random.random() < 0.4:
        vector[random.random(size) < random.choice([0.3, 0.9, 0.999])] = 0
    return vector


def draw_chain(random):
    if random.random() < 0.3:
        return str(random.choice(list(UPLOADS)))
    steps = [str(step) for step in random.permutation(BEFORE)[: random.integers(0, 4)]]
    steps = [f"{s}:{random.choice(FRACTIONS)}" if s in second._WITH_FRACTION else s for s in steps]
    return "+".join([*steps, str(random.choice(LAST))])


def draw_report(random):
    """A frame with what is needed to read it."""
    vector, upload = draw_vector(random), draw_chain(random)
    draws = Draws(int(random.integers(2**64, dtype=np.uint64)), int(random.integers(2**64, dtype=np.uint64)))
    chain, more = upload_chain(upload, CLIP_NORM), {}
    if random.random() < 0.1:
        change = encode_chain(chain, vector[::-1].copy(), control_draws(draws))
        more = {"control": change, "first_control": bool(random.random() < 0.5)}
    frame = encode_report(
        encode_chain(chain, vector, draws),
        task="täglich",
        round=int(random.integers(2**53)),
        device=f"{random.integers(2**63):016x}",
        model_sha256="c0ffee00" * 8,
        spec_hash="feedbeef" * 2,
        upload=upload,
        examples=int(random.integers(1, 300)),
        tokens=int(random.integers(0, 10**6)),
        train_loss=float(random.random() * 9),
        **more,
    )
    return frame, {"upload": upload, "size": len(vector), "draws": draws}


def sealed(head, header, body):
    """A frame of these bytes with lengths and a checksum that fit, but for what `head` says otherwise."""
    stored = zstd.compress(body, level=1) if head.get("flags", 0) & 1 else body
    start = struct.pack(
        "<4sBBBBIII",
        head.get("magic", b"KBF1"),
        head.get("format", 1),
        head.get("kind", 2),
        head.get("flags", 0),
        head.get("zero", 0),
        head.get("header", len(header)),
        head.get("stored", len(stored)),
        head.get("raw", len(body)),
    )
    rest = header + bytes(-(24 + len(header)) % 8) + stored
    return start + struct.pack("<I", zlib.crc32(start + rest)) + rest


ODD = (None, True, -1, 0, 1, 2**53, 2**64 - 1, 0.5, 1e400, -0.0, "", "x", "int8", "ab" * 32, "\n", [], {})


def mutate(frame, random):
    """The frame with something done to it, mostly with a checksum that fits."""
    how = random.integers(8)
    if how == 0:
        return flipped(frame, random)
    if how == 1:
        cut = bytearray(
            frame[: random.integers(len(frame))] if random.random() < 0.5 else frame + random.bytes(3)
        )
        return resealed(cut)
    if how == 2:
        return resealed(flipped(frame, random))
    content, body = opened(frame)
    head = {"flags": frame[6]}
    if how == 3:
        name = str(random.choice(list(content["fields"])))
        content["fields"][name] = ODD[random.integers(len(ODD))]
        if random.random() < 0.2:
            content["fields"][name + "2"] = content["fields"].pop(name)
    elif how == 4 and content["sections"]:
        section = content["sections"][random.integers(len(content["sections"]))]
        shape = [int(n) for n in random.integers(0, 9, random.integers(0, 3))]
        if random.random() < 0.2:
            shape = [0, *[2**32 - 1] * 3]  # nothing, but wider than any array may be
        place = random.integers(3)
        section[place] = [str(random.choice(["values", "scales", "control.levels", "x"])),
                          str(random.choice(["int8", "uint8", "int32", "float32", "float16", "float64"])),
                          shape][place]  # fmt: skip
    elif how == 5:
        key = str(random.choice(["magic", "format", "kind", "flags", "zero", "header", "stored", "raw"]))
        head[key] = b"KBF2" if key == "magic" else int(random.choice([0, 1, 2, 3, 255])) if key in (
            "format", "kind", "flags", "zero") else int(random.integers(2 * len(frame)))  # fmt: skip
    elif len(body):
        body = bytearray(body)
        at, value = random.integers(len(body)), random.choice([0, 1, 0x7F, 0x80, 0xFF])
        body[at : at + int(random.choice([1, 4, 64]))] = bytes([value]) * min(
            int(random.choice([1, 4, 64])), len(body) - at
        )
        if len(body) % 4:
            body = body[: len(body) // 4 * 4] if random.random() < 0.1 else body
    return sealed(head, msgpack.packb(content), bytes(body))


def flipped(frame, random):
    frame = bytearray(frame)
    for _ in range(random.integers(1, 4)):
        frame[random.integers(len(frame))] ^= 1 << random.integers(8)
    return bytes(frame)


def resealed(frame):
    frame = bytearray(frame)
    if len(frame) >= 24:
        frame[20:24] = struct.pack("<I", zlib.crc32(bytes(frame[24:]), zlib.crc32(bytes(frame[:20]))))
    return bytes(frame)


def opened(frame):
    """(header, raw body) of a frame that is whole."""
    header_bytes = struct.unpack_from("<I", frame, 8)[0]
    at = 24 + header_bytes + -(24 + header_bytes) % 8
    body = zstd.decompress(frame[at:]) if frame[6] & 1 else frame[at:]
    return msgpack.unpackb(frame[24 : 24 + header_bytes]), body


# what must hold


@pytest.mark.parametrize("name", make_frames.CHAINS)
def test_both_read_a_golden_report_alike(name, monkeypatch):
    monkeypatch.setitem(globals(), "CLIP_NORM", make_frames.NORM)
    data = (HERE / "golden" / f"report_{name}.bin").read_bytes()
    task = {"upload": make_frames.CHAINS[name], "size": make_frames.SIZE, "draws": make_frames.DRAWS}
    assert assert_same(data, **task)


def test_both_read_the_golden_models_alike():
    read = {path.name: path.read_bytes() for path in (HERE / "golden").glob("model*.bin")}
    fields, params = second.read_model(read["model.bin"], LIMIT)
    mine, version, spec_hash = decode_model(read["model.bin"], max_bytes=LIMIT)
    np.testing.assert_array_equal(mine, np.array(params, np.float32))
    assert fields == {"version": version, "spec_hash": spec_hash}
    size = make_frames.CONFIG.spec.size
    whole = second.read_grid(read["model_grid.bin"], LIMIT, size)
    now = read_whole(read["model_grid.bin"], size=size, held=None, max_bytes=LIMIT)
    assert_same_grid(now, whole)


def assert_same_grid(held, other):
    version, levels, exponents = other
    assert held.version == version
    np.testing.assert_array_equal(held.grid.levels, levels)
    np.testing.assert_array_equal(held.grid.exponents, exponents)
    np.testing.assert_array_equal(
        held.grid.values, np.array(second.grid_values(levels, exponents), np.float32)
    )


def test_both_read_any_report_alike():
    accepted = sum(
        assert_same(frame, **task)
        for frame, task in (draw_report(stream(number, "frames")) for number in range(FRAMES))
    )
    assert accepted == FRAMES


def test_both_refuse_a_mutated_report_or_read_it_alike():
    accepted = 0
    for number in range(FRAMES):
        random = stream(number, "mutated frames")
        frame, task = draw_report(random)
        for _ in range(5):
            accepted += assert_same(mutate(frame, random), **task)
    assert 0 < accepted < 2.5 * FRAMES  # a level may become another level; most of what is changed is refused


@pytest.mark.parametrize("number", range(max(20, FRAMES // 100)))
def test_both_follow_a_model_through_its_versions_alike(number):
    random = stream(number, "versions")
    config = CifgConfig(*(int(n) for n in random.integers([6, 1, 1], [40, 9, 9])))
    size = config.spec.size
    downlink = Downlink(Download("grid", steps=float(random.choice([0.25, 1, 4, 32]))), config.spec)
    params, held = random.standard_normal(size, np.float32), None
    for version in range(1, 6):
        # Sometimes by so much that steps change.
        params = params + random.standard_normal(size, np.float32) * np.float32(
            random.choice([0.01, 0.3, 3, 30])
        )
        published = downlink.publish(version, params)
        whole = downlink.frame(version)
        mine = read_whole(whole, size=size, held=None, max_bytes=LIMIT)
        np.testing.assert_array_equal(mine.grid.values, published)
        assert_same_grid(mine, second.read_grid(whole, LIMIT, size))
        if held is not None:
            frame = downlink.frame(version, held=version - 1)
            assert_same_grid(read_whole(frame, size=size, held=held, max_bytes=LIMIT),
                             second.read_grid(frame, LIMIT, size, held=triple(held)))  # fmt: skip
            for _ in range(5):
                broken = mutate(frame, random)
                mine_broken = attempt(read_whole, broken, size=size, held=held, max_bytes=LIMIT)
                other = attempt(second.read_grid, broken, LIMIT, size, held=triple(held))
                assert (mine_broken is None) == (other is None), broken.hex()
                if other is not None:
                    assert_same_grid(mine_broken, other)
        held = mine
    coordinates = Coordinates(
        config, draw_words(config.vocab, count=int(random.integers(1, config.vocab)), seed=number)
    )
    frame = downlink.part(coordinates)
    values, version = read_part(frame, coordinates, max_bytes=LIMIT)
    places = coordinates.take(np.arange(size)).tolist()
    read_version, levels, exponents = second.read_grid(frame, LIMIT, len(places), blocks=-(-size // 256))
    assert version == read_version
    np.testing.assert_array_equal(values, np.array(second.grid_values(levels, exponents, places), np.float32))


def triple(held: Held):
    grid: Grid = held.grid
    return held.version, grid.levels.tolist(), grid.exponents.tolist()


def attempt(read, *arguments, **options):
    try:
        return read(*arguments, **options)
    except (WireError, TooLarge, second.Refused):
        return None


@pytest.mark.parametrize(
    "path", sorted((HERE / "fuzz" / "corpus").iterdir()), ids=lambda path: path.name[:12]
)
def test_the_fuzzers_corpus_is_read_or_refused(path):
    target.one(path.read_bytes())


def test_the_second_decoder_knows_nothing_of_the_first():
    text = (HERE / "second_decoder.py").read_text("utf-8")
    assert "kbdfl" not in text
    assert "numpy" not in text


def test_the_page_says_what_every_step_and_name_is():
    page = (HERE.parent / "docs" / "wire-format.md").read_text("utf-8")
    for step in (*BEFORE, *LAST):
        assert f"**`{step}`**" in page
    for name, written in UPLOADS.items():
        assert f"| `{name}` | `{written}` |" in page


def test_seeds_are_those_of_the_page():
    """Its own numbers, so that neither side can drift with the other."""
    draws = Draws(5, 6).of("topk")
    assert draws.report == second.seed_of(5, "transform", "topk")
    assert draws.round == second.seed_of(6, "transform", "topk")
    assert second.splitmix(0, 0) == 0xE220A8397B1DCDAF  # SplitMix64's published first output for seed 0
