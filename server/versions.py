"""A model version as two files, the checkpoint and the server rule's state, and how both are known to be whole.

A checkpoint seals itself; the state beside it does not. So the sha256 of either content is kept elsewhere, in the
database, and what does not have it is damaged, whatever it looks like.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from kbdfl.errors import ModelError
from kbdfl.params import ParamSpec, pack_checkpoint, unpack_checkpoint, write_atomically

Model = tuple[np.ndarray, dict[str, np.ndarray]]  # parameters float32 (P,), and the server rule's state
CHECKPOINT, STATE = ".safetensors", ".server.safetensors"


@dataclass(frozen=True, slots=True)
class Content:
    """The two files of a version."""

    checkpoint: bytes
    state: bytes

    @classmethod
    def of(
        cls, params: np.ndarray, state: Mapping[str, np.ndarray], spec: ParamSpec, facts: dict[str, Any]
    ) -> "Content":
        """Equal arrays and `facts` (JSON values) give equal bytes."""
        arrays = {name: np.ascontiguousarray(array) for name, array in state.items()}
        return cls(pack_checkpoint(params, spec, facts), save(arrays))

    @property
    def sha256(self) -> tuple[bytes, bytes]:
        """Of the checkpoint and of the state."""
        return hashlib.sha256(self.checkpoint).digest(), hashlib.sha256(self.state).digest()

    def model(self, spec: ParamSpec, *, name: str) -> Model:
        """What is in them. Raises ModelError, in which `name` stands for the version."""
        params, found, _ = unpack_checkpoint(self.checkpoint, name=f"{name}{CHECKPOINT}")
        if found != spec:
            raise ModelError(f"{name}{CHECKPOINT} holds a model of another layout")
        try:
            return params, load(self.state)
        except SafetensorError as error:
            raise ModelError(f"{name}{STATE} is damaged: {str(error)[:100]}") from None

    def check(self, sha256: tuple[bytes, bytes] | None, *, name: str) -> None:
        """Raise ModelError unless this is what `sha256` was kept of; None = nothing was, by an earlier program."""
        for kind, kept, found in zip((CHECKPOINT, STATE), sha256 or self.sha256, self.sha256, strict=True):
            if kept != found:
                raise ModelError(f"{name}{kind} is damaged: it does not have the sha256 that was kept")


class VersionFiles:
    """The versions in `folder`: NNNNNN.safetensors and NNNNNN.server.safetensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def checkpoint(self, version: int) -> Path:
        """The file with a version's parameters."""
        return self.folder / f"{self.name(version)}{CHECKPOINT}"

    def state(self, version: int) -> Path:
        """The file with the server rule's state beside it."""
        return self.folder / f"{self.name(version)}{STATE}"

    def name(self, version: int) -> str:
        return f"{version:06d}"

    def kept(self) -> list[int]:
        """The versions of which both files are there, the oldest first."""
        names = [path.name.split(".")[0] for path in self.folder.glob(f"*{STATE}")]
        return sorted(int(name) for name in names if name.isdigit() and self.checkpoint(int(name)).is_file())

    def write(self, version: int, content: Content) -> None:
        """Make both durable. The state first: a checkpoint of some version always has its state too."""
        write_atomically(self.state(version), content.state)
        write_atomically(self.checkpoint(version), content.checkpoint)

    def read(self, version: int) -> Content:
        """Both. Raises ModelError if one is missing or cannot be read."""
        parts = []
        for path, what in ((self.checkpoint(version), "checkpoint"), (self.state(version), "server state")):
            try:
                parts.append(path.read_bytes())
            except FileNotFoundError:
                raise ModelError(f"no {what} at {path}") from None
            except OSError as error:
                raise ModelError(f"{path} cannot be read: {error.strerror}") from None
        return Content(*parts)

    def forget(self, last: int) -> None:
        """Remove the versions up to `last`."""
        for path in self.folder.glob(f"*{CHECKPOINT}"):
            number = path.name.split(".")[0]
            if number.isdigit() and int(number) <= last:
                path.unlink(missing_ok=True)
