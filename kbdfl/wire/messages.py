"""What a frame says: a MODEL for the phones, a REPORT from one."""

import re
from dataclasses import dataclass
from math import isfinite
from operator import index
from typing import Any

import numpy as np

from kbdfl.errors import WireError
from kbdfl.transform import Update
from kbdfl.wire.frame import KINDS, MODEL, REPORT, decode_frame, encode_frame


@dataclass(frozen=True, slots=True)
class Report:
    """What a phone sends home: an encoded update and what the server must know to weigh and check it.

    `examples` is the number of messages trained on, `tokens` the targets learned, `train_loss` nats a token.
    `control` is the encoded change of the phone's control variate, where the task keeps such (SCAFFOLD);
    `first_control` if it has not reported one before, so that it changed from zero.
    """

    task: str
    round: int
    device: str
    model_sha256: str
    spec_hash: str
    upload: str
    examples: int
    tokens: int
    train_loss: float
    update: Update
    control: Update | None = None
    first_control: bool = False


def _count(value: object) -> bool:
    return isinstance(value, int) and type(value) is int and 0 <= value < 1 << 53


def _positive(value: object) -> bool:
    return _count(value) and value != 0


def _name(value: object) -> bool:
    return type(value) is str and 1 <= len(value) <= 128 and value.isprintable()


def _loss(value: object) -> bool:
    return type(value) is float and isfinite(value) and value >= 0


def _spec_hash(value: object) -> bool:
    return type(value) is str and re.fullmatch("[0-9a-f]{16}", value) is not None


def _sha256(value: object) -> bool:
    return type(value) is str and re.fullmatch("[0-9a-f]{64}", value) is not None


REPORT_FIELDS = {
    "task": _name,
    "round": _count,
    "device": _name,
    "model_sha256": _sha256,
    "spec_hash": _spec_hash,
    "upload": _name,
    "examples": _positive,
    "tokens": _count,
    "train_loss": _loss,
}
CONTROL_FIELDS = {"first_control": lambda value: type(value) is bool}  # of a report with a control variate
CONTROL = "control."  # begins the names of its sections
MODEL_FIELDS = {"version": _count, "spec_hash": _spec_hash}
GRID_FIELDS = MODEL_FIELDS | {
    "base": lambda value: value is None or _count(value),
    "bits": lambda value: type(value) is int and value in (2, 4, 8),
}


def _checked(kind: int, fields: dict[str, Any]) -> dict[str, Any]:
    """`fields`, which must be exactly those of `kind` and in range."""
    wanted = MODEL_FIELDS if kind == MODEL else REPORT_FIELDS
    if kind == MODEL and "bits" in fields:
        wanted = GRID_FIELDS
    if kind == REPORT and "first_control" in fields:
        wanted = wanted | CONTROL_FIELDS
    if fields.keys() != wanted.keys():
        raise WireError(
            f"a {KINDS[kind]} must have the fields {sorted(wanted)}, got {str(sorted(fields))[:200]!r}"
        )
    for name, accepts in wanted.items():
        if not accepts(fields[name]):
            raise WireError(f"field {name} of a {KINDS[kind]} is out of range: {str(fields[name])[:80]!r}")
    return fields


def encode_model(params: np.ndarray, *, version: int, spec_hash: str) -> bytes:
    """A MODEL frame of `params` (P,) float32, not compressed: trained weights hardly shrink."""
    fields = _checked(MODEL, {"version": index(version), "spec_hash": spec_hash})
    return encode_frame(MODEL, fields, {"params": np.asarray(params, np.float32)}, compress=False)


def decode_model(data: bytes | memoryview, *, max_bytes: int) -> tuple[np.ndarray, int, str]:
    """(params (P,) float32 read-only, version, spec_hash). Raises WireError or TooLarge."""
    frame = decode_frame(data, kind=MODEL, max_bytes=max_bytes)
    fields = _checked(MODEL, frame.fields)
    params = frame.sections.get("params")
    if (
        "bits" in fields
        or len(frame.sections) != 1
        or params is None
        or params.dtype != np.float32
        or params.ndim != 1
    ):
        raise WireError("a model must have one section, params, float32 of one axis")
    if not np.isfinite(params).all():
        raise WireError("a model must be finite, got a NaN or an infinity")
    return params, fields["version"], fields["spec_hash"]


