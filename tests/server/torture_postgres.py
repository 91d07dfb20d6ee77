"""Several servers on one task in PostgreSQL, killed one at a time while phones go to whichever they like.

`python -m tests.server.torture --postgres --servers 3 --kills 300`. Each server is a process of its own; it is killed
with SIGKILL at a random moment, or just before or after a statement that it sends to PostgreSQL, while the others go
on. After each death the database is read: every report that was acknowledged must be in exactly one round, and the
model must be, to the bit, what the frames of the counted reports add up to.
"""

import argparse
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from kbdfl.coordinator import STATE_CLASSES, Coordinator
from kbdfl.device_sim.agent import ServerClient
from kbdfl.params import unpack_checkpoint
from kbdfl.server import serving
from kbdfl.server.app import create_app
from kbdfl.server.postgres.address import Address
from kbdfl.server.postgres.link import Link
from kbdfl.server.postgres.store import PostgresStore
from kbdfl.server.service import TaskService
from kbdfl.snapshot import unpack
from tests.server import cluster
from tests.server.torture import PHONES, START, TASK, Phones, Reckoning, counted_in, summary, wait_ready


def serve(folder: Path, url: str, port: int) -> None:
    """One of the servers that are to be killed."""
    store = PostgresStore(folder, TASK.config.spec, address=Address(url))
    coordinator = Coordinator(TASK, START, store=store, random=np.random.default_rng())
    service = TaskService(coordinator, store)
    service.start()
    with serving.listen("127.0.0.1", port) as listener:
        server = serving.HttpServer(create_app(service), listener, threads=8, max_body_bytes=1 << 20)
        serving.serve(server)
    service.close()


def die_at(count: int, *, before: bool) -> None:
    """Arrange that this process kills itself at the `count`-th statement that it sends."""
    left, ask = [count], Link._run

    @functools.wraps(ask)
    def deadly(*arguments):
        left[0] -= 1
        if left[0] == 0 and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = ask(*arguments)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Link._run = deadly


class RoamingPhones(Phones):
    """Each request goes to any of the servers."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls[0])
        self._urls = urls

    def _client(self, number: int) -> "_Roaming":
        return _Roaming(self._urls, random.Random(number))


class _Roaming:
    def __init__(self, urls: list[str], chance: random.Random) -> None:
        self._clients = [ServerClient(url, connections=1, timeout_s=5.0) for url in urls]
        self._chance = chance

    def __getattr__(self, name: str):
        return lambda *arguments, **more: getattr(self._chance.choice(self._clients), name)(
            *arguments, **more
        )


class Books:
    """What the servers have kept, as of one moment."""

    def __init__(self, connection) -> None:
        self._connection = connection

    def rounds(self, after: int) -> list[tuple[int, int, str, dict]]:
        query = "SELECT round, version, status, metrics FROM rounds WHERE round > %s ORDER BY round"
        return [(*row, json.loads(text)) for *row, text in self._connection.execute(query, (after,))]

    def counted(self, number: int) -> list[bytes]:
        query = "SELECT sha256 FROM counted WHERE round = %s"
        return [sha for (sha,) in self._connection.execute(query, (number,))]

    def params(self, version: int) -> np.ndarray:
        query = "SELECT checkpoint FROM versions WHERE version = %s"
        ((content,),) = self._connection.execute(query, (version,))
        return unpack_checkpoint(content, name=f"version {version}")[0]

    def open_counted(self, number: int) -> set[bytes]:
        ((found, state),) = self._connection.execute("SELECT round, state FROM turn")
        if found != number or state is None:
            return set()
        return counted_in(unpack(state, classes=STATE_CLASSES)["open"])


@contextmanager
def reading(url: str) -> Iterator[Books]:
    """The database at one moment; servers go on meanwhile."""
    import psycopg

    with psycopg.connect(url, options="-c search_path=kbdfl_default") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        yield Books(connection)


def torture(*, kills: int, servers: int, seed: int, url: str | None = None) -> dict[str, float]:
    """Kill servers so often; raises AssertionError where something is lost, or counted twice."""
    if url is None:
        with cluster.running() as found, cluster.database(found) as url:
            return torture(kills=kills, servers=servers, seed=seed, url=url)
    with tempfile.TemporaryDirectory() as home:
        return _torture(Path(home), url, kills=kills, servers=servers, seed=seed)


def _torture(home: Path, url: str, *, kills: int, servers: int, seed: int) -> dict[str, float]:
    chance = random.Random(seed)
    ports = []
    for _ in range(servers):
        with serving.listen("127.0.0.1", 0) as listener:
            ports.append(listener.getsockname()[1])
    phones, reckoning, ready = RoamingPhones([f"http://127.0.0.1:{port}" for port in ports]), Reckoning(), []

    def start(number: int, *, deadly: bool) -> subprocess.Popen:
        options = ["--folder", str(home / f"server {number}"), "--url", url, "--port", str(ports[number])]
        if deadly:
            options += ["--die-at", str(chance.randint(1, 400))] + ["--before"] * (chance.random() < 0.5)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.torture_postgres", *options], stderr=subprocess.DEVNULL
        )
        wait_ready(ports[number], process)
        return process

    processes = {number: start(number, deadly=False) for number in range(servers)}
    threads = [threading.Thread(target=phones.play, args=(number,)) for number in range(PHONES)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(kills):
            victim = chance.randrange(servers)
            process = processes[victim]
            try:
                process.wait(timeout=chance.uniform(0.0, 0.6))  # one that dies by itself may be about to
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.returncode == -signal.SIGKILL, f"a server ended by itself: {process.returncode}"
            with reading(url) as books:
                reckoning.go_on(books, phones)
            began = time.monotonic()
            processes[victim] = start(victim, deadly=chance.random() < 0.5)
            ready.append(time.monotonic() - began)
        time.sleep(1.0)
    finally:
        phones.stop.set()
        for thread in threads:
            thread.join()
        for process in processes.values():
            process.terminate()
            process.wait()
    assert not phones.errors, phones.errors
    with reading(url) as books:
        reckoning.go_on(books, phones)
        return {"servers": servers, **summary(books, phones, reckoning, [*ready, 0.0]), "kills": kills}


def main() -> None:
    parser = argparse.ArgumentParser(description="One of the servers of a torture.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--before", action="store_true")
    options = parser.parse_args()
    if options.die_at:
        die_at(options.die_at, before=options.before)
    serve(options.folder, options.url, options.port)


if __name__ == "__main__":
    main()
