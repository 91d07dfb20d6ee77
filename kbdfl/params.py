"""A model is one flat float32 vector and a `ParamSpec`; this file also keeps it on disk.

Kernels, codecs and aggregation see the flat vector alone. The spec says which slice is which tensor and has
a hash, so that a device can refuse a vector that was laid out for another model.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from kbdfl.errors import ModelError


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """Names and shapes of a model's tensors, in the order in which they stand in the flat vector."""

    entries: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(prod(shape) for _, shape in self.entries)

    @property
    def hash(self) -> str:
        """16 hex digits that name this layout."""
        return hashlib.sha256(json.dumps(self.entries).encode()).hexdigest()[:16]

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Views into `flat` (P,), one a tensor; writing to them writes to `flat`."""
        if flat.shape != (self.size,):
            raise ModelError(f"a flat vector of {self.size} parameters is needed, got shape {flat.shape}")
        views, start = {}, 0
        for name, shape in self.entries:
            views[name] = flat[start : start + prod(shape)].reshape(shape)
            start += prod(shape)
        return views


def digest(flat: np.ndarray) -> str:
    """sha256 (hex) of a float32 vector's little-endian bytes: the name of exactly these parameters."""
    return hashlib.sha256(np.ascontiguousarray(flat, "<f4").view(np.uint8).data).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make durable which files are in a folder; what is in them is their own affair."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_checkpoint(path: Path, flat: np.ndarray, spec: ParamSpec, metadata: dict[str, Any]) -> None:
    """Write parameters and `metadata` (JSON values) as safetensors; equal content gives equal bytes."""
    write_atomically(Path(path), pack_checkpoint(flat, spec, metadata))


def pack_checkpoint(flat: np.ndarray, spec: ParamSpec, metadata: dict[str, Any]) -> bytes:
    """What `save_checkpoint` writes."""
    tensors = {name: np.ascontiguousarray(view, np.float32) for name, view in spec.views(flat).items()}
    document = metadata | {"spec": spec.entries, "sha256": digest(flat)}
    # One metadata key only: safetensors writes several in random order.
    sealed = json.dumps(document | {"seal": _seal(document)}, sort_keys=True)
    return save(tensors, metadata={"kbdfl": sealed})


def load_checkpoint(path: Path) -> tuple[np.ndarray, ParamSpec, dict[str, Any]]:
    """Read what `save_checkpoint` wrote: (flat float32 (P,), spec, metadata). Raises ModelError."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise ModelError(f"no checkpoint at {path}") from None
    except OSError as error:
        raise ModelError(f"{path} is not a kbdfl checkpoint: {error.strerror}") from None
    return unpack_checkpoint(content, name=str(path))


def unpack_checkpoint(content: bytes, *, name: str) -> tuple[np.ndarray, ParamSpec, dict[str, Any]]:
    """The same of what `pack_checkpoint` gave; `name` is what an error calls it."""
    try:
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = json.loads((header.get("__metadata__") or {})["kbdfl"])
        seal, sha256 = metadata.pop("seal"), metadata["sha256"]
        spec = ParamSpec(tuple((name, tuple(shape)) for name, shape in metadata["spec"]))
        tensors = [arrays[name] for name, _ in spec.entries]
        flat = np.concatenate([tensor.ravel() for tensor in tensors])
    except (SafetensorError, AttributeError, KeyError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"{name} is not a kbdfl checkpoint: {reason}") from None
    if seal != _seal(metadata) or any(
        tensor.shape != shape for tensor, (_, shape) in zip(tensors, spec.entries, strict=True)
    ):
        raise ModelError(f"{name} is damaged: its description does not match the seal it carries")
    if flat.dtype != np.float32 or digest(flat) != sha256:
        raise ModelError(f"{name} is damaged: its parameters do not match the sha256 it carries")
    return flat, spec, metadata


def _seal(document: dict[str, Any]) -> str:
    """sha256 (hex) of what a checkpoint says about its parameters; they have a hash of their own in it."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
