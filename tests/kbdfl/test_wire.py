import importlib.util
import struct
import zlib
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.codec import UPLOADS, upload_chain
from kbdfl.errors import TooLarge, WireError
from kbdfl.transform import Draws, Update, decode_chain, encode_chain
from kbdfl.wire import (
    MODEL,
    REPORT,
    decode_frame,
    decode_model,
    decode_report,
    encode_frame,
    encode_model,
    encode_report,
)
from kbdfl.wire.frame import DTYPES, PREFIX, ZSTD, zstd

GOLDEN = Path(__file__).parents[1] / "golden"
LIMIT = 1 << 20
FIELDS = {
    "task": "demo",
    "round": 2,
    "device": "0123456789abcdef",
    "model_sha256": "ab" * 32,
    "spec_hash": "cd" * 8,
    "upload": "int8",
    "examples": 3,
    "tokens": 40,
    "train_loss": 6.5,
}


def build(header, body=b"", *, flags=0, version=1, kind=REPORT, zero=0, raw=None, padding=None, crc=None):
    """A frame with whatever is asked for, and a checksum that fits it unless `crc` says otherwise."""
    header = header if isinstance(header, bytes) else msgpack.packb(header)
    padding = bytes(-(24 + len(header)) % 8) if padding is None else padding
    raw = len(body) if raw is None else raw
    start = struct.pack("<4sBBBBIII", b"KBF1", version, kind, flags, zero, len(header), len(body), raw)
    rest = header + padding + body
    crc = zlib.crc32(start + rest) if crc is None else crc
    return start + struct.pack("<I", crc) + rest


def wide_window(content):
    """A zstd frame of one raw block whose window is 2 KiB, which a one-shot decoder does not notice."""
    block = (len(content) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\x00" + bytes([1 << 3]) + block + content


def read(data, *, kind=REPORT, max_bytes=LIMIT):
    return decode_frame(data, kind=kind, max_bytes=max_bytes)


@st.composite
def arrays(draw):
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(st.lists(st.integers(0, 7), max_size=3))
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype).reshape(shape)


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
)


@given(
    fields=st.dictionaries(st.text(max_size=9), PLAIN, max_size=6),
    sections=st.dictionaries(st.text(max_size=9), arrays(), max_size=5),
    compress=st.booleans(),
)
def test_a_frame_reads_back_as_it_was_written(fields, sections, compress):
    data = encode_frame(REPORT, fields, sections, compress=compress)
    frame = read(data)
    assert (frame.kind, frame.fields) == (REPORT, fields)
    assert list(frame.sections) == list(sections)
    for name, array in sections.items():
        got = frame.sections[name]
        assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert got.flags.aligned
        assert not got.flags.writeable


def test_sections_of_a_plain_frame_are_views_of_its_bytes():
    data = encode_model(np.arange(1000, dtype=np.float32), version=1, spec_hash="ab" * 8)
    params, _, _ = decode_model(data, max_bytes=LIMIT)
    assert np.shares_memory(params, np.frombuffer(data, np.uint8))


def test_a_body_that_repeats_is_stored_compressed_and_noise_is_not():
    zeros = encode_frame(REPORT, {}, {"x": np.zeros(10_000, np.int8)}, compress=True)
    noise = np.random.default_rng(0).integers(-128, 128, 10_000).astype(np.int8)
    assert len(zeros) < 200
    assert zeros[6] == ZSTD
    assert encode_frame(REPORT, {}, {"x": noise}, compress=True)[6] == 0


@pytest.mark.parametrize("compress", [False, True])
def test_every_truncated_frame_is_refused(compress):
    data = encode_frame(REPORT, {"a": 1}, {"x": np.zeros(100, np.float32)}, compress=compress)
    assert data[6] == compress
    for length in range(len(data)):
        with pytest.raises(WireError):
            read(data[:length])
    with pytest.raises(WireError, match="the frame says"):
        read(data + b"\0")


@pytest.mark.parametrize("compress", [False, True])
def test_every_flipped_byte_is_refused(compress):
    data = encode_frame(REPORT, {"a": 1}, {"x": np.zeros(100, np.float32)}, compress=compress)
    for place in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            altered = bytearray(data)
            altered[place] ^= mask
            with pytest.raises((WireError, TooLarge)):
                read(bytes(altered))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_frame_raise_only_our_errors(data):
    for candidate in (data, b"KBF1\x01\x02\0\0" + data):
        with pytest.raises((WireError, TooLarge)):
            read(candidate)


