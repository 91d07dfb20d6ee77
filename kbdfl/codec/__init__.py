"""Forms in which an update travels, and the chains a run may ask for by name."""

from kbdfl.codec.clip import ClipNorm
from kbdfl.codec.dense import Float32, Int8
from kbdfl.errors import ConfigError
from kbdfl.transform import Transform

UPLOADS: dict[str, tuple[Transform, ...]] = {
    "float32": (Float32(),),
    "int8": (Int8(),),
}

__all__ = ["UPLOADS", "ClipNorm", "Float32", "Int8", "upload_chain"]


def upload_chain(name: str) -> tuple[Transform, ...]:
    """The chain called `name`. Raises ConfigError for a name that is not in UPLOADS."""
    if name not in UPLOADS:
        raise ConfigError(f"upload must be one of {', '.join(sorted(UPLOADS))}, got {name!r}")
    return UPLOADS[name]
