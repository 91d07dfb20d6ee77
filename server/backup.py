"""A copy of a served folder that fits together, made while it is served; and a folder made of it again.

The database is copied first, at one moment, by SQLite itself. The files that its rows name never change, but old ones
are removed as rounds go on; when one that is needed went before it was copied, the copy begins anew. Nothing of the
open round is taken, neither its files nor the row that names them: what a phone reported before its round was closed is
in no backup. An administrator's credentials stay behind too.

Of several tasks each is copied like that, after what is the server's: a log that does not know of a last round yet
is told when the folder is served.
"""

import errno
import fcntl
import os
import re
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

from kbdfl._version import __version__
from kbdfl.errors import ConfigError, DataError, ModelError
from kbdfl.params import load_checkpoint, sync_folder
from kbdfl.server import audit_log
from kbdfl.server.archive import Manifest, pack, unpack
from kbdfl.server.database import DATABASE
from kbdfl.server.postgres.address import RECORDS, Address
from kbdfl.server.records import SqliteRecords
from kbdfl.server.store import SqliteStore
from kbdfl.server.tasks import NAME

ENDING = ".tar.gz"
BY = "command line"
ATTEMPTS = 5  # at a copy, if rounds end while it is made
PATIENCE_S = 10.0  # for another process that writes
TEXTS = ("config.toml", "tokenizer.json")
CHECKPOINTS, BUNDLE, TASKS = "checkpoints", "model", "tasks"

# All that a backup may hold; a folder that is made of one has nothing else.
KEPT = re.compile(
    rf"({TASKS}/{NAME.pattern}/)?"
    rf"({re.escape(DATABASE)}|config\.toml|tokenizer\.json"
    rf"|{CHECKPOINTS}/[0-9]{{6,15}}(\.server)?\.safetensors"
    rf"|{BUNDLE}/([a-z0-9_-]{{1,40}}/)?(manifest\.json|model\.onnx|tokenizer\.json))"
)


def back_up(folder: Path, target: Path) -> Manifest:
    """Write what `folder` holds to `target`, a new .tar.gz, whether it is served meanwhile or not.

    The facts of the manifest are `made_s` (seconds since 1970), `kbdfl` (its version), and `round` and `version`, the
    newest closed round and its model's version, None before the first; of several tasks these two stand in `tasks`, by
    the tasks' names. Raises ConfigError for a target that cannot be,
    DataError for a folder that no server kept, ModelError for one that is damaged.
    """
    folder, target = Path(folder), Path(target)
    if (address := Address.of_folder(folder)) is not None:
        raise ConfigError(
            f"{folder} keeps its task in PostgreSQL; back that up with pg_dump --schema='{address.schema}' "
            f"--schema={RECORDS}"
        )
    if not target.name.endswith(ENDING):
        raise ConfigError(f"a backup's name must end in {ENDING}, got {target}")
    if os.path.lexists(target):
        raise ConfigError(f"{target} is there already; a backup must get a new name")
    if not target.parent.is_dir():
        raise ConfigError(f"a backup must go to a folder that exists, got {target}")
    made_s = time.time()
    records = SqliteRecords.existing(folder)
    try:
        # First, so that the copy holds the entry too: the log of a restored folder says where it parted from this one.
        audit_log.append(records, at_s=made_s, by=BY, what="backup begun", file=target.name)
    finally:
        records.close()
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
        copy = Path(aside) / "copy"
        names = _tasks(folder)
        newest = _copied(folder, copy, rounds=not names)
        _check(copy, newest)
        facts: dict[str, Any] = {"made_s": made_s, "kbdfl": __version__}
        if names:
            (copy / TASKS).mkdir()
            facts["tasks"] = {name: _moment(_copied_task(folder, copy, name)) for name in names}
        else:
            facts |= _moment(newest)
        whole = Path(aside) / target.name
        manifest = pack(copy, _names(copy), whole, facts)
        os.replace(whole, target)
    sync_folder(target.parent)
    return manifest


