"""A PostgreSQL of the tests' own, from Debian's binaries, or the one that KBDFL_POSTGRES names.

Each test gets a database of its own. PostgreSQL does not run as root, so root runs it as somebody else.
"""

import contextlib
import functools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE_S = 60.0
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no test here cuts the power
USERS = ("postgres", "nobody")  # who runs it for root
TUNED = ("shared_buffers=16MB", "max_connections=60", "max_wal_size=128MB", "listen_addresses=")


def programs() -> Path | None:
    """The folder with initdb and postgres; None if they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: path.parts[-3].zfill(4))
    if found:
        return found[-1].parent
    path = shutil.which("initdb")
    return Path(path).resolve().parent if path else None


def missing() -> str | None:
    """Why there is no PostgreSQL for tests; None if there is one."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed (pip install 'kbdfl[postgres]')"
    if os.environ.get("KBDFL_POSTGRES") or programs():
        return None
    return "no PostgreSQL is installed (Debian: apt install postgresql), and KBDFL_POSTGRES names none"


@contextlib.contextmanager
def running(*options: str) -> Iterator[str]:
    """The address of a server, without a database's name; `options` are settings like fsync=off."""
    given = os.environ.get("KBDFL_POSTGRES")
    if given and not options:
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="kbdfl-postgres-", dir=MEMORY))
    who = _user()
    identity = {} if who is None else {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
    if who is not None:
        os.chown(folder, who.pw_uid, who.pw_gid)
    run = functools.partial(
        subprocess.run,
        check=True,
        capture_output=True,
        cwd=folder,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        **identity,
    )
    try:
        run(
            [
                programs() / "initdb",
                "-D",
                folder / "data",
                "-U",
                "kbdfl",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
            ]
        )
        settings = [part for each in (*TUNED, *options) for part in ("-c", each)]
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen(
                [programs() / "postgres", "-D", folder / "data", "-k", folder, *settings],
                stdout=log,
                stderr=log,
                cwd=folder,
                **identity,
            )
        try:
            url = f"postgresql://kbdfl@/postgres?host={folder}"
            _wait_ready(url, server, folder / "log")
            yield url
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(PATIENCE_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def database(url: str) -> Iterator[str]:
    """The address of a new database on a server; it is dropped at the end."""
    import psycopg

    name = f"kbdfl_test_{secrets.token_hex(6)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield _named(url, name)
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _named(url: str, name: str) -> str:
    head, _, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    return f"{scheme}://{rest.split('/')[0]}/{name}" + (f"?{query}" if query else "")


def _user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in USERS if name in known)


def _wait_ready(url: str, server: subprocess.Popen, log: Path) -> None:
    import psycopg

    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-500:]}") from None
            time.sleep(0.05)
