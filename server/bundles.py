"""The newest exported model: on disk in one folder that is replaced whole, in memory as bytes to serve.

The folder is a bundle, and the bundles of the same model at other precisions stand in folders inside it.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbdfl.errors import NotFound
from kbdfl.server.assets import Asset

if TYPE_CHECKING:
    from kbdfl.export.predictor import Predictor

MODEL = "model.onnx"


@dataclass(frozen=True, slots=True)
class ServedBundle:
    """The files of one export by precision and name, the manifest and the predictor of the first precision."""

    files: dict[str, dict[str, Asset]]
    manifest: dict[str, Any]
    predictor: "Predictor" = field(repr=False)

    @property
    def version(self) -> int | None:
        return self.manifest["version"]

    @property
    def rounds(self) -> int | None:
        """Committed rounds in it."""
        return self.manifest["rounds"]

    @property
    def precision(self) -> str:
        """The one that is served where none is named, and that the predictor runs."""
        return self.manifest["precision"]

    def file(self, name: str, precision: str | None = None) -> Asset:
        """Raises NotFound for a precision or a name that is not there."""
        precision = precision or self.precision
        if precision not in self.files:
            raise NotFound(f"the model is served as {', '.join(self.files)}, not {precision[:60]}")
        files = self.files[precision]
        if name not in files:
            raise NotFound(f"a bundle has {', '.join(sorted(files))}, not {name[:60]}")
        return files[name]

    def models(self) -> dict[str, dict[str, Any]]:
        """Size and hash of the graph at each precision."""
        graphs = {precision: files[MODEL] for precision, files in self.files.items()}
        return {precision: {"bytes": g.size, "sha256": g.sha256} for precision, g in graphs.items()}

    def summary(self) -> dict[str, Any]:
        """What the pages show about it."""
        files = self.files[self.precision]
        return {
            "rounds": self.rounds,
            "version": self.version,
            "precision": self.precision,
            "files": {name: {"bytes": f.size, "sha256": f.sha256} for name, f in files.items()},
            "precisions": self.models(),
        }


def write_precisions(folder: Path, **bundle: Any) -> None:
    """Write a model at every precision, as `open_bundle` reads it: float32 in `folder`, the others inside.

    `bundle` are the arguments of `kbdfl.export.bundle.write_bundle`, the precision excepted.
    """
    from kbdfl.export.bundle import write_bundle
    from kbdfl.export.precision import PRECISIONS

    for precision in PRECISIONS:
        write_bundle(folder if precision == "float32" else folder / precision, precision=precision, **bundle)


def open_bundle(folder: Path) -> ServedBundle:
    """Read a bundle and those inside it, and make a predictor. Raises ModelError when one is not whole."""
    # onnxruntime is loaded by the first bundle and not by the server's start
    from kbdfl.export.bundle import MANIFEST, load_bundle
    from kbdfl.export.precision import PRECISIONS
    from kbdfl.export.predictor import Predictor

    main = load_bundle(folder)
    inside = [folder / precision for precision in PRECISIONS if (folder / precision).is_dir()]
    files = {}
    for bundle in (main, *map(load_bundle, inside)):
        files[bundle.precision] = {
            # Weights hardly shrink, words and names do.
            MODEL: Asset.of(bundle.model, "application/octet-stream", compress=False),
            **{
                name: Asset.of((bundle.folder / name).read_bytes(), "application/json")
                for name in (MANIFEST, "tokenizer.json")
            },
        }
    return ServedBundle(files, main.manifest, Predictor(main))


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
