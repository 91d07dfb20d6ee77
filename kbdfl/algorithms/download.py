"""How the model goes down to the phones."""

from dataclasses import dataclass

from kbdfl.errors import ConfigError

CODECS = ("float32", "grid")


@dataclass(frozen=True, slots=True)
class Download:
    """What phones receive of a version.

    codec          `float32`: the parameters; `grid`: whole steps of each tensor's own size (`kbdfl.codec.grid`), and to
                   a phone that holds an earlier version the difference from it
    steps          of the grid, to a tensor's root mean square; rounded to the next finer power of two
    kept_versions  that the server keeps differences from; a phone that holds an older one gets the whole model
    """

    codec: str = "float32"
    steps: float = 1.0
    kept_versions: int = 100

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ConfigError(f"download must be one of {', '.join(CODECS)}, got {self.codec!r}"[:200])
        if not 0.25 <= self.steps <= 32:
            raise ConfigError(f"steps of the download's grid must lie in [0.25, 32], got {self.steps}")
        if not 1 <= self.kept_versions <= 10_000:
            raise ConfigError(f"kept_versions must lie in [1, 10000], got {self.kept_versions}")
