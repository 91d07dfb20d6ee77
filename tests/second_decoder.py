"""A second reader of wire format 1, written from docs/wire-format.md alone."""

import math
import re
import struct
import zlib
from array import array
from hashlib import blake2b
from itertools import zip_longest

import msgpack

try:
    from compression import zstd
except ImportError:
    from backports import zstd

MODEL, REPORT = 1, 2

Section = tuple[str, list[int], list]
Sections = dict[str, Section]
Grid = tuple[int, list[int], list[int]]  # version, levels, exponents

_HEAD = struct.Struct("<4sBBBBIIII")
_DTYPES = {"int8": "b", "uint8": "B", "int32": "i", "float32": "f", "float16": "e"}
_MASK32, _MASK64 = 2**32 - 1, 2**64 - 1
_SCALAR = (str, int, float, bool, type(None))


class Refused(ValueError):
    """The bytes are not what the page allows."""


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise Refused(reason)


# ---- Frame ----


def read_frame(data: bytes, kind: int, max_bytes: int) -> tuple[dict, Sections]:
    """Return a frame's fields and its sections, each as dtype, shape and flat values."""
    _require(len(data) <= max_bytes, "the frame is over the limit")
    _require(len(data) >= _HEAD.size, "the frame is too short")
    magic, version, found, flags, zero, header_bytes, stored, raw, crc = _HEAD.unpack_from(data)
    _require(magic == b"KBF1" and version == 1, "not a frame of format 1")
    _require(found == kind, "the frame is of another kind")
    _require(flags in (0, 1) and zero == 0, "unknown flags")
    _require(header_bytes <= 65536 and raw <= max_bytes, "the header or body is over the limit")
    end = _HEAD.size + header_bytes
    start = end + -end % 8
    _require(start + stored == len(data), "bytes are left over or missing")
    _require(not any(data[end:start]), "the padding is not zero")
    _require(zlib.crc32(data[24:], zlib.crc32(data[:20])) == crc, "the checksum does not match")
    fields, layout = _read_header(bytes(data[24:end]))
    sizes = [math.prod(shape) * struct.calcsize("<" + _DTYPES[dtype]) for _, dtype, shape in layout]
    _require(sum(sizes) == raw, "the sections do not add up to the body")
    body = bytes(data[start:])
    if flags:
        body = _decompress(body, raw)
    _require(len(body) == raw, "the body has another size than declared")
    sections, offset = {}, 0
    for (name, dtype, shape), size in zip(layout, sizes, strict=True):
        values = struct.unpack_from(f"<{math.prod(shape)}{_DTYPES[dtype]}", body, offset)
        sections[name] = (dtype, shape, list(values))
        offset += size
    return fields, sections


def _unique(pairs: list[tuple]) -> dict:
    _require(len({key for key, _ in pairs}) == len(pairs), "a name stands twice")
    return dict(pairs)


def _read_header(header: bytes) -> tuple[dict, list]:
    try:
        parsed = msgpack.unpackb(header, object_pairs_hook=_unique)
    except Exception as error:  # msgpack's errors have no common base class
        raise Refused(f"the header is not msgpack: {error}") from None
    _require(type(parsed) is dict and parsed.keys() == {"fields", "sections"}, "not a header")
    fields, layout = parsed["fields"], parsed["sections"]
    _require(type(fields) is dict, "the fields are not a map")
    _require(
        all(type(key) is str and type(value) in _SCALAR for key, value in fields.items()),
        "a field of another type",
    )
    _require(type(layout) is list and len(layout) <= 64, "the sections are not a short list")
    for entry in layout:
        _require(type(entry) is list and len(entry) == 3, "a section is not a triple")
        name, dtype, shape = entry
        _require(type(name) is str, "a section's name is not a string")
        _require(type(dtype) is str and dtype in _DTYPES, "an unknown dtype")
        _require(type(shape) is list and len(shape) <= 8, "a shape is not a short list")
        _require(all(type(length) is int and 0 <= length < 2**32 for length in shape), "not a length")
        _require(math.prod(filter(None, shape)) < 2**32, "a shape is too large")
    _require(len({entry[0] for entry in layout}) == len(layout), "a section stands twice")
    return fields, layout


