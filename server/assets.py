"""Files as they are served: read, hashed and compressed once."""

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from flask import Response, request

from kbdfl.errors import NotFound

FOR_GOOD = "public, max-age=31536000, immutable"  # for an address that names its version
ASK_AGAIN = "no-cache"  # for an address that stays while its content is replaced
SCRIPT = "text/javascript; charset=utf-8"

NODE_MODULES = Path(__file__).with_name("web") / "node_modules"  # `npm ci` in server/web/ makes it
RUNTIME_MODULE = "ort.wasm.bundle.min.mjs"
RUNTIME_TYPES = {RUNTIME_MODULE: SCRIPT, "ort-wasm-simd-threaded.wasm": "application/wasm"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of `size` bytes, which stand in `kept`, gzipped or as they are; sha256 is of the file itself."""

    kept: bytes = field(repr=False)
    gzipped: bool
    size: int
    sha256: str
    content_type: str

    @classmethod
    def of(cls, content: bytes, content_type: str, *, compress: bool = True) -> "Asset":
        kept = gzip.compress(content, 6, mtime=0) if compress else content
        return cls(kept, compress, len(content), hashlib.sha256(content).hexdigest(), content_type)

    def response(self, cache_control: str) -> Response:
        """The answer to the request at hand: gzipped if it may be, 304 if the asker has it already."""
        response = Response(content_type=self.content_type)
        response.headers["Cache-Control"] = cache_control
        packed = self.gzipped and request.accept_encodings.quality("gzip") > 0
        if self.gzipped:
            response.headers["Vary"] = "Accept-Encoding"
        tag = f"{self.sha256}-gzip" if packed else self.sha256  # a strong tag names the bytes that are sent
        response.set_etag(tag)
        if request.if_none_match.contains(tag):
            response.status_code = 304
        elif packed:
            response.headers["Content-Encoding"] = "gzip"
            response.set_data(self.kept)
        else:
            response.set_data(gzip.decompress(self.kept) if self.gzipped else self.kept)
        return response


@dataclass(frozen=True, slots=True)
class WebRuntime:
    """onnxruntime-web as npm has installed it: the two files that a page needs of it."""

    folder: Path
    version: str

    @classmethod
    def find(cls, node_modules: Path = NODE_MODULES) -> "WebRuntime | None":
        """The package in `node_modules`; None when it, or one of its files, is not there."""
        folder = node_modules / "onnxruntime-web"
        if not all((folder / "dist" / name).is_file() for name in RUNTIME_TYPES):
            return None
        return cls(folder / "dist", json.loads((folder / "package.json").read_bytes())["version"])

    def asset(self, version: str, name: str) -> Asset:
        """Raises NotFound for all but the files of RUNTIME_TYPES in the version that is there."""
        if version != self.version or name not in RUNTIME_TYPES:
            raise NotFound(f"onnxruntime-web {self.version} has {' and '.join(RUNTIME_TYPES)} here")
        return _runtime_asset(self.folder / name, RUNTIME_TYPES[name])


def distance_library(node_modules: Path = NODE_MODULES) -> tuple[str, Asset] | None:
    """Version and module of fastest-levenshtein, with which a page corrects slips; None when it is not there."""
    folder = node_modules / "fastest-levenshtein"
    module = folder / "esm" / "mod.js"
    if not module.is_file():
        return None
    version = json.loads((folder / "package.json").read_bytes())["version"]
    return version, Asset.of(module.read_bytes(), SCRIPT)


@cache
def _runtime_asset(path: Path, content_type: str) -> Asset:
    return Asset.of(path.read_bytes(), content_type)
