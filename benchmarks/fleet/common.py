"""What all contestants share: the data, the schedule, the clock, recall, memory and the line of JSON at the end.

It needs numpy and nothing else, so that every contestant can read it in an environment of its own.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# What a phone does in a round; `prepare.py` refuses to write data for a kbdfl whose defaults are others.
MESSAGES, WORDS, BATCH = 200, 30, 16  # messages of a phone a round, words of a message, messages a step
CLIENT_RATE, CLIP = 3.0, 1.0
COHORT = 10
# FedAdam; its rate falls to a tenth over the rounds.
BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-4

SPECIALS = 4  # ids below are no words: neither learned nor suggested
IGNORED = -1
MODES = ("check", "train", "noop", "recall")
CHECK_ROUNDS = 2  # of one phone that has the same batches in both
_SAMPLE_S = 0.5  # between two looks at the memory
_SENTENCES = 64  # measured at a time

_started = time.perf_counter()

Params = dict[str, np.ndarray]


class Packed(NamedTuple):
    """A batch without padding: all sentences' first tokens, then the second of those that have one, and so on.

    inputs, targets int32 (N,), a target IGNORED is not learned; active int32 (T,) counts sentences at each step.
    """

    inputs: np.ndarray
    targets: np.ndarray
    active: np.ndarray

    @property
    def learned(self) -> int:
        """Targets that are learned."""
        return int((self.targets != IGNORED).sum())


def pack(sentences: Sequence[np.ndarray]) -> Packed:
    """Sentences `[<bos>, word, ...]`, each word predicted from those before it."""
    ordered = sorted(sentences, key=len, reverse=True)
    lengths = np.array([len(sentence) - 1 for sentence in ordered])
    padded = np.zeros((len(ordered), lengths[0] + 1), np.int32)
    for row, sentence in zip(padded, ordered, strict=True):
        row[: len(sentence)] = sentence
    alive = np.arange(lengths[0])[:, None] < lengths
    targets = padded[:, 1:].T[alive]
    targets[targets < SPECIALS] = IGNORED
    return Packed(padded[:, :-1].T[alive], targets, alive.sum(1).astype(np.int32))


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Sentences of different lengths, one after another: `tokens` int32, sentence i from starts[i] to starts[i + 1]."""

    tokens: np.ndarray
    starts: np.ndarray

    def __getitem__(self, index: int) -> np.ndarray:
        return self.tokens[self.starts[index] : self.starts[index + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1


class Data:
    """What `prepare.py` wrote.

    config    vocab, embed, hidden, preset, seed, server_rate and the sha256 of the vocabulary
    params    the model that everybody starts from, by name
    messages  of all training users; `users` (U + 1,) says where each one's begin
    held_out  sentences of users who never train
    expected  of `check`: the batches' sentences, and what kbdfl makes of them
    """

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            found = {name: file[name] for name in file.files}
        self.config: dict[str, Any] = json.loads(str(found["config"]))
        self.params = {name[7:]: value for name, value in found.items() if name.startswith("params_")}
        self.messages = Ragged(found["tokens"], found["starts"])
        self.users = found["users"]
        self.held_out = Ragged(found["held_out_tokens"], found["held_out_starts"])
        self.expected = {name[9:]: value for name, value in found.items() if name.startswith("expected_")}

    def __len__(self) -> int:
        return len(self.users) - 1

    def draw(self, user: int, random: np.random.Generator) -> tuple[list[list[np.ndarray]], int]:
        """A round of a phone: its shuffled messages in batches, and how many there are."""
        first, last = int(self.users[user]), int(self.users[user + 1])
        order = first + random.permutation(last - first)[:MESSAGES]
        sentences = [self.messages[i][: WORDS + 1] for i in order]
        return split(sentences), len(sentences)

    def check_batches(self) -> list[list[np.ndarray]]:
        """The batches of `check`, in their order."""
        sentences = Ragged(self.expected["tokens"], self.expected["starts"])
        return split([sentences[i] for i in range(len(sentences))])


def split(sentences: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Batches of BATCH sentences, without those that have no word to learn: they make no step."""
    batches = [sentences[start : start + BATCH] for start in range(0, len(sentences), BATCH)]
    return [batch for batch in batches if any((one[1:] >= SPECIALS).any() for one in batch)]


def random_of(seed: int, *name: int) -> np.random.Generator:
    """What a phone draws follows from the seed, the round and its number, whoever plays it."""
    return np.random.default_rng((seed, *name))


def cohorts(data: Data, options: argparse.Namespace) -> Iterator[list[int]]:
    """Phones of a round, uniformly drawn, for frameworks that leave it to their user."""
    random = random_of(options.seed)
    while True:
        yield random.choice(len(data), options.cohort, replace=False).tolist()


def server_rate(data: Data, options: argparse.Namespace, round: int) -> float:
    """The server's rate in round `round`, counted from 0."""
    if options.server == "fedavg":
        return 1.0
    return data.config["server_rate"] * 0.1 ** min(round / options.rounds, 1.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def recall(p: Params, held_out: Ragged) -> float:
    """recall@1: the share of all words that are the first suggestion; one outside the vocabulary is a miss."""
    hits = words = 0
    order = np.argsort(-np.diff(held_out.starts), kind="stable")
    for start in range(0, len(order), _SENTENCES):
        batch = pack([held_out[i] for i in order[start : start + _SENTENCES]])
        z, at, outputs = p["emb"][batch.inputs] @ p["wx"] + p["bg"], 0, []
        r = np.zeros((batch.active[0], p["wp"].shape[1]), np.float32)
        c = np.zeros((batch.active[0], p["wp"].shape[0]), np.float32)
        for alive in batch.active:
            g, f, o = np.split(z[at : at + alive] + r[:alive] @ p["wh"], 3, axis=1)
            f = sigmoid(f)
            c = f * c[:alive] + (1 - f) * np.tanh(g)
            r = (sigmoid(o) * np.tanh(c)) @ p["wp"]
            outputs.append(r)
            at += alive
        logits = np.concatenate(outputs) @ p["emb"].T + p["bias"]
        hits += int((logits[:, SPECIALS:].argmax(1) + SPECIALS == batch.targets).sum())
        words += len(batch.targets)
    return hits / words


class Memory:
    """The most memory that this process and all below it had at a time: the sum of their proportional set sizes."""

    def __init__(self) -> None:
        self.peak = self.processes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look a last time."""
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self._look()

    def _look(self) -> None:
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    # The name of a program stands in parentheses and may hold anything.
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:  # it has ended
                    continue
                parents[int(entry.name)] = int(fields[1])
        tree, grown = {os.getpid()}, True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in tree} - tree
            tree |= more
            grown = bool(more)
        total = sum(map(_pss, tree))
        if total > self.peak:
            self.peak, self.processes = total, len(tree)


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


class Clock:
    """Counts rounds and their seconds; what is before `start`, and measuring recall, is outside of them.

    Warming up a framework and compiling belong before `start`; so many seconds are told as `setup_s`.
    """

    def __init__(self, data: Data, options: argparse.Namespace) -> None:
        self._data, self._options = data, options
        self.seconds: list[float] = []
        self.clients = self.words = 0
        self.curve: list[list[float]] = []
        self._memory = Memory()

    def start(self) -> None:
        """From now on it runs."""
        self.setup_s = time.perf_counter() - _started
        if self._options.mode == "recall":
            self._measure(self._data.params)
        self._since = time.perf_counter()

    def round(self, params: Callable[[], Params], *, clients: int, words: int) -> bool:
        """A round is over, which gave a model; whether it was the last one."""
        self.seconds.append(time.perf_counter() - self._since)
        self.clients += clients
        self.words += words
        count, options = len(self.seconds), self._options
        last = count >= options.rounds
        if options.mode == "recall" and (last or count % options.every == 0):
            last |= self._measure(params()) >= options.until
        self._since = time.perf_counter()
        return last

    def _measure(self, params: Params) -> float:
        found = recall(params, self._data.held_out)
        self.curve.append([round(sum(self.seconds), 4), round(found, 6)])
        print(f"{len(self.seconds):>5} rounds {self.curve[-1][0]:>9.2f} s {found:.2%}", file=sys.stderr)
        return found

    def report(self, contestant: str, packages: Sequence[str], **more: Any) -> None:
        """Print the line of JSON."""
        self._memory.stop()
        total, options = sum(self.seconds), self._options
        line = {
            "contestant": contestant,
            "mode": options.mode,
            "preset": self._data.config["preset"],
            "server": options.server,
            "seed": options.seed,
            "rounds": len(self.seconds),
            "clients": self.clients,
            "clients_per_s": round(self.clients / total, 4),
            "words_per_s": None if options.mode == "noop" else round(self.words / total, 1),
            "median_round_s": round(statistics.median(self.seconds), 5),
            "setup_s": round(self.setup_s, 2),
            "peak_rss_bytes": self._memory.peak,
            "processes": self._memory.processes,
            "versions": {name: metadata.version(name) for name in ("numpy", *packages)},
        }
        if self.curve:
            line |= {"until": options.until, "seconds_to_recall": until(self.curve, options.until)}
            line |= {"curve": self.curve}
        print(json.dumps(line | more), flush=True)


def until(curve: Sequence[Sequence[float]], wanted: float) -> float | None:
    """The seconds after which recall first is `wanted`, linear between the points; None if it never is."""
    for (before_s, before), (after_s, after) in pairwise(curve):
        if after >= wanted > before:
            return round(before_s + (wanted - before) / (after - before) * (after_s - before_s), 4)
    return None


def check(contestant: str, data: Data, *, loss: float, params: Params) -> None:
    """Print how far a contestant's loss, its model after CHECK_ROUNDS rounds and its recall are from kbdfl's."""
    expected = data.expected
    whole = sum(float(np.square(expected[name] - start).sum()) for name, start in data.params.items())
    off = sum(float(np.square(params[name] - expected[name]).sum()) for name in data.params)
    loss_error, change_error = abs(loss - float(expected["loss"])), (off / whole) ** 0.5
    line = {
        "contestant": contestant,
        "mode": "check",
        "preset": data.config["preset"],
        "loss": round(loss, 6),
        "loss_error": loss_error,
        "change_error": change_error,
        "recall": round(recall(params, data.held_out), 6),
        "recall_kbdfl": round(float(expected["recall"]), 6),
        "agrees": loss_error < 1e-4 and change_error < 1e-3,
    }
    print(json.dumps(line), flush=True)


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all contestants have."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, default=Path("build/fleet/gboard.npz"), help="what prepare.py wrote")
    add("--mode", choices=MODES, default="train")
    add("--rounds", type=int, default=20, help="rounds at most; the server's rate falls over so many")
    add("--cohort", type=int, default=COHORT, help="phones a round")
    add("--until", type=float, default=0.15, help="recall@1 at which --mode recall ends")
    add("--every", type=int, default=10, help="rounds between two measurements of recall")
    add("--server", choices=("fedadam", "fedavg"), default="fedadam")
    add("--seed", type=int, default=1)
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options; a check has its own schedule."""
    options = parser.parse_args()
    if options.mode == "check":
        options.rounds, options.cohort, options.server = CHECK_ROUNDS, 1, "fedadam"
    return options
