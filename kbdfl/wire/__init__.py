"""Everything that travels between a phone and its server; docs/wire-format.md has the bytes."""

from kbdfl.wire.frame import MODEL, REPORT, Frame, decode_frame, encode_frame
from kbdfl.wire.messages import (
    GridModel,
    Report,
    decode_grid,
    decode_model,
    decode_report,
    encode_grid,
    encode_model,
    encode_report,
)

__all__ = [
    "MODEL",
    "REPORT",
    "Frame",
    "GridModel",
    "Report",
    "decode_frame",
    "decode_grid",
    "decode_model",
    "decode_report",
    "encode_frame",
    "encode_grid",
    "encode_model",
    "encode_report",
]