@given(header=st.binary(max_size=80), body=st.binary(max_size=40), flags=st.integers(0, 1))
def test_any_header_under_a_right_checksum_raises_only_our_errors(header, body, flags):
    # 64 declared bytes that no body here has: never a frame, whatever the header says.
    with pytest.raises(WireError) as caught:
        read(build(header, body, flags=flags, raw=64))
    assert "\n" not in str(caught.value)


SECTION = ["x", "int8", [4]]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (build({"fields": {}, "sections": []}, version=2), "frame format must be 1, got 2"),
        (build({"fields": {}, "sections": []}, kind=MODEL), "a report frame is needed, got kind 1"),
        (build({"fields": {}, "sections": []}, flags=2), "unknown flags 0x02"),
        (build({"fields": {}, "sections": []}, zero=1), "unknown flags 0x00 0x01"),
        (build({"fields": {}, "sections": []}, crc=1), "checksum"),
        (build({"fields": {}, "sections": []}, padding=b"\0\1" + bytes(30)), "the frame says"),
        (build(b"\xc1"), "not msgpack"),
        (build(msgpack.packb({"fields": {}, "sections": []}) + b"\0"), "not msgpack"),
        (build([1, 2]), "a map of fields and sections"),
        (build({"fields": {}}), "a map of fields and sections"),
        (build({"fields": {"a": [1]}, "sections": []}), "plain values"),
        (build({"fields": {"a": {}}, "sections": []}), "plain values"),
        (build(b"\x82\xa6fields\x82\xa1a\x01\xa1a\x02\xa8sections\x90"), "a name stands twice"),
        (build({"fields": {}, "sections": [SECTION] * 65}), "at most 64"),
        (build({"fields": {}, "sections": [SECTION]}, b"1234" + b"5"), "take 4 bytes of a body of 5"),
        (build({"fields": {}, "sections": [SECTION]}, b"123"), "ends after the body"),
        (build({"fields": {}, "sections": [SECTION, SECTION]}, b"12345678"), "new name, known dtype"),
        (build({"fields": {}, "sections": [["x", "float64", [1]]]}, bytes(8)), "new name, known dtype"),
        (build({"fields": {}, "sections": [["x", "O", [1]]]}, bytes(8)), "new name, known dtype"),
        (build({"fields": {}, "sections": [["x", "int8"]]}), "new name, known dtype"),
        (build({"fields": {}, "sections": [["x", "int8", [-1]]]}), "lengths >= 0"),
        (build({"fields": {}, "sections": [["x", "int8", [True]]]}, b"1"), "lengths >= 0"),
        (build({"fields": {}, "sections": [["x", "int8", [2**32]]]}), "lengths >= 0"),
        (build({"fields": {}, "sections": [["x", "int8", [2**31] * 8]]}), "product below 2"),
        (build({"fields": {}, "sections": [["x", "int8", [0] + [2**31] * 3]]}), "product below 2"),
        (build({"fields": {}, "sections": [["x" * 9000, "int8", [7]]]}), "^section 'x{80}' ends"),
        (build({"fields": {}, "sections": [SECTION]}, b"1234", raw=5), "must be 5 bytes, got 4"),
        (build({"fields": {}, "sections": [SECTION]}, b"1234", flags=1), "not a zstd frame"),
        (build({"fields": {}, "sections": []}, zstd.compress(b"12345"), flags=1, raw=4), "exactly 4 bytes"),
        (build({"fields": {}, "sections": []}, zstd.compress(b"12345"), flags=1, raw=6), "exactly 6 bytes"),
        (
            build({"fields": {}, "sections": []}, zstd.compress(b"1234")[:-1], flags=1, raw=4),
            "exactly 4 bytes",
        ),
        (
            build({"fields": {}, "sections": []}, zstd.compress(b"1234") * 2, flags=1, raw=4),
            "exactly 4 bytes",
        ),
        (build({"fields": {}, "sections": []}, b"", flags=1, raw=0), "not a zstd frame"),
        (
            build({"fields": {}, "sections": []}, b"\x50\x2a\x4d\x18" + bytes(4), flags=1, raw=0),
            "not a zstd frame",  # a skippable one is
        ),
        (
            build({"fields": {}, "sections": []}, wide_window(b"1234"), flags=1, raw=4),
            "the window of a zstd frame must be at most 1024 bytes here",
        ),
    ],
)
def test_a_frame_that_deviates_is_refused_in_one_line(frame, message):
    with pytest.raises(WireError, match=message) as caught:
        read(frame)
    assert "\n" not in str(caught.value)