def restore(source: Path, folder: Path) -> Manifest:
    """Make `folder`, which must be new or empty, of a backup; it is there whole or not at all.

    Only its owner may enter it. Raises ConfigError for another folder, DataError or ModelError for a backup that is not
    whole.
    """
    folder = Path(folder).resolve()
    _refuse_used(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        manifest = unpack(Path(source), fresh, KEPT)
        if DATABASE not in manifest.files:
            raise DataError(f"{source} is not a whole backup: {DATABASE} is missing")
        names = _tasks(fresh)
        _check(fresh, _finished_copy(fresh / DATABASE, rounds=not names))
        for name in names:
            _check(fresh / TASKS / name, _finished_copy(fresh / TASKS / name / DATABASE))
        records = SqliteRecords(fresh)
        try:
            made_s = manifest.facts.get("made_s")
            audit_log.append(records, at_s=time.time(), by=BY, what="restored from a backup", made_s=made_s)
        finally:
            records.close()
        for place in [fresh, *(path for path in fresh.rglob("*") if path.is_dir())]:
            sync_folder(place)
        os.rename(fresh, folder)  # over an empty folder, and no other
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            _refuse_used(folder)
        raise
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return manifest


def releases(folder: Path) -> int:
    """Rows of the privacy ledgers in a restored folder: releases after its backup are in none of them."""
    found = 0
    for path in [folder / DATABASE, *(folder / TASKS / name / DATABASE for name in _tasks(folder))]:
        with closing(sqlite3.connect(path)) as database:
            if database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'privacy_ledger'").fetchone():
                found += database.execute("SELECT count(*) FROM privacy_ledger").fetchone()[0]
    return found


def _refuse_used(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} must be a new or an empty folder, and is a file")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if _is_served(folder):
        raise ConfigError(f"{folder} is being served; a backup must be restored to a new or an empty folder")
    raise ConfigError(f"{folder} is not empty; a backup must be restored to a new or an empty folder")


def _is_served(folder: Path) -> bool:
    try:
        with open(folder / "server.lock", "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or not ours to open: then nobody here serves it
        return False
    return False


# the copy

Newest = tuple[int, int] | None  # the last closed round, and the model's version after it


def _tasks(folder: Path) -> list[str]:
    """The names of the tasks that a folder has beside what is the server's; none if it has one, without a name."""
    return sorted(
        path.parent.name
        for path in (folder / TASKS).glob(f"*/{DATABASE}")
        if NAME.fullmatch(path.parent.name)
    )


def _moment(newest: Newest) -> dict[str, int | None]:
    return dict(zip(("round", "version"), newest or (None, None), strict=True))


def _copied_task(folder: Path, copy: Path, name: str) -> Newest:
    newest = _copied(folder / TASKS / name, copy / TASKS / name)
    _check(copy / TASKS / name, newest)
    return newest


def _copied(folder: Path, into: Path, *, rounds: bool = True) -> Newest:
    """Copy what fits together of `folder`, whose database has `rounds` unless those are the tasks'."""
    missing = folder
    for _ in range(ATTEMPTS):
        into.mkdir()
        try:
            newest = _copy_database(folder / DATABASE, into / DATABASE, rounds=rounds)
            _copy_versions(folder / CHECKPOINTS, into, newest)
            _copy_bundle(folder / BUNDLE, into / BUNDLE)
        except FileNotFoundError as error:
            missing = Path(error.filename or folder)
            shutil.rmtree(into)
            continue
        for name in TEXTS:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, into / name)
        return newest
    raise ModelError(f"{folder} lacks {missing.name}, or removes it before it can be copied")


def _copy_database(source: Path, target: Path, *, rounds: bool) -> Newest:
    """The database at one moment; writers go on meanwhile."""
    address = f"{source.resolve().as_uri()}?mode=rw"  # it is not to be made
    try:
        with (
            closing(sqlite3.connect(address, uri=True, timeout=PATIENCE_S)) as served,
            closing(sqlite3.connect(target)) as copy,
        ):
            served.backup(copy)
    except sqlite3.DatabaseError as error:
        raise ModelError(f"{source} cannot be copied: {error}") from None
    return _finished_copy(target, rounds=rounds)


def _finished_copy(path: Path, *, rounds: bool = True) -> Newest:
    """Leave nothing of the open round in the copy of a database, not even in pages that are free."""
    try:
        with closing(sqlite3.connect(path)) as copy:
            copy.execute("PRAGMA journal_mode = DELETE")
            if rounds:
                with copy:
                    copy.execute("DELETE FROM in_flight")
            copy.execute("VACUUM")
            (said,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise ModelError(f"{path.name} is damaged: {' '.join(str(said).split())[:100]}")
            if not rounds:
                return None
            newest: Newest = copy.execute(
                "SELECT round, version FROM rounds ORDER BY round DESC LIMIT 1"
            ).fetchone()
            return newest
    except sqlite3.DatabaseError as error:
        raise ModelError(f"{path.name} is not the database of a server: {error}") from None


def _copy_versions(source: Path, into: Path, newest: Newest) -> None:
    """The newest version, which must be there, and the earlier ones that are."""
    (into / CHECKPOINTS).mkdir()
    if newest is None:
        return
    _, last = newest
    kept = {int(path.name.split(".")[0]) for path in source.glob("*.server.safetensors")}
    for version in sorted({last, *(v for v in kept if v < last)}, reverse=True):
        pair = [f"{version:06d}{kind}.safetensors" for kind in (".server", "")]
        try:
            for name in pair:
                shutil.copyfile(source / name, into / CHECKPOINTS / name)
        except FileNotFoundError:
            if version == last:
                raise
            for name in pair:  # it was removed as it should be
                (into / CHECKPOINTS / name).unlink(missing_ok=True)


def _copy_bundle(source: Path, into: Path) -> None:
    """The exported model, if there is one. Its folder is replaced whole: all is read from the one that was opened."""
    try:
        opened = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        for place, _, names, at in os.fwalk(".", dir_fd=opened, onerror=_raise):
            (into / place).mkdir(parents=True, exist_ok=True)
            for name in names:
                with (
                    open(os.open(name, os.O_RDONLY, dir_fd=at), "rb") as file,
                    open(into / place / name, "wb") as target,
                ):
                    shutil.copyfileobj(file, target)
    finally:
        os.close(opened)


def _check(folder: Path, newest: Newest) -> None:
    """Read what a server would read when it starts. Raises ModelError if it could not."""
    if newest is None:
        return
    _, version = newest
    _, spec, _ = load_checkpoint(folder / CHECKPOINTS / f"{version:06d}.safetensors")
    store = SqliteStore(folder, spec)
    try:
        store.load()
        if store.damage:  # a server would go on from an earlier version
            raise ModelError(store.damage)
    finally:
        store.close()


def _names(folder: Path) -> list[str]:
    """The files of a copy that a backup holds; the lock that checking it left is none."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in names if KEPT.fullmatch(name)]


def _raise(error: OSError) -> NoReturn:
    raise error
