"""A server that is killed again and again while phones report and retry, and a reckoning of all that it acknowledged.

`python -m tests.server.torture --kills 1000` is `make torture`; with `--postgres --servers 3` it is several servers on
one task in PostgreSQL (torture_postgres.py). The server is a process of its own with the real HTTP
server; it is killed with SIGKILL at a random moment, or just before or after a random flush, rename, truncation or
commit. After each death its database is read: every report that was acknowledged must be in exactly one round, and the
model must be, to the bit, what the frames of the counted reports add up to.

With `--power` every death is a power cut too, after which only what was flushed is left (powercut.py). With
`--careless` SQLite does not flush, and a power cut must cost something, or these trials would prove nothing.
"""

import argparse
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import urllib3

from kbdfl import identity
from kbdfl.algorithms import Algorithm, FedAdam
from kbdfl.assignment import Assignment
from kbdfl.coordinator import STATE_CLASSES, Coordinator
from kbdfl.device_sim.agent import ServerClient
from kbdfl.errors import Conflict, KbdflError
from kbdfl.model import CifgConfig, init_params
from kbdfl.params import digest, load_checkpoint
from kbdfl.rng import seed_of, stream
from kbdfl.rounds import OpenRound
from kbdfl.server import serving
from kbdfl.server.app import create_app
from kbdfl.server.service import TaskService
from kbdfl.server.store import SqliteStore
from kbdfl.snapshot import unpack
from kbdfl.task import RoundRule, Task
from kbdfl.transform import encode_chain
from kbdfl.wire import decode_report, encode_report
from tests.server.powercut import Platter

PHONES = 32
SAID = 100  # kills between two lines that say how it stands
POINTS = ("fsync", "replace", "truncate", "commit")
TASK = Task(
    name="torture",
    config=CifgConfig(vocab=40, embed=4, hidden=6),
    algorithm=Algorithm(server=FedAdam()),
    rule=RoundRule(cohort=20, over_selection=1.5, rounds=10**6, deadline_s=3.0, min_reports=5, pace_s=0.05),
    vocabulary_sha256="0" * 64,
    seed=1,
)
START = init_params(TASK.config, seed=1)


def serve(folder: Path, port: int) -> None:
    """The server that is to be killed."""
    held = SqliteStore(folder, TASK.config.spec)
    coordinator = Coordinator(TASK, START, store=held, random=np.random.default_rng())
    service = TaskService(coordinator, held)
    service.start()
    with serving.listen("127.0.0.1", port) as listener:
        server = serving.HttpServer(create_app(service), listener, threads=8, max_body_bytes=1 << 20)
        serving.serve(server)
    service.close()


class Careless(sqlite3.Connection):
    """Says that it flushes, and does not."""

    def execute(self, query, *arguments):
        if query == "PRAGMA synchronous":
            return super().execute("SELECT 2")
        return super().execute(query.replace("synchronous = FULL", "synchronous = OFF"), *arguments)


def die_at(point: str, count: int, *, before: bool) -> None:
    """Arrange that this process kills itself at the `count`-th call of one of POINTS."""
    left = [count]

    def deadly(function):
        @functools.wraps(function)
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] == 0 and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **options)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    if point == "commit":

        class Dying(sqlite3.Connection):
            __exit__ = deadly(sqlite3.Connection.__exit__)

        sqlite3.connect = functools.partial(sqlite3.connect, factory=Dying)
    else:
        setattr(os, point, deadly(getattr(os, point)))


@dataclass
class Phones:
    """Phones in threads, and what they sent and were told."""

    url: str
    frames: dict[bytes, tuple[Assignment, str, bytes]] = field(
        default_factory=dict
    )  # by the sha256 of a frame
    acknowledged: set[bytes] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)
    errors: list[str] = field(default_factory=list)

    def play(self, number: int) -> None:
        """One phone: it goes on until it is stopped, and sends a report until it hears what became of it."""
        try:
            self._play(self._client(number), stream(1, "torture", str(number)))
        except Exception as error:
            self.errors.append(f"phone {number}: {type(error).__name__}: {error}")

    def _client(self, number: int) -> ServerClient:
        return ServerClient(self.url, connections=1, timeout_s=5.0)

    def _play(self, client: ServerClient, draw: np.random.Generator) -> None:
        key = identity.generate_key()
        device = self._until(lambda: client.enrol(identity.public_key(key)))
        while not self.stop.is_set():
            check_in = functools.partial(client.signed, key, "POST", "/v1/check-in")
            answer = json.loads(self._until(check_in) or b'{"status": "wait", "retry_after_s": 0}')
            if answer.pop("status") != "assigned":
                self.stop.wait(answer.get("retry_after_s", 0.05))
                continue
            assignment = Assignment.from_json(answer)
            frame = report_of(
                assignment, device, 0.01 * draw.standard_normal(TASK.config.spec.size, np.float32)
            )
            sha = hashlib.sha256(frame).digest()
            self.frames[sha] = (assignment, device, frame)
            path = f"/v1/rounds/{assignment.round}/report"
            send = functools.partial(
                client.signed, key, "POST", path, body=frame, content_type="application/octet-stream"
            )
            if self._until(send) is not None:
                self.acknowledged.add(sha)

    def _until(self, ask):
        """The answer, however often the server dies meanwhile; None if it is a refusal, or the phones are stopped."""
        while not self.stop.is_set():
            try:
                return ask()
            except Conflict:
                return None
            except KbdflError as error:
                if "was refused" in str(error):
                    raise
                self.stop.wait(0.05)
        return None