def test_padding_that_is_not_zero_is_refused():
    header = msgpack.packb({"fields": {}, "sections": []})
    need = -(24 + len(header)) % 8
    assert need > 0
    with pytest.raises(WireError, match="padding"):
        read(build(header, padding=b"\1" * need))


def test_sizes_are_refused_before_memory_is_taken():
    with pytest.raises(TooLarge, match="must be at most 100 bytes, got 101"):
        read(bytes(101), max_bytes=100)
    with pytest.raises(TooLarge, match="body must be at most"):
        read(build({"fields": {}, "sections": []}, b"", raw=2**32 - 1))
    with pytest.raises(TooLarge, match="header must be at most"):
        read(b"KBF1\x01\x02\0\0" + struct.pack("<IIII", 70_000, 0, 0, 0))


def test_a_decompression_bomb_costs_no_more_than_it_declared():
    bomb = zstd.compress(bytes(1 << 26), level=19)
    assert len(bomb) < 10_000
    header = {"fields": {}, "sections": [["x", "int8", [100]]]}
    with pytest.raises(WireError):
        read(build(header, bomb, flags=1, raw=100))
    with pytest.raises(TooLarge):
        read(build(header, bomb, flags=1, raw=1 << 26))
    wide = zstd.compress(bytes(100), options={zstd.CompressionParameter.content_size_flag: 0})
    assert read(build(header, wide, flags=1, raw=100)).sections["x"].shape == (100,)


def test_what_cannot_be_written_is_refused():
    with pytest.raises(WireError, match="float64"):
        encode_frame(REPORT, {}, {"x": np.zeros(3)}, compress=False)
    with pytest.raises(WireError, match="header must be at most"):
        encode_frame(REPORT, {"a": "x" * 70_000}, {}, compress=False)


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), max_size=50), st.integers(0, 2**40))
def test_a_model_reads_back_as_it_was_written(values, version):
    params = np.array(values, np.float32)
    data = encode_model(params, version=version, spec_hash="0123456789abcdef")
    got, got_version, spec_hash = decode_model(data, max_bytes=LIMIT)
    np.testing.assert_array_equal(got, params)
    assert (got_version, spec_hash) == (version, "0123456789abcdef")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"params": np.array([1, np.nan], np.float32)}, "finite"),
        ({"params": np.zeros((2, 2), np.float32)}, "one axis"),
        ({"params": np.zeros(2, np.int32)}, "one axis"),
        ({"other": np.zeros(2, np.float32)}, "one axis"),
        ({"params": np.zeros(2, np.float32), "more": np.zeros(2, np.float32)}, "one section"),
    ],
)
def test_a_model_frame_with_other_sections_is_refused(sections, message):
    data = encode_frame(MODEL, {"version": 1, "spec_hash": "ab" * 8}, sections, compress=False)
    with pytest.raises(WireError, match=message):
        decode_model(data, max_bytes=LIMIT)


@pytest.mark.parametrize("upload", sorted(UPLOADS))
@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 5000])
def test_a_report_reads_back_as_it_was_written(upload, size):
    delta = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    update = encode_chain(upload_chain(upload, 100.0), delta, Draws(4, 0))
    report = decode_report(encode_report(update, **FIELDS | {"upload": upload}), max_bytes=LIMIT)
    assert {name: getattr(report, name) for name in FIELDS} == FIELDS | {"upload": upload}
    np.testing.assert_array_equal(
        *(
            decode_chain(upload_chain(upload, 100.0), form, size, Draws(4, 0))
            for form in (report.update, update)
        )
    )


@pytest.mark.parametrize("first", [True, False])
def test_a_report_may_hold_the_change_of_a_control_variate(first):
    delta, change = np.random.default_rng(1).standard_normal((2, 300)).astype(np.float32)
    update, control = (encode_chain(upload_chain("int8"), vector, Draws(4, 0)) for vector in (delta, change))
    frame = encode_report(update, **FIELDS | {"upload": "int8"}, control=control, first_control=first)
    report = decode_report(frame, max_bytes=LIMIT)
    assert report.first_control is first
    for got, sent in ((report.update, update), (report.control, control)):
        read, meant = (decode_chain(upload_chain("int8"), form, 300, Draws(4, 0)) for form in (got, sent))
        np.testing.assert_array_equal(read, meant)


