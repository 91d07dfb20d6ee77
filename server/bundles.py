"""The newest exported model: on disk in one folder that is replaced whole, in memory as bytes to serve."""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kbdfl.errors import ModelError, NotFound

CONTENT_TYPES = {".json": "application/json", ".onnx": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file of a bundle as it is served."""

    content: bytes
    sha256: str
    content_type: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files of one export and what is known about it."""

    files: dict[str, BundleFile]
    manifest: dict[str, Any]
    round: int | None
    version: int | None
    predictor: Any = field(repr=False)
    mutex: threading.Lock = field(repr=False, default_factory=threading.Lock)

    def file(self, name: str) -> BundleFile:
        if name not in self.files:
            raise NotFound(f"a bundle has {', '.join(sorted(self.files))}, not {name}")
        return self.files[name]

    def suggest(self, text: str, count: int) -> list[Any]:
        """The predictor's suggestions; one thread at a time, for it keeps the state of the last text."""
        with self.mutex:
            return self.predictor.suggest(text, k=count)

    def summary(self) -> dict[str, Any]:
        """What the pages show about it."""
        return {
            "round": self.round,
            "version": self.version,
            "files": {name: {"bytes": len(f.content), "sha256": f.sha256} for name, f in self.files.items()},
        }


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and make its predictor. Raises ModelError when it is not one."""
    from kbdfl.export.predictor import Predictor

    predictor = Predictor(folder)
    files = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in CONTENT_TYPES:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            files[path.name] = BundleFile(content, digest, CONTENT_TYPES[path.suffix])
    try:
        manifest = json.loads(files["manifest.json"].content)
    except (KeyError, ValueError):
        raise ModelError(f"{folder} has no readable manifest.json") from None
    served = _read_served(folder)
    return Bundle(files, manifest, served.get("round"), served.get("version"), predictor)


def replace_bundle(folder: Path, write: Callable[[Path], None], *, round: int, version: int) -> Bundle:
    """Let `write` fill a new folder, load what it wrote, and put it in the place of `folder`.

    What cannot be loaded never takes the place of what could. Between the two renames of a replacement a
    crash leaves no bundle, and the server exports one again when it starts.
    """
    fresh, old = folder.with_name(folder.name + ".next"), folder.with_name(folder.name + ".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    (fresh / "served.txt").write_text(f"round {round}\nversion {version}\n")
    bundle = load_bundle(fresh)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
    return bundle


def _read_served(folder: Path) -> dict[str, int]:
    """Which round a bundle on disk was exported after, as this server noted beside it."""
    try:
        lines = (folder / "served.txt").read_text().splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}
    except (FileNotFoundError, ValueError):
        return {}