def _decompress(body: bytes, raw: int) -> bytes:
    _require(len(body) >= 6 and body[:4] == b"\x28\xb5\x2f\xfd", "the body is not a zstd frame")
    # libzstd does not check the window of a frame that it decodes in one go, so this is done here.
    # Without a window (single segment) it is the content, whose size must be that of the body.
    if not body[4] & 0x20:
        power = 1 << 10 + (body[5] >> 3)
        _require(power + power // 8 * (body[5] & 7) <= 1 << max(10, raw.bit_length()), "too wide a window")
    decompressor = zstd.ZstdDecompressor()
    try:
        # One byte more than declared, so that too long a body shows.
        result = decompressor.decompress(body, raw + 1)
    except (zstd.ZstdError, MemoryError) as error:
        raise Refused(f"the body does not decompress: {error}") from None
    _require(decompressor.eof and not decompressor.unused_data, "the body is not one zstd frame")
    return result


# ---- Fields and sections ----


def _is_integer(value: object, low: int = 0, high: int = 2**53 - 1) -> bool:
    return type(value) is int and low <= value <= high


def _is_hex(value: object, digits: int) -> bool:
    return type(value) is str and re.fullmatch(f"[0-9a-f]{{{digits}}}", value) is not None


def _is_text(value: object) -> bool:
    return type(value) is str and 1 <= len(value) <= 128 and value.isprintable()


_MODEL_FIELDS = {"version": _is_integer, "spec_hash": lambda value: _is_hex(value, 16)}
_GRID_FIELDS = _MODEL_FIELDS | {
    "base": lambda value: value is None or _is_integer(value),
    "bits": lambda value: type(value) is int and value in (2, 4, 8),
}
_REPORT_FIELDS = {
    "task": _is_text,
    "round": _is_integer,
    "device": _is_text,
    "model_sha256": lambda value: _is_hex(value, 64),
    "spec_hash": lambda value: _is_hex(value, 16),
    "upload": _is_text,
    "examples": lambda value: _is_integer(value, 1),
    "tokens": _is_integer,
    "train_loss": lambda value: type(value) is float and 0 <= value < math.inf,
}


def _check_fields(fields: dict, checks: dict) -> None:
    _require(fields.keys() == checks.keys(), "a field is missing or unknown")
    for name, check in checks.items():
        _require(check(fields[name]), f"the field {name} is out of range")


def _check_sections(sections: Sections, dtypes: dict[str, str]) -> None:
    _require(sections.keys() == dtypes.keys(), "a section is missing or unknown")
    for name, (dtype, shape, _) in sections.items():
        _require(dtype == dtypes[name] and len(shape) == 1, f"the section {name} has another form")


def _take(sections: Sections, name: str, length: int) -> list:
    values = sections[name][2]
    _require(len(values) == length, f"the section {name} has another length")
    return values


def _unpack(packed: list[int], count: int, bits: int) -> list[int]:
    """Read `count` unsigned numbers of `bits`, lowest bits first; the rest of the last byte is zero."""
    mask = 2**bits - 1
    numbers = [byte >> shift & mask for byte in packed for shift in range(0, 8, bits)]
    _require(not any(numbers[count:]), "what is left of the last byte is not zero")
    return numbers[:count]


def _signed(number: int, bits: int) -> int:
    """Read a number modulo 2^bits as two's complement."""
    half = 1 << bits - 1
    return (number + half) % (2 * half) - half


# ---- Model ----


def read_model(data: bytes, max_bytes: int) -> tuple[dict, list[float]]:
    """Return the fields and the parameters of a float32 model."""
    fields, sections = read_frame(data, MODEL, max_bytes)
    _check_fields(fields, _MODEL_FIELDS)
    _check_sections(sections, {"params": "float32"})
    params = sections["params"][2]
    _require(all(map(math.isfinite, params)), "a parameter is not finite")
    return fields, params


def read_grid(
    data: bytes, max_bytes: int, size: int, held: Grid | None = None, blocks: int | None = None
) -> Grid:
    """Return version, levels and exponents of a model of `size` parameters on the grid.

    A difference needs what is `held`; a part needs `blocks`, the number of the whole model's exponents.
    """
    fields, sections = read_frame(data, MODEL, max_bytes)
    _check_fields(fields, _GRID_FIELDS)
    _check_sections(sections, {"exponents": "int8", "packed": "uint8", "escapes": "int8"})
    base, bits = fields["base"], fields["bits"]
    count = -(-size // 256) if blocks is None else blocks
    exponents = _take(sections, "exponents", count)
    packed = _take(sections, "packed", -(-size * bits // 8))
    levels = [_signed(number, bits) for number in _unpack(packed, size, bits)]
    escaped = [i for i, level in enumerate(levels) if bits < 8 and level == -1 << bits - 1]
    for i, level in zip(escaped, _take(sections, "escapes", len(escaped)), strict=True):
        levels[i] = level
    if base is not None:
        _require(blocks is None, "a part is never a difference")
        _require(held is not None and held[0] == base, "the difference is from a version not held")
        _require((len(held[1]), len(held[2])) == (size, count), "what is held has another size")
        exponents = [_signed(a + b, 8) for a, b in zip(held[2], exponents, strict=True)]
        shifts = [old - new for old, new in zip(held[2], exponents, strict=True)]
        levels = [
            _signed(_shifted(old, shifts[i // 256]) + level, 8)
            for i, (old, level) in enumerate(zip(held[1], levels, strict=True))
        ]
    _require(all(-96 <= exponent <= 64 for exponent in exponents), "an exponent is out of range")
    _require(-128 not in levels, "a level is out of range")
    return fields["version"], levels, exponents


def _shifted(level: int, shift: int) -> int:
    # The quotient is exact in float64, and round() takes halves to even.
    moved = level << shift if shift >= 0 else round(level / (1 << -shift))
    return max(-127, min(127, moved))


def grid_values(levels: list[int], exponents: list[int], places: list[int] | None = None) -> list[float]:
    """Return the parameters; of a part, `places` are those of its parameters in the whole model."""
    if places is None:
        places = list(range(len(levels)))
    return [math.ldexp(level, exponents[j // 256]) for level, j in zip(levels, places, strict=True)]


# ---- Report ----


def read_report(data: bytes, max_bytes: int) -> tuple[dict, Sections, Sections | None]:
    """Return the fields, the update's sections, and those of the control variate if there is one."""
    fields, sections = read_frame(data, REPORT, max_bytes)
    plain = {name: section for name, section in sections.items() if not name.startswith("control.")}
    control = {
        name.removeprefix("control."): section
        for name, section in sections.items()
        if name.startswith("control.")
    }
    checks = _REPORT_FIELDS
    if control:
        checks = checks | {"first_control": lambda value: type(value) is bool}
    _check_fields(fields, checks)
    return fields, plain, control or None


# ---- Seeds ----


def seed_of(s: int, *parts: int | str) -> int:
    """Derive a seed from another and what it is for."""
    digest = blake2b(digest_size=8)
    for part in (s, *parts):
        text = (f"int:{part}" if isinstance(part, int) else f"str:{part}").encode()
        digest.update(struct.pack("<I", len(text)) + text)
    return int.from_bytes(digest.digest(), "little")


def splitmix(s: int, b: int) -> int:
    """Return output number b of SplitMix64 started at s."""
    z = s + (b + 1) * 0x9E3779B97F4A7C15 & _MASK64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK64
    return z ^ z >> 31


def hash32(k: int, j: int) -> int:
    """Return the page's hash(k, j)."""
    h = j * 0x9E3779B9 + (k & _MASK32) & _MASK32
    h = (h ^ h >> 16) * 0x7FEB352D + (k >> 32) & _MASK32
    h = (h ^ h >> 15) * 0x846CA68B & _MASK32
    return h ^ h >> 16


# ---- Chains ----

_NAMED = {
    "compact": "nonzero+int4",
    "tiny-uplink": "topk:0.04+int4",
    "summable": "rotate-shared+shared:0.125+fixed",
}
_STEPS = {
    "nonzero": {"changes": "uint8"},
    "topk": {"places": "uint8"},
    "outliers": {"outlier_scales": "float32", "outliers": "uint8", "outlier_places": "uint8"},
    "sample": {},
    "shared": {},
    "rotate": {},
    "rotate-shared": {},
    "float32": {"values": "float32"},
    "int8": {"scales": "float32", "levels": "int8"},
    "int4": {"scales": "float32", "packed": "uint8"},
    "int2": {"scales": "float32", "packed": "uint8"},
    "sign": {"scales": "float32", "packed": "uint8"},
    "fixed": {"levels": "uint8"},
}
_WITH_FRACTION = {"topk", "outliers", "sample", "shared"}
_LAST = {"float32", "int8", "int4", "int2", "sign", "fixed"}
_OF_THE_ROUND = {"rotate-shared", "shared"}


def _parse_chain(upload: str) -> list[tuple[str, float]]:
    steps = []
    for text in _NAMED.get(upload, upload).split("+"):
        name, colon, fraction = text.partition(":")
        _require(name in _STEPS and bool(colon) == (name in _WITH_FRACTION), "an unknown step")
        _require(not colon or re.fullmatch(r"[0-9]+(\.[0-9]+)?", fraction) is not None, "not a fraction")
        steps.append((name, float(fraction or 1)))
        _require(0 < steps[-1][1] <= 1, "a fraction is out of range")
    names = [name for name, _ in steps]
    _require(len(set(names)) == len(names), "a step stands twice")
    _require(
        [name in _LAST for name in names] == [False] * (len(names) - 1) + [True],
        "the last step, and no other, must write values",
    )
    return steps


def read_update(
    upload: str,
    sections: Sections,
    size: int,
    seed: int,
    round_seed: int,
    clip_norm: float = 0.0,
    control: bool = False,
) -> list[float]:
    """Undo the chain `upload`: return the `size` values of an update, or of a control variate's change."""
    steps = _parse_chain(upload)
    _check_sections(sections, {name: dtype for step, _ in steps for name, dtype in _STEPS[step].items()})
    if control:
        seed, round_seed = seed_of(seed, "control"), seed_of(round_seed, "control")
    n, share, done = size, 1.0, []
    for name, fraction in steps[:-1]:
        step_seed = seed_of(round_seed if name in _OF_THE_ROUND else seed, "transform", name)
        count = math.ceil(fraction * n)
        places: list[int] = []
        if name == "nonzero":
            places = _masked(_places(sections["changes"][2], n), n)
        elif name == "topk":
            places = _places(sections["places"][2], n, count)
        elif name == "outliers":
            places = _places(sections["outlier_places"][2], n, count)
        elif name in ("sample", "shared"):
            places = _sampled(step_seed, n, count)
        done.append((name, step_seed, n, places))
        if name in ("topk", "sample", "shared"):
            share *= fraction
        if name in ("nonzero", "topk", "sample", "shared"):
            n = len(places)
    values = _read_values(steps[-1][0], sections, n, share, clip_norm)
    for name, step_seed, n, places in reversed(done):
        if name in ("rotate", "rotate-shared"):
            _unrotate(values, step_seed)
        elif name == "outliers":
            apart = _scaled_levels(sections, "outlier_scales", "outliers", len(places), 4)
            for place, value in zip(places, apart, strict=True):
                values[place] += value
        else:
            spread = array("f", bytes(4 * n))
            for place, value in zip(places, values, strict=True):
                spread[place] = value
            values = spread
    return values.tolist()


# Arrays of "f" round what is put into them to float32. Sums and products of two float32 are rounded
# once more by float64 at most, which does not change the result.


def _places(gaps: list[int], n: int, count: int | None = None) -> list[int]:
    places, place = [], -1
    for gap in gaps:
        place += gap
        if gap < 255:
            place += 1
            places.append(place)
    _require(not gaps or gaps[-1] < 255, "the last place does not end")
    _require(place < n, "a place is not in the vector")
    _require(count is None or len(places) == count, "the number of places is another")
    return places


def _masked(changes: list[int], n: int) -> list[int]:
    runs = zip_longest(changes[::2], changes[1::2], fillvalue=n)
    return [place for start, stop in runs for place in range(start, stop)]


def _sampled(seed: int, n: int, count: int) -> list[int]:
    places = set()
    for t in range(n - count, n):
        candidate = splitmix(seed, t) * (t + 1) >> 64
        places.add(t if candidate in places else candidate)
    return sorted(places)


def _unrotate(values: array, seed: int) -> None:
    n = len(values)
    sizes = [4096] * (n // 4096) + [1 << bit for bit in range(11, -1, -1) if n >> bit & 1]
    start = 0
    for b, m in enumerate(sizes):
        block, stride = values[start : start + m], 1
        while stride < m:
            for i in range(m):
                if not i & stride:
                    x, y = block[i], block[i + stride]
                    block[i], block[i + stride] = x + y, x - y
            stride *= 2
        factor = array("f", [1 / math.sqrt(m)])[0]
        key = splitmix(seed, b)
        for j in range(m):
            if j % 32 == 0:
                signs = hash32(key, j // 32)
            values[start + j] = block[j] * (-factor if signs >> j % 32 & 1 else factor)
        start += m


def _read_values(name: str, sections: Sections, n: int, share: float, clip_norm: float) -> array:
    if name == "float32":
        values = _take(sections, "values", n)
        # Not a number fails this, too.
        _require(math.fsum(value * value for value in values) <= 2.0**128, "the norm is too large")
        return array("f", values)
    if name == "fixed":
        _require(0 < clip_norm < math.inf, "fixed needs a clip norm")
        step = 6 * clip_norm / math.sqrt(max(n, 1) * share) / 127
        levels = [_signed(level, 8) for level in _take(sections, "levels", n)]
        _require(-128 not in levels, "a level is out of range")
        return array("f", [level * step for level in levels])
    if name == "sign":
        scales = _scales(sections, "scales", n, 4096)
        bits = _unpack(_take(sections, "packed", -(-n // 8)), n, 1)
        return array("f", [-scales[i // 4096] if bit else scales[i // 4096] for i, bit in enumerate(bits)])
    bits = {"int8": 8, "int4": 4, "int2": 2}[name]
    return _scaled_levels(sections, "scales", "levels" if bits == 8 else "packed", n, bits)


def _scales(sections: Sections, name: str, n: int, block: int) -> list[float]:
    scales = _take(sections, name, -(-n // block))
    _require(all(0 <= scale <= 2.0**64 for scale in scales), "a scale is out of range")
    return scales


def _scaled_levels(sections: Sections, scales_name: str, name: str, n: int, bits: int) -> array:
    scales = _scales(sections, scales_name, n, 256)
    levels = _take(sections, name, -(-n * bits // 8))
    if bits < 8:
        levels = [_signed(number, bits) for number in _unpack(levels, n, bits)]
    _require(-1 << bits - 1 not in levels, "a level is out of range")
    return array("f", [level * scales[i // 256] for i, level in enumerate(levels)])
