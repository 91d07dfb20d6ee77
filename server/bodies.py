"""Encoded models: the bytes that are the same for many phones, made once."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

KEPT_BODIES = 64  # phones that hold the same version get the same bytes


@dataclass(frozen=True, slots=True)
class ModelBody:
    """A model version, or a part of one, as it goes over the wire, with a strong entity tag."""

    content: bytes
    etag: str


class Bodies:
    """The last KEPT_BODIES that were asked for. Its user holds a lock."""

    def __init__(self) -> None:
        self._bodies: dict[tuple[int, str], ModelBody] = {}  # of versions and of what goes with them

    def __len__(self) -> int:
        return len(self._bodies)

    def get(self, version: int, what: str, encode: Callable[[], bytes], *, after: int) -> ModelBody:
        """`what` of a version, encoded if it is asked for the first time; versions up to `after` are let go of."""
        if (version, what) not in self._bodies:
            content = encode()
            kept = [item for item in self._bodies.items() if item[0][0] > after]
            self._bodies = dict(kept[-KEPT_BODIES:])
            self._bodies[version, what] = ModelBody(content, hashlib.sha256(content).hexdigest())
        return self._bodies[version, what]
