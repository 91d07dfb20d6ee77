"""The newest exported model: on disk in one folder that is replaced whole, in memory as bytes to serve."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbdfl.errors import NotFound

if TYPE_CHECKING:
    from kbdfl.export.predictor import Predictor

CONTENT_TYPES = {".json": "application/json", ".onnx": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file of a bundle as it is served."""

    content: bytes
    sha256: str
    content_type: str


@dataclass(frozen=True, slots=True)
class ServedBundle:
    """The files of one export, its manifest, and the predictor that runs it."""

    files: dict[str, BundleFile]
    manifest: dict[str, Any]
    predictor: "Predictor" = field(repr=False)

    @property
    def version(self) -> int | None:
        return self.manifest["version"]

    @property
    def rounds(self) -> int | None:
        """Committed rounds in it."""
        return self.manifest["rounds"]

    def file(self, name: str) -> BundleFile:
        if name not in self.files:
            raise NotFound(f"a bundle has {', '.join(sorted(self.files))}, not {name[:60]}")
        return self.files[name]

    def summary(self) -> dict[str, Any]:
        """What the pages show about it."""
        return {
            "rounds": self.rounds,
            "version": self.version,
            "precision": self.manifest["precision"],
            "files": {name: {"bytes": len(f.content), "sha256": f.sha256} for name, f in self.files.items()},
        }


def open_bundle(folder: Path) -> ServedBundle:
    """Read a bundle and make its predictor. Raises ModelError when it is not whole."""
    # onnxruntime is loaded by the first bundle and not by the server's start
    from kbdfl.export.bundle import FILES, MANIFEST
    from kbdfl.export.predictor import Predictor

    predictor = Predictor(folder)
    files = {}
    for name in (MANIFEST, *FILES):
        content = (folder / name).read_bytes()
        kind = CONTENT_TYPES[Path(name).suffix]
        files[name] = BundleFile(content, hashlib.sha256(content).hexdigest(), kind)
    return ServedBundle(files, predictor.bundle.manifest, predictor)


def replace_bundle(folder: Path, write: Callable[[Path], Any]) -> ServedBundle:
    """Let `write` fill a new folder, load what it wrote, and put it in the place of `folder`.

    What cannot be loaded never takes the place of what could. A crash between the two renames leaves no
    bundle, and the server exports one again when it starts.
    """
    fresh, old = folder.with_name(folder.name + ".next"), folder.with_name(folder.name + ".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    write(fresh)
    bundle = open_bundle(fresh)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
    return bundle