@contextmanager
def reading(folder: Path) -> Iterator["Books"]:
    """A copy of the server's database: who closes the last connection to one changes its files."""
    with tempfile.TemporaryDirectory() as copies:
        for path in folder.glob("server.sqlite3*"):
            shutil.copy(path, copies)
        with closing(sqlite3.connect(Path(copies) / "server.sqlite3")) as database:
            yield Books(folder, database)


class Books:
    """What a server has kept, in a folder."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self._folder, self._database = folder, database

    def rounds(self, after: int) -> list[tuple[int, int, str, dict]]:
        """(number, version, status, metrics) of the closed rounds after one."""
        query = "SELECT round, version, status, metrics FROM rounds WHERE round > ? ORDER BY round"
        return [(*row, json.loads(text)) for *row, text in self._database.execute(query, (after,))]

    def counted(self, number: int) -> list[bytes]:
        """The sha256 of the frames that a round counted."""
        query = "SELECT sha256 FROM counted WHERE round = ?"
        return [sha for (sha,) in self._database.execute(query, (number,))]

    def params(self, version: int) -> np.ndarray:
        return load_checkpoint(self._folder / "checkpoints" / f"{version:06d}.safetensors")[0]

    def open_counted(self, number: int) -> set[bytes]:
        """The same of the open round, if that is round `number`."""
        row = self._database.execute("SELECT place FROM in_flight").fetchone()
        if row is None:
            return set()
        state = unpack((self._folder / f"in-flight-{row[0]}.bin").read_bytes(), classes=STATE_CLASSES)
        return counted_in(state["open"]) if state["round"] == number else set()


def counted_in(known: dict) -> set[bytes]:
    """The sha256 of the frames in the state of an open round."""
    open_round = OpenRound(TASK.algorithm.gathering(TASK.config.spec.size))
    open_round.know(known)
    return {sha for _, sha in open_round.counted}


def report_of(assignment: Assignment, device: str, delta: np.ndarray) -> bytes:
    """A frame with an update."""
    return encode_report(
        encode_chain(TASK.algorithm.transforms, delta, assignment.draws),
        task=assignment.task,
        round=assignment.round,
        device=device,
        model_sha256=assignment.model_sha256,
        spec_hash=assignment.spec,
        upload=assignment.upload,
        examples=5,
        tokens=40,
        train_loss=3.5,
    )


class Reckoning:
    """The model as it must be, from the frames alone, in an order of its own."""

    def __init__(self) -> None:
        self.round, self.version, self.params = -1, 0, START
        self.state = TASK.algorithm.server.init(TASK.config.spec.size)
        self.counted: dict[bytes, int] = {}  # the round of a counted report

    def go_on(self, books: Books, phones: Phones) -> None:
        """Follow the rounds that were closed since, and look at the model after them."""
        rounds = books.rounds(self.round - 1)
        assert self.round < 0 or rounds, f"round {self.round} was closed, and is not there"
        for number, version, status, metrics in rounds:
            if number > self.round:
                self._close(number, version, status, books.counted(number), metrics, phones)
        if self.round >= 0:
            params = books.params(self.version)
            assert digest(params) == digest(self.params), f"the model after round {self.round} is another"

    def _close(self, number, version, status, shas, metrics, phones) -> None:
        assert number == self.round + 1, f"round {self.round} was followed by {number}"
        assert metrics["reports"] == len(shas), (
            f"round {number} counted {metrics['reports']}, knows {len(shas)}"
        )
        total = TASK.algorithm.gathering(TASK.config.spec.size)
        for sha in sorted(shas):
            assert sha not in self.counted, (
                f"a report of round {self.counted[sha]} was counted in {number} too"
            )
            assignment, device, frame = phones.frames[sha]
            assert assignment.round == number
            report = decode_report(frame, max_bytes=TASK.max_report_bytes)
            total.add(device, report.update, assignment.draws, weight=TASK.algorithm.weight(report.examples))
            self.counted[sha] = number
        if status == "committed":
            self.params, self.state = TASK.algorithm.server.apply(
                self.params, total.mean(), self.state, round=self.version
            )
            self.version += 1
        assert version == self.version
        self.round = number


def torture(
    home: Path, *, kills: int, seed: int, power: bool = False, careless: bool = False
) -> dict[str, float]:
    """Kill a server so often; raises AssertionError where it lost something, or counted it twice."""
    chance, folder = random.Random(seed), home / "run"
    platter = Platter(folder, home / "platter") if power else None
    start = functools.partial(_start, folder, careless=careless, platter=platter)
    with serving.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    phones, reckoning, ready = Phones(f"http://127.0.0.1:{port}"), Reckoning(), []
    threads = [threading.Thread(target=phones.play, args=(number,)) for number in range(PHONES)]
    for thread in threads:
        thread.start()
    try:
        for number in range(kills + 1):
            point = None if chance.random() < 0.5 else (chance.choice(POINTS), chance.randint(1, 60))
            began = time.monotonic()
            process = start(port, point if number < kills else None, before=chance.random() < 0.5)
            wait_ready(port, process)
            ready.append(time.monotonic() - began)
            if number == kills:
                break
            try:
                process.wait(timeout=3.0 if point else chance.uniform(0.0, 0.6))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.returncode == -signal.SIGKILL, f"the server ended by itself: {process.returncode}"
            if platter is not None:
                platter.cut()
            with reading(folder) as books:
                reckoning.go_on(books, phones)
            if (number + 1) % SAID == 0:
                said = f"{number + 1} kills, {len(phones.acknowledged)} reports acknowledged, nothing wrong so far\n"
                sys.stderr.write(said)
        time.sleep(1.0)
    finally:
        phones.stop.set()
        for thread in threads:
            thread.join()
        process.terminate()
        process.wait()
    assert not phones.errors, phones.errors
    with reading(folder) as books:
        reckoning.go_on(books, phones)
        return summary(books, phones, reckoning, ready)


def summary(books: Books, phones: Phones, reckoning: Reckoning, ready: list[float]) -> dict[str, float]:
    """What came of it. Raises AssertionError if an acknowledged report is in no round, open or closed."""
    open_ = books.open_counted(reckoning.round + 1)
    lost = phones.acknowledged - reckoning.counted.keys() - open_
    assert not lost, f"{len(lost)} acknowledged reports are in no round"
    return {
        "kills": len(ready) - 1,
        "rounds": reckoning.round + 1,
        "committed": reckoning.version,
        "acknowledged": len(phones.acknowledged),
        "counted": len(reckoning.counted),
        "lost": len(lost),
        "ready_p50_s": round(float(np.percentile(ready, 50)), 3),
        "ready_p99_s": round(float(np.percentile(ready, 99)), 3),
    }


def _start(
    folder: Path,
    port: int,
    point: tuple[str, int] | None,
    *,
    before: bool,
    careless: bool,
    platter: Platter | None,
) -> subprocess.Popen:
    options = ["--serve", str(folder), "--port", str(port)]
    if point is not None:
        options += ["--die-at", point[0], "--count", str(point[1])] + ["--before"] * before
    options += ["--careless"] * careless
    return subprocess.Popen(
        [sys.executable, "-m", "tests.server.torture", *options],
        stderr=subprocess.DEVNULL,
        env=os.environ | (platter.environment if platter else {}),
    )


def wait_ready(port: int, process: subprocess.Popen) -> None:
    pool = urllib3.PoolManager(retries=False, timeout=2.0)
    while process.poll() is None:
        try:
            if pool.request("GET", f"http://127.0.0.1:{port}/healthz").status == 200:
                return
        except urllib3.exceptions.HTTPError:
            time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=seed_of(time.time_ns(), "torture") % 10**6)
    parser.add_argument("--power", action="store_true", help="every death is a power cut")
    parser.add_argument(
        "--careless", action="store_true", help="SQLite does not flush: something must be lost"
    )
    parser.add_argument("--postgres", action="store_true", help="several servers on a task in PostgreSQL")
    parser.add_argument("--servers", type=int, default=3, help="so many, with --postgres")
    parser.add_argument("--serve", type=Path, help="be the server of this folder")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--die-at", choices=POINTS)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--before", action="store_true")
    options = parser.parse_args()
    if options.serve is not None:
        if options.careless:
            sqlite3.connect = functools.partial(sqlite3.connect, factory=Careless)
        if options.die_at:
            die_at(options.die_at, options.count, before=options.before)
        serve(options.serve, options.port)
        return
    if options.postgres:
        from tests.server import torture_postgres

        found = torture_postgres.torture(kills=options.kills, servers=options.servers, seed=options.seed)
        sys.stdout.write(json.dumps({"seed": options.seed} | found) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        how = {
            "kills": options.kills,
            "seed": options.seed,
            "power": options.power,
            "careless": options.careless,
        }
        found = torture(Path(folder), **how)
    sys.stdout.write(json.dumps({"seed": options.seed} | found) + "\n")


if __name__ == "__main__":
    main()
