"""A bundle, the folder a phone downloads: model.onnx, tokenizer.json, and a manifest that vouches for both.

The manifest is written last and holds the sha256 of the other files, so a reader sees a whole bundle or
refuses it. Nothing in a bundle depends on the clock or the machine: equal parameters give equal bytes.
"""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kbdfl._version import __version__
from kbdfl.errors import ConfigError, DataError, ModelError
from kbdfl.export.precision import PRECISIONS
from kbdfl.model import PRESETS, CifgConfig
from kbdfl.params import digest, write_atomically
from kbdfl.text import Vocabulary

FORMAT = "kbdfl-bundle-1"
FILES = ("model.onnx", "tokenizer.json")
MANIFEST = "manifest.json"
PRIVACY = (
    "Trained by federated averaging of plain (unmasked) updates; the server could read single updates; "
    "no differential privacy is claimed."
)
LICENCE = "Apache-2.0"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was checked: the graph's bytes, its vocabulary and shape, and the manifest."""

    folder: Path
    model: bytes = field(repr=False)
    vocabulary: Vocabulary = field(repr=False)
    config: CifgConfig
    manifest: dict[str, Any] = field(repr=False)

    @property
    def precision(self) -> str:
        return self.manifest["precision"]


def write_bundle(
    folder: Path,
    *,
    params: np.ndarray,
    config: CifgConfig,
    vocabulary: Vocabulary,
    precision: str,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Write the bundle of `params`, flat float32 (P,), into `folder` and return its manifest.

    `facts` are JSON values about how the model came to be: `round` or `rounds` (how many were committed),
    `version`, `data` (a description), `recall` (`top1` and `top3` in 0..1, and the `version` that was measured),
    and optionally `preset`, `vocabulary_source`, `privacy` and `licence` in place of the defaults; further keys
    are kept under `facts`. What matters most stands in the properties of model.onnx too. Files are made in a
    temporary folder beside `folder` and then renamed into it, the manifest last. Raises ModelError or
    ConfigError before it writes.
    """
    # onnx is needed to write a bundle, not to read one; what only predicts does not load it.
    from kbdfl.export.graph import step_graph

    if len(vocabulary) != config.vocab:
        raise ModelError(
            f"the vocabulary must have the {config.vocab} tokens of the model, got {len(vocabulary)}"
        )
    rest = dict(facts)
    rounds = rest.pop("rounds", None)
    about = {
        "format": FORMAT,
        "kbdfl": __version__,
        "preset": rest.pop(
            "preset", next((name for name, known in PRESETS.items() if known == config), None)
        ),
        "config": asdict(config),
        "precision": precision,
        "parameters": config.spec.size,
        "params_sha256": digest(params),
        "rounds": rounds if rounds is not None else rest.pop("round", None),
        "version": rest.pop("version", None),
        "recall": rest.pop("recall", None),
        "data": rest.pop("data", "unstated"),
        "vocabulary": {
            "size": len(vocabulary),
            "sha256": vocabulary.sha256,
            "source": rest.pop("vocabulary_source", None) or vocabulary.source,
        },
        "privacy": rest.pop("privacy", PRIVACY),
        "licence": rest.pop("licence", LICENCE),
        "facts": rest,
    }
    properties = {key: about[key] for key in ("kbdfl", "precision", "rounds", "params_sha256")}
    properties |= {f"recall_{key}": value for key, value in (about["recall"] or {}).items()}
    properties |= {key: about[key] for key in ("privacy", "licence")}
    properties["vocabulary_sha256"] = vocabulary.sha256
    model = step_graph(params, config, precision=precision, metadata=properties)
    contents = {
        "model.onnx": model.SerializeToString(deterministic=True),
        "tokenizer.json": vocabulary.to_bytes(),
    }
    about["files"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    try:
        manifest = json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the facts of a bundle must be JSON values: {error}") from None
    _put(Path(folder), contents | {MANIFEST: manifest.encode() + b"\n"})
    return json.loads(manifest)


def _put(folder: Path, contents: dict[str, bytes]) -> None:
    """Write all files aside, then rename them into `folder` in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in contents.items():
            write_atomically(aside / name, content)
        for name in contents:
            os.replace(aside / name, folder / name)
    finally:
        shutil.rmtree(aside)


def load_bundle(folder: Path) -> Bundle:
    """Read and check a bundle. Raises ModelError, in one line, for whatever is missing or does not match."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{folder} is not a bundle: it has no {MANIFEST}") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{folder}/{MANIFEST} is not JSON") from None
    try:
        config, listed, words, precision = _read(manifest)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, ConfigError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ModelError(f"{folder}/{MANIFEST} is malformed: {what}") from None
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ModelError(f"{folder}/{MANIFEST} must state a precision of {known}, got {precision!r}")
    contents = {name: _checked(folder / name, size, sha256) for name, (size, sha256) in listed.items()}
    try:
        vocabulary = Vocabulary.load(folder / "tokenizer.json", source=words["source"])
    except DataError as error:
        raise ModelError(str(error)) from None
    if len(vocabulary) != config.vocab:
        raise ModelError(
            f"{folder}/tokenizer.json must have the {config.vocab} tokens of the model, got {len(vocabulary)}"
        )
    if vocabulary.sha256 != words["sha256"]:
        raise ModelError(
            f"{folder}/tokenizer.json holds other words than the manifest's vocabulary hash names"
        )
    return Bundle(folder, contents["model.onnx"], vocabulary, config, manifest)


def _read(manifest: Any) -> tuple[CifgConfig, dict[str, tuple[int, str]], dict[str, str], str]:
    """The parts of a manifest that are relied on; raises what `load_bundle` catches."""
    if not isinstance(manifest, dict):
        raise ValueError(f"it must be an object, got {type(manifest).__name__}")
    if manifest["format"] != FORMAT:
        raise ValueError(f"format must be {FORMAT}, got {manifest['format']!r}")
    config = CifgConfig(**{name: int(value) for name, value in manifest["config"].items()})
    files = manifest["files"]
    if sorted(files) != sorted(FILES):
        raise ValueError(f"files must be {' and '.join(FILES)}, got {', '.join(sorted(files))}")
    listed = {name: (int(files[name]["bytes"]), str(files[name]["sha256"])) for name in FILES}
    words = {key: str(manifest["vocabulary"][key]) for key in ("sha256", "source")}
    for name in ("rounds", "version"):
        if not isinstance(manifest[name], int | None):
            raise ValueError(f"{name} must be a whole number or null, got {manifest[name]!r}"[:200])
    return config, listed, words, manifest["precision"]


def _checked(path: Path, size: int, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path} is missing from the bundle") from None
    if len(content) != size:
        raise ModelError(f"{path} has {len(content)} bytes where the manifest says {size}")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError(f"{path} was altered: its sha256 is not the manifest's")
    return content