@pytest.mark.parametrize(
    ("fields", "sections", "message"),
    [
        ({"first_control": True}, {}, "both the field first_control and its sections"),
        ({}, {"control.values": np.zeros(2, np.float32)}, "both the field first_control and its sections"),
        ({"first_control": 1}, {"control.values": np.zeros(2, np.float32)}, "field first_control"),
    ],
)
def test_half_a_control_variate_is_refused(fields, sections, message):
    with pytest.raises(WireError, match=message):
        decode_report(encode_frame(REPORT, FIELDS | fields, sections, compress=False), max_bytes=LIMIT)


WRONG = [
    ("round", -1),
    ("round", 1.0),
    ("round", True),
    ("round", 2**53),
    ("examples", 0),
    ("examples", "3"),
    ("tokens", -1),
    ("train_loss", float("nan")),
    ("train_loss", float("inf")),
    ("train_loss", -0.5),
    ("train_loss", 3),
    ("train_loss", None),
    ("task", ""),
    ("task", "a\nb"),
    ("task", "x" * 129),
    ("device", 7),
    ("model_sha256", "AB" * 32),
    ("model_sha256", "ab" * 31),
    ("spec_hash", "zz" * 8),
    ("upload", None),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_report_with_a_field_out_of_range_is_refused(name, value):
    data = encode_frame(REPORT, FIELDS | {name: value}, {}, compress=False)
    with pytest.raises(WireError, match=f"field {name}") as caught:
        decode_report(data, max_bytes=LIMIT)
    assert "\n" not in str(caught.value)


def test_a_report_needs_exactly_its_fields():
    for fields in (FIELDS | {"more": 1}, {name: FIELDS[name] for name in list(FIELDS)[1:]}):
        with pytest.raises(WireError, match="must have the fields"):
            decode_report(encode_frame(REPORT, fields, {}, compress=False), max_bytes=LIMIT)


def test_a_report_with_a_loss_that_is_not_finite_cannot_be_written():
    with pytest.raises(WireError, match="train_loss"):
        encode_report(Update({}), **FIELDS | {"train_loss": float("nan")})


def make_frames():
    spec = importlib.util.spec_from_file_location("make_frames", GOLDEN / "make_frames.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("*.bin")))
def test_todays_encoder_writes_the_golden_frame(name):
    golden, today = (GOLDEN / name).read_bytes(), make_frames().frames()[name]
    if golden[6] & ZSTD:
        # Another zstd may find another way to say the same; what is said must be equal.
        kind, limit = golden[5], LIMIT
        old, new = (decode_frame(data, kind=kind, max_bytes=limit) for data in (golden, today))
        assert (old.fields, list(old.sections)) == (new.fields, list(new.sections))
        for section, array in old.sections.items():
            assert array.dtype == new.sections[section].dtype
            np.testing.assert_array_equal(array, new.sections[section])
        assert golden[:8] == today[:8]
    else:
        assert golden == today


def test_the_golden_frames_hold_the_values_they_were_made_of():
    made = make_frames()
    params, version, _ = decode_model((GOLDEN / "model.bin").read_bytes(), max_bytes=LIMIT)
    np.testing.assert_array_equal(params, made.vector())
    assert version == 3
    assert {path.name for path in GOLDEN.glob("*.bin")} == set(made.frames())
    for name, upload in made.CHAINS.items():
        report = decode_report((GOLDEN / f"report_{name}.bin").read_bytes(), max_bytes=LIMIT)
        assert {field: getattr(report, field) for field in made.FIELDS} == made.FIELDS
        assert report.upload == upload
        delta = decode_chain(upload_chain(upload, made.NORM), report.update, made.SIZE, made.DRAWS)
        if upload in ("float32", "int8"):
            step = 0 if upload == "float32" else np.abs(made.vector()).max() / 127
            assert np.abs(delta - made.vector()).max() <= step
        else:  # lossy, but no bit of what is read may change
            update = encode_chain(upload_chain(upload, made.NORM), made.vector(), made.DRAWS)
            np.testing.assert_array_equal(
                delta, decode_chain(upload_chain(upload, made.NORM), update, made.SIZE, made.DRAWS)
            )


def test_the_prefix_is_24_bytes():
    assert PREFIX.size == 24
