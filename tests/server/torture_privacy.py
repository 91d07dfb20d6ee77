"""A server of a task with privacy that is killed again and again, and a reckoning of its ledger.

`python -m tests.server.torture_privacy --kills 300`. As in torture.py it dies at random moments, or around a random
commit, flush, rename or truncation. After each death every model has exactly one row that came before it, no round has
two, no device comes back before its time, and a model that was there is the same as before.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np

from kbdfl.algorithms import PRESETS
from kbdfl.coordinator import Coordinator
from kbdfl.model import init_params
from kbdfl.params import digest
from kbdfl.privacy import Row
from kbdfl.privacy.ledger import check_rows
from kbdfl.server import serving
from kbdfl.server.app import create_app
from kbdfl.server.service import TaskService
from kbdfl.server.store import SqliteStore
from kbdfl.task import RoundRule
from tests.server import torture

SEPARATION = 3
PRIVATE = PRESETS["dp-banded"]
TASK = replace(
    torture.TASK,
    algorithm=replace(
        PRIVATE,
        upload="float32",
        privacy=replace(PRIVATE.privacy, epsilon=0.0, noise_multiplier=2.0, separation=SEPARATION, bands=2),
    ),
    rule=RoundRule(cohort=6, over_selection=1.5, rounds=5_000, deadline_s=3.0, min_reports=3, pace_s=0.05),
)


def serve(folder: Path, port: int) -> None:
    """The server that is to be killed."""
    held = SqliteStore(folder, TASK.config.spec)
    coordinator = Coordinator(
        TASK,
        init_params(TASK.config, seed=1),
        store=held,
        random=np.random.default_rng(),
        privacy=TASK.central(held.books),
    )
    service = TaskService(coordinator, held)
    service.start()
    with serving.listen("127.0.0.1", port) as listener:
        server = serving.HttpServer(create_app(service), listener, threads=8, max_body_bytes=1 << 20)
        serving.serve(server)
    service.close()


@dataclass
class Reckoning:
    """What was seen after each death, and must be so after the next one."""

    rows: list[Row] = field(default_factory=list)
    models: dict[int, str] = field(default_factory=dict)  # by version
    lost: set[int] = field(default_factory=set)  # rounds whose release nobody saw

    def go_on(self, books: torture.Books) -> None:
        """Compare what the server kept with what it must have kept."""
        database = books._database
        texts = database.execute("SELECT row FROM privacy_ledger ORDER BY number").fetchall()
        rows = check_rows([Row.from_json(text) for (text,) in texts])
        assert rows[: len(self.rows)] == self.rows, "rows were lost or changed"
        self.rows, by_round = rows, {row.round: row for row in rows}
        assert len(by_round) == len(rows), "a round was released twice"
        closed = books.rounds(-1)
        for number, _, status, metrics in closed:
            if status == "committed":
                assert metrics["reports"] == by_round[number].devices
                assert metrics["epsilon"] == by_round[number].epsilon
        committed = {number for number, _, status, _ in closed if status == "committed"}
        assert max(by_round, default=-1) <= len(closed), "a round that is not open yet has a row"
        self.lost = by_round.keys() - committed
        self._devices(database, rows)
        self._models(books, closed)

    def _devices(self, database, rows: list[Row]) -> None:
        parts = database.execute("SELECT device, count, last FROM privacy_parts").fetchall()
        assert sum(count for _, count, _ in parts) == sum(row.devices for row in rows)
        of_last = Counter(last for _, _, last in parts)
        assert all(of_last[row.number] == row.devices for row in rows[-SEPARATION:])
        releases, numbers = {row.round: row.number for row in rows}, defaultdict(list)
        for number, device in database.execute("SELECT round, device FROM counted ORDER BY round"):
            if number in releases:
                numbers[device].append(releases[number])
        for device, taken in numbers.items():
            assert all(b - a >= SEPARATION for a, b in pairwise(taken)), f"{device} came back too early"

    def _models(self, books: torture.Books, closed) -> None:
        if closed:
            version = closed[-1][1]
            sha256 = digest(books.params(version))
            assert self.models.setdefault(version, sha256) == sha256, f"version {version} was made again"


def torment(home: Path, *, kills: int, seed: int) -> dict[str, int]:
    """Kill a server so often. Raises AssertionError where its ledger or its models are not as they must be."""
    chance, folder, reckoning = random.Random(seed), home / "run", Reckoning()
    with serving.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    with mock.patch.object(torture, "TASK", TASK):
        phones = torture.Phones(f"http://127.0.0.1:{port}")
        threads = [threading.Thread(target=phones.play, args=(number,)) for number in range(torture.PHONES)]
        for thread in threads:
            thread.start()
        try:
            for number in range(kills + 1):
                # Mostly around commits, where ledger and model could part.
                point = chance.choice(("commit", "commit", "commit", "replace", "fsync", None))
                command = [sys.executable, "-m", "tests.server.torture_privacy", "--serve", str(folder)]
                command += ["--port", str(port)]
                if point and number < kills:
                    command += ["--die-at", point, "--count", str(chance.randint(40, 90))]
                    command += ["--before"] * chance.randint(0, 1)
                process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
                torture.wait_ready(port, process)
                if number == kills:
                    break
                try:
                    process.wait(timeout=3.0 if point else chance.uniform(0.2, 0.8))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                assert process.returncode == -signal.SIGKILL, (
                    f"the server ended by itself: {process.returncode}"
                )
                with torture.reading(folder) as books:
                    reckoning.go_on(books)
            time.sleep(1.0)
        finally:
            phones.stop.set()
            for thread in threads:
                thread.join()
            process.terminate()
            process.wait()
    assert not phones.errors, phones.errors
    with torture.reading(folder) as books:
        reckoning.go_on(books)
    return {"kills": kills, "releases": len(reckoning.rows), "lost": len(reckoning.lost)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=os.getpid())
    parser.add_argument("--serve", type=Path, help="be the server of this folder")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--die-at", choices=torture.POINTS)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--before", action="store_true")
    options = parser.parse_args()
    if options.serve is not None:
        if options.die_at:
            torture.die_at(options.die_at, options.count, before=options.before)
        serve(options.serve, options.port)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = torment(Path(folder), kills=options.kills, seed=options.seed)
    sys.stdout.write(json.dumps({"seed": options.seed} | found) + "\n")


if __name__ == "__main__":
    main()