@dataclass(frozen=True, slots=True, eq=False)
class GridModel:
    """A model on a grid as it travels: whole, or as the difference from version `base`; `kbdfl.codec.grid` has both.

    `bits` a level takes in `packed` uint8; `escapes` int8 are the levels that need more; `exponents` int8.
    """

    version: int
    spec_hash: str
    base: int | None
    bits: int
    exponents: np.ndarray
    packed: np.ndarray
    escapes: np.ndarray


_GRID_SECTIONS = {"exponents": np.int8, "packed": np.uint8, "escapes": np.int8}


def encode_grid(model: GridModel) -> bytes:
    """A MODEL frame of a model on a grid, compressed where that is smaller."""
    fields = {name: getattr(model, name) for name in GRID_FIELDS}
    sections = {name: getattr(model, name) for name in _GRID_SECTIONS}
    return encode_frame(MODEL, _checked(MODEL, fields), sections, compress=True)


def decode_grid(data: bytes | memoryview, *, max_bytes: int) -> GridModel:
    """The inverse of `encode_grid`; whether its sections fit each other is the reader's to check.

    Raises WireError or TooLarge.
    """
    frame = decode_frame(data, kind=MODEL, max_bytes=max_bytes)
    fields = _checked(MODEL, frame.fields)
    if fields.keys() != GRID_FIELDS.keys() or frame.sections.keys() != _GRID_SECTIONS.keys():
        raise WireError(f"a model on a grid must have the sections {sorted(_GRID_SECTIONS)} and their fields")
    for name, dtype in _GRID_SECTIONS.items():
        if frame.sections[name].dtype != dtype or frame.sections[name].ndim != 1:
            raise WireError(f"section {name} must be {np.dtype(dtype)} of one axis")
    sections: dict[str, Any] = dict(frame.sections)
    return GridModel(**fields, **sections)


def encode_report(
    update: Update,
    *,
    task: str,
    round: int,
    device: str,
    model_sha256: str,
    spec_hash: str,
    upload: str,
    examples: int,
    tokens: int,
    train_loss: float,
    control: Update | None = None,
    first_control: bool = False,
) -> bytes:
    """A REPORT frame of an encoded `update`, and of `control` in the same way, compressed where that is smaller.

    The fields are those of `Report`; WireError if one is out of range.
    """
    fields = {
        "task": task,
        "round": index(round),
        "device": device,
        "model_sha256": model_sha256,
        "spec_hash": spec_hash,
        "upload": upload,
        "examples": index(examples),
        "tokens": index(tokens),
        "train_loss": float(train_loss),
    }
    sections = dict(update.sections)
    if control is not None:
        fields["first_control"] = first_control
        sections |= {CONTROL + name: array for name, array in control.sections.items()}
    return encode_frame(REPORT, _checked(REPORT, fields), sections, compress=True)


def decode_report(data: bytes | memoryview, *, max_bytes: int) -> Report:
    """The report in `data`, its fields in range; the update's own sections are its codec's to check.

    Raises WireError or TooLarge.
    """
    frame = decode_frame(data, kind=REPORT, max_bytes=max_bytes)
    fields = _checked(REPORT, frame.fields)
    control = {name: array for name, array in frame.sections.items() if name.startswith(CONTROL)}
    if bool(control) != ("first_control" in fields):
        raise WireError("a report must have both the field first_control and its sections, or neither")
    update = {name: array for name, array in frame.sections.items() if name not in control}
    return Report(
        **fields,
        update=Update(update),
        control=Update({name.removeprefix(CONTROL): array for name, array in control.items()})
        if control
        else None,
    )
