"""Forms in which an update travels: steps, the chains that they make, and the chains that have a name.

A chain is written as its steps from the device to the wire, `topk:0.05+int4`: a name, and after a colon the
fraction that it keeps, if it takes one; `fixed:3` has levels of ±3 instead of ±127.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import cast

from kbdfl.codec.clip import ClipNorm
from kbdfl.codec.dense import Float32, Int8
from kbdfl.codec.fixed import Fixed
from kbdfl.codec.packed import Int2, Int4, Sign
from kbdfl.codec.places import Nonzero, Outliers, TopK
from kbdfl.codec.rotate import Rotate, SharedRotate
from kbdfl.codec.subset import Sample, SharedSample
from kbdfl.errors import ConfigError
from kbdfl.transform import Transform, check_chain

STEPS: dict[str, type[Transform]] = {
    step.name: step
    for step in (
        Nonzero,
        TopK,
        Outliers,
        Sample,
        SharedSample,
        Rotate,
        SharedRotate,
        Float32,
        Int8,
        Int4,
        Int2,
        Sign,
        Fixed,
    )
}
LONGEST = 128  # characters of a chain: a report says which one it is written by
WITH_FRACTION = (TopK, Outliers, Sample, SharedSample)

UPLOADS: dict[str, str] = {
    "float32": "float32",
    "int8": "int8",
    "compact": "nonzero+int4",
    "tiny-uplink": "topk:0.04+int4",
    "summable": "rotate-shared+shared:0.125+fixed",
}

__all__ = ["STEPS", "UPLOADS", "ClipNorm", "Float32", "Int8", "upload_chain"]


@lru_cache(maxsize=64)
def upload_chain(upload: str, clip_norm: float = 0.0) -> tuple[Transform, ...]:
    """The chain called `upload`, or written so, for updates that were clipped to `clip_norm`; 0 = they were not.

    Raises ConfigError for one that is neither a name nor steps, or makes no sense.
    """
    if len(upload) > LONGEST:
        raise ConfigError(f"upload must have at most {LONGEST} characters, got {len(upload)}")
    chain: tuple[Transform, ...] = ()
    for written in UPLOADS.get(upload, upload).split("+"):
        if written.partition(":")[0] == Fixed.name:
            chain += (Fixed(clip_norm, prod(step.kept for step in chain), *_levels(written)),)
        else:
            chain += (_step(written),)
    check_chain(chain)
    return chain


def _levels(written: str) -> tuple[int, ...]:
    """Of a step `fixed` or `fixed:LEVELS`: the levels, if it says how many."""
    _, colon, levels = written.partition(":")
    if colon and re.fullmatch("[0-9]{1,3}", levels) is None:
        raise ConfigError(f"fixed must be written fixed, or fixed:3 for levels of ±3, got {written!r}"[:200])
    return (int(levels),) if colon else ()


def _step(written: str) -> Transform:
    name, colon, fraction = written.partition(":")
    if name not in STEPS:
        raise ConfigError(
            f"upload must be one of {', '.join(UPLOADS)}, or steps of {', '.join(STEPS)} joined by +, "
            f"got {written!r}"[:300]
        )
    make = cast(Callable[..., Transform], STEPS[name])
    if (STEPS[name] in WITH_FRACTION) != bool(colon):
        raise ConfigError(
            f"{name} must be written {name}{'' if colon else ':FRACTION'}, got {written!r}"[:200]
        )
    if not colon:
        return make()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", fraction) is None:
        raise ConfigError(f"{name} must keep a fraction in (0, 1], written as 0.5, got {fraction!r}"[:200])
    return make(float(fraction))
