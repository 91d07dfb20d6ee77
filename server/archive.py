"""Files of a folder in one gzipped tar whose first member, manifest.json, states the size and the sha256 of each other.

Whatever does not fit the manifest is refused, and the manifest has a sha256 of its own: a file that came through a disk
or a network with one other byte is not taken for what it was. None of this stops somebody who writes a manifest.
"""

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from kbdfl.errors import DataError

MANIFEST = "manifest.json"
FORMAT = "kbdfl-backup-1"
MOST_MANIFEST_BYTES = 2**24
CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Part:
    """A file's size and its sha256, in hex."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive holds: facts about it (JSON values), and its files by their names below the folder."""

    facts: dict[str, Any]
    files: dict[str, Part] = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(part.bytes for part in self.files.values())

    def to_bytes(self) -> bytes:
        """As it stands in the archive."""
        document = {"format": FORMAT, **asdict(self)}
        return json.dumps(document | {"seal": _seal(document)}, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> "Manifest":
        """Read what `to_bytes` gave. Raises ValueError or one of its kin for anything else."""
        document = json.loads(content)
        seal = document.pop("seal")
        if document["format"] != FORMAT:
            raise ValueError(f"its format must be {FORMAT}, got {str(document['format'])[:40]!r}")
        if seal != _seal(document):
            raise ValueError("its manifest was altered")
        return cls(document["facts"], {name: Part(**part) for name, part in document["files"].items()})


def pack(folder: Path, names: Iterable[str], target: Path, facts: dict[str, Any]) -> Manifest:
    """Write the files `names` of `folder` to `target`, which only its owner may read, and make it durable."""
    files = {}
    for name in sorted(names):
        with open(folder / name, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        files[name] = Part((folder / name).stat().st_size, sha256)
    manifest = Manifest(facts, files)
    content = manifest.to_bytes()
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
        # Fast: parameters hardly shrink. Neither a name nor a time stands in the head.
        with (
            gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.addfile(_member(MANIFEST, len(content)), io.BytesIO(content))
            for name, part in files.items():
                with open(folder / name, "rb") as file:
                    archive.addfile(_member(name, part.bytes), file)
        raw.flush()
        os.fsync(raw.fileno())
    return manifest


def unpack(source: Path, folder: Path, allowed: re.Pattern[str]) -> Manifest:
    """Write the files of an archive into `folder`, each verified.

    Raises DataError for an archive that is damaged, incomplete, or holds a name that `allowed` does not match.
    """
    try:
        with open(source, "rb") as raw, gzip.GzipFile(fileobj=raw, mode="rb") as packed:
            with tarfile.open(fileobj=packed, mode="r|") as archive:
                manifest = _unpacked(archive, folder, allowed)
            while packed.read(CHUNK):  # to the end, where the checksum of the whole stands
                pass
    except (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError) as error:
        raise _broken(source, _one_line(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(source, _one_line(error)) from None
    return manifest


def _unpacked(archive: tarfile.TarFile, folder: Path, allowed: re.Pattern[str]) -> Manifest:
    """Raises what `unpack` catches."""
    first = archive.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > MOST_MANIFEST_BYTES:
        raise ValueError(f"{MANIFEST} must come first in it")
    manifest = Manifest.from_bytes(_opened(archive, first).read())
    for name in manifest.files:
        if not allowed.fullmatch(name):
            raise ValueError(f"it holds {name[:60]!r}, which is no file of a backup")
    missing = set(manifest.files)
    while (member := archive.next()) is not None:
        if member.name not in missing or not member.isreg():
            raise ValueError(f"its manifest does not name {member.name[:60]!r}, or it comes twice")
        missing.remove(member.name)
        path = folder / member.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if _write(_opened(archive, member), path) != manifest.files[member.name]:
            raise ValueError(f"{member.name} does not have the size and sha256 that the manifest states")
    if missing:
        raise ValueError(f"{min(missing)} is missing")
    return manifest


def _write(file: IO[bytes], path: Path) -> Part:
    """Copy a file, durably; what was copied."""
    size, sha256 = 0, hashlib.sha256()
    with open(path, "xb") as target:
        while chunk := file.read(CHUNK):
            size += len(chunk)
            sha256.update(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    return Part(size, sha256.hexdigest())


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"{member.name[:60]!r} is no file")
    return file


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def _seal(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _one_line(error: Exception) -> str:
    text = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())[:160] or type(error).__name__


def _broken(source: Path, why: str) -> DataError:
    return DataError(f"{source} is not a whole backup: {why}")
