"""The frame: named arrays and plain fields as bytes, versioned, bounded and checksummed.

docs/wire-format.md describes the bytes for a second implementation. Reading trusts nothing: every length is
checked against the limit before memory is taken, and whatever is not exactly a frame raises WireError.
"""

import struct
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import msgpack
import numpy as np

from kbdfl.errors import TooLarge, WireError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"KBF1"
FORMAT = 1
MODEL, REPORT = 1, 2
KINDS = {MODEL: "model", REPORT: "report"}
ZSTD = 1  # the only flag
ZSTD_MAGIC, ZSTD_SINGLE_SEGMENT = b"\x28\xb5\x2f\xfd", 0x20
SHORT = 512  # bytes of a section that is not worth tables of its own
PREFIX = struct.Struct("<4sBBBBIIII")
CRC_AT = PREFIX.size - 4
ALIGNMENT = 8
MAX_HEADER = 1 << 16
MAX_SECTIONS = 64
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("int8", "uint8", "int32", "float32", "float16")}


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame; sections are read-only views wherever the bytes allow it."""

    kind: int
    fields: dict[str, str | int | float | bool | None]
    sections: dict[str, np.ndarray]


def encode_frame(
    kind: int, fields: Mapping[str, Any], sections: Mapping[str, np.ndarray], *, compress: bool
) -> bytes:
    """One frame of `kind` with scalar `fields` and arrays `sections`, in their order.

    With `compress` the body is stored as zstd, unless that is not smaller. Raises WireError for a
    dtype that is not in DTYPES or a header over 64 KiB.
    """
    table: list[Any] = []
    parts: list[bytes | memoryview] = []
    for name, array in sections.items():
        dtype = DTYPES.get(array.dtype.name)
        if dtype is None:
            raise WireError(f"section {name} must be one of {', '.join(DTYPES)}, got {array.dtype}")
        table.append([name, array.dtype.name, list(array.shape)])
        parts.append(np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data)
    header = cast(bytes, msgpack.packb({"fields": dict(fields), "sections": table}, use_bin_type=True))
    if len(header) > MAX_HEADER or len(table) > MAX_SECTIONS:
        raise WireError(
            f"a header must be at most {MAX_HEADER} bytes and {MAX_SECTIONS} sections, got {len(header)}"
        )
    raw_bytes = sum(len(part) for part in parts)
    if raw_bytes >= 1 << 32:
        raise WireError(f"a body must be below 4 GiB, got {raw_bytes} bytes")
    flags = 0
    if compress:
        stored = _compressed(parts, raw_bytes)
        if len(stored) < raw_bytes:
            flags = ZSTD
            parts = [stored]
    stored_bytes = sum(len(part) for part in parts)
    prefix = PREFIX.pack(MAGIC, FORMAT, kind, flags, 0, len(header), stored_bytes, raw_bytes, 0)
    pieces = [prefix[:CRC_AT], header, bytes(padding_after(len(header))), *parts]
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    pieces.insert(1, crc.to_bytes(4, "little"))
    return b"".join(pieces)


def decode_frame(data: bytes | memoryview, *, kind: int, max_bytes: int) -> Frame:
    """The frame in `data`, which must be exactly one frame of `kind`.

    Neither the frame nor its body once decompressed may be over `max_bytes` (TooLarge). Anything else that
    deviates raises WireError.
    """
    if len(data) > max_bytes:
        raise TooLarge(f"a {KINDS[kind]} frame must be at most {max_bytes} bytes, got {len(data)}")
    if len(data) < PREFIX.size:
        raise WireError(f"a frame has at least {PREFIX.size} bytes, got {len(data)}")
    magic, version, got_kind, flags, zero, header_bytes, stored_bytes, raw_bytes, crc = PREFIX.unpack_from(
        data
    )
    if magic != MAGIC:
        raise WireError("not a frame: it does not start with KBF1")
    if version != FORMAT:
        raise WireError(f"frame format must be {FORMAT}, got {version}")
    if got_kind != kind:
        raise WireError(f"a {KINDS[kind]} frame is needed, got kind {got_kind}")
    if flags & ~ZSTD or zero:
        raise WireError(f"unknown flags {flags:#04x} {zero:#04x}")
    if header_bytes > MAX_HEADER:
        raise TooLarge(f"a header must be at most {MAX_HEADER} bytes, got {header_bytes}")
    if raw_bytes > max_bytes:
        raise TooLarge(f"a {KINDS[kind]} body must be at most {max_bytes} bytes, got {raw_bytes}")
    padding = padding_after(header_bytes)
    body_at = PREFIX.size + header_bytes + padding
    if len(data) != body_at + stored_bytes:
        raise WireError(f"the frame says {body_at + stored_bytes} bytes, got {len(data)}")
    view = memoryview(data)
    if zlib.crc32(view[PREFIX.size :], zlib.crc32(view[:CRC_AT])) != crc:
        raise WireError("the frame is damaged: its checksum does not match")
    if any(view[body_at - padding : body_at]):
        raise WireError("the padding after a header must be zero")
    fields, table = _read_header(view[PREFIX.size : PREFIX.size + header_bytes])
    body = view[body_at:]
    if flags & ZSTD:
        body = memoryview(_decompress(body, raw_bytes))
    elif stored_bytes != raw_bytes:
        raise WireError(f"a body that is not compressed must be {raw_bytes} bytes, got {stored_bytes}")
    return Frame(kind, fields, _read_sections(table, body))


def padding_after(header_bytes: int) -> int:
    """Zero bytes after a header, so that the body starts at a multiple of 8."""
    return -(PREFIX.size + header_bytes) % ALIGNMENT


def _compressed(parts: list[bytes | memoryview], raw_bytes: int) -> bytes:
    """One zstd frame, level 1. A section that is not short ends a block, so that its bytes are coded by themselves."""
    compressor = zstd.ZstdCompressor(level=1)
    compressor.set_pledged_input_size(raw_bytes)
    pieces = [
        compressor.compress(part, compressor.FLUSH_BLOCK if len(part) > SHORT else compressor.CONTINUE)
        for part in parts
    ]
    return b"".join([*pieces, compressor.flush()])


def _decompress(stored: memoryview, raw_bytes: int) -> bytes:
    # Neither the output nor the window that the decompressor takes may be larger than what was declared.
    window = max(10, min(31, raw_bytes.bit_length()))
    _check_window(stored, 1 << window)
    decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window})
    try:
        body = decompressor.decompress(stored, max_length=raw_bytes)
        # At exactly raw_bytes the end mark may not have been read yet.
        more = b"" if decompressor.eof else decompressor.decompress(b"", max_length=1)
    except (zstd.ZstdError, EOFError) as error:
        raise WireError(f"the body is not a zstd frame: {error}") from None
    if len(body) != raw_bytes or more or not decompressor.eof or decompressor.unused_data:
        raise WireError(f"the body must decompress to exactly {raw_bytes} bytes")
    return body


def _check_window(stored: memoryview, most: int) -> None:
    """Raise WireError unless `stored` begins a zstd frame (RFC 8878, section 3.1.1) whose window is at most `most`.

    The decompressor does not look at the window of a frame that it may decode in one go.
    """
    if len(stored) < 6 or stored[:4] != ZSTD_MAGIC:
        raise WireError("the body is not a zstd frame")
    descriptor, window = stored[4:6]
    if descriptor & ZSTD_SINGLE_SEGMENT:
        return  # the window is the content, whose length is checked
    base = 1 << 10 + (window >> 3)
    if base + base // 8 * (window & 7) > most:
        raise WireError(f"the window of a zstd frame must be at most {most} bytes here")


def _unique(pairs: list[Any]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a name stands twice")
    return names


def _read_header(header: memoryview) -> tuple[dict[str, Any], list[Any]]:
    """(fields, section table) of a msgpack header; the types are checked here, the sizes by the caller."""
    try:
        content = msgpack.unpackb(header, raw=False, strict_map_key=True, object_pairs_hook=_unique)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"the header is not msgpack: {str(error)[:80]}") from None
    if not isinstance(content, dict) or content.keys() != {"fields", "sections"}:
        raise WireError("the header must be a map of fields and sections")
    fields, table = content["fields"], content["sections"]
    if not isinstance(fields, dict) or not all(
        isinstance(name, str) and isinstance(value, str | int | float | bool | None)
        for name, value in fields.items()
    ):
        raise WireError("fields must be a map of names to plain values")
    if not isinstance(table, list) or len(table) > MAX_SECTIONS:
        raise WireError(f"sections must be a list of at most {MAX_SECTIONS}")
    return fields, table


def _read_sections(table: list[Any], body: memoryview) -> dict[str, np.ndarray]:
    sections, at = {}, 0
    for row in table:
        match row:
            case [str(name), str(dtype_name), [*shape]] if dtype_name in DTYPES and name not in sections:
                dtype = DTYPES[dtype_name]
            case _:
                raise WireError("a section must be [new name, known dtype, shape]")
        if len(shape) > 8 or not all(type(length) is int and 0 <= length < 1 << 32 for length in shape):
            raise WireError(f"the shape of section {name[:80]!r} must be lengths >= 0")
        if (
            prod(filter(None, shape)) >= 1 << 32
        ):  # an empty array may claim to be as wide as it likes, but for this
            raise WireError(f"the lengths of section {name[:80]!r} must have a product below 2^32")
        size = prod(shape) * dtype.itemsize
        if at + size > len(body):
            raise WireError(f"section {name[:80]!r} ends after the body")
        array = np.frombuffer(body, dtype, prod(shape), at) if size else np.empty(0, dtype)
        if not array.flags.aligned:
            array = array.copy()
        array.flags.writeable = False
        sections[name] = array.astype(dtype.newbyteorder("="), copy=False).reshape(shape)
        at += size
    if at != len(body):
        raise WireError(f"the sections take {at} bytes of a body of {len(body)}")
    return sections
