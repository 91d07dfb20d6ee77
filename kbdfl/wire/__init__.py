"""Everything that travels between a phone and its server; docs/wire-format.md has the bytes."""

from kbdfl.wire.frame import MODEL, REPORT, Frame, decode_frame, encode_frame
from kbdfl.wire.messages import Report, decode_model, decode_report, encode_model, encode_report

__all__ = [
    "MODEL",
    "REPORT",
    "Frame",
    "Report",
    "decode_frame",
    "decode_model",
    "decode_report",
    "encode_frame",
    "encode_model",
    "encode_report",
]
