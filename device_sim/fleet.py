"""Many phones against a real server: each enrols, checks in, trains and reports over HTTP.

A few threads play all phones in turn. The kernels hold no interpreter lock, so `workers` phones train at once;
two threads more than that keep requests in flight while the others compute.
"""

import hashlib
import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from kbdfl.device_sim.agent import Cycle, Phone, ServerClient, wait_for_vocabulary
from kbdfl.device_sim.devices import MID
from kbdfl.device_sim.harvest import bases_of
from kbdfl.device_sim.joined import Joined
from kbdfl.device_sim.population import Population
from kbdfl.device_sim.runtime import has_known_word
from kbdfl.device_sim.secure import STEPS, Caution, SecurePart
from kbdfl.device_sim.taken import Taken
from kbdfl.device_sim.tasks import FIRST
from kbdfl.errors import ConfigError, DataError
from kbdfl.kernels.train import Workspace
from kbdfl.rng import stream
from kbdfl.text import Vocabulary

IDLE_S = 0.004  # a thread whose phone was told to wait pauses, so that a full round is not stormed


class Fleet:
    """The training users of a population, each on a phone of its own.

    `tokens` are for enrolment, one a phone; raises ConfigError if there are some, but too few. Phones that `belong_to`
    a population of the server's work for its tasks, others for the server's first. `silent` says before which step of a
    session a phone vanishes, by its number in `phones`; without it that is by chance, as the `dropout` is.
    """

    def __init__(
        self,
        client: ServerClient,
        population: Population,
        *,
        workers: int,
        seed: int,
        dropout: float = 0.0,
        tokens: Sequence[str] = (),
        belong_to: str | None = None,
        caution: Caution | None = None,
        silent: Callable[[int], str | None] | None = None,
        on_part: Callable[[SecurePart], None] = lambda _: None,
    ) -> None:
        if tokens and len(tokens) < len(population):
            raise ConfigError(f"{len(population)} phones need as many enrolment tokens, got {len(tokens)}")
        self._client, self._population, self._tokens = client, population, tokens
        self._threads = workers + 2
        self._seed, self._dropout = seed, dropout
        self._belong_to, self._caution, self._silent = belong_to, caution, silent
        self._on_part = on_part  # is told of each part in a session
        self._words: dict[str, Vocabulary] = {}  # by where the addresses of a task begin
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._waiting: list[tuple[float, int]] = []  # heap of (when a phone may come back, its index)
        self.memory: Path | None = None  # the folder where phones remember their parts; None = in no file
        self.phones: list[Phone] = []
        self.outcomes: Counter[str] = Counter()
        self.uplink_bytes = 0
        self.downlink_bytes = 0
        self.session_s = 0.0  # of the processor, in sessions of secure aggregation

    @property
    def size(self) -> int:
        """How many phones there are to be."""
        return len(self._population)

    def enrol(self, on_phone: Callable[[], object] = lambda: None) -> int:
        """Enrol a phone for every user and return how many have something to learn from; only those check in."""
        bases = [FIRST] if self._belong_to is None else bases_of(self._client, self._belong_to).values()
        vocabularies = {words.sha256: words for words in map(self._vocabulary, bases)}
        eligible: list[int] = []

        def one(index: int) -> None:
            user = self._population.users[index]
            log = self._population.log(user)
            token = self._tokens[index] if self._tokens else None
            phone = Phone(
                self._client,
                log,
                None,
                tier=MID.name,
                population=self._belong_to,
                vocabulary_of=self._vocabulary,
                token=token,
                caution=self._caution,
                on_part=self._on_part,
                taken=Taken(path=self.memory and self.memory / f"{_name_of(user)}.json"),
                joined=Joined(path=self.memory and self.memory / f"{_name_of(user)}.joined"),
            )
            usable = any(has_known_word(log.sentences(words)) for words in vocabularies.values())
            with self._lock:
                self.phones.append(phone)
                if usable:
                    eligible.append(len(self.phones) - 1)
            on_phone()

        with ThreadPoolExecutor(self._threads) as pool:
            for _ in pool.map(one, range(len(self._population))):
                pass
        if not eligible:
            raise DataError("no phone can take part: none has a log with words that the model knows")
        stream(self._seed, "fleet").shuffle(eligible)
        self._waiting = [(1e-9 * turn, index) for turn, index in enumerate(eligible)]  # sorted, so a heap
        return len(eligible)

    def _vocabulary(self, base: str) -> Vocabulary:
        """A task's words, which all phones share."""
        if base not in self._words:
            self._words[base] = wait_for_vocabulary(self._client, base=base)
        return self._words[base]

    def run(self) -> None:
        """Play all phones until the server says that the task is finished. Raises what any of them raised."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="kbdfl-phone") as pool:
            futures = [pool.submit(self._play, number) for number in range(self._threads)]
            try:
                for future in futures:
                    future.result()
            finally:
                self._stop.set()

    def stop(self) -> None:
        """Make `run` return after the cycles in progress."""
        self._stop.set()

    def _play(self, number: int) -> None:
        workspace, random = Workspace(), stream(self._seed, "dropout", number)

        def vanishes() -> bool:
            return self._dropout > 0 and random.random() < self._dropout

        def before(index: int) -> str | None:
            """Where words are summed up, a phone vanishes before the step that it was told, or before any."""
            if self._silent:
                return self._silent(index)
            return STEPS[random.integers(len(STEPS))] if vanishes() else None

        try:
            while not self._stop.is_set():
                index = self._next_phone()
                if index is None:
                    time.sleep(IDLE_S)
                    continue
                cycle = self.phones[index].cycle(
                    workspace=workspace,
                    drops=lambda assignment: not assignment.secure and vanishes(),
                    silent=partial(before, index),
                )
                self._count(index, cycle)
                if cycle.outcome == "finished":
                    self._stop.set()
                elif cycle.outcome == "wait":
                    time.sleep(IDLE_S)
        except BaseException:
            self._stop.set()
            raise

    def _next_phone(self) -> int | None:
        with self._lock:
            if self._waiting and self._waiting[0][0] <= time.monotonic():
                return heapq.heappop(self._waiting)[1]
        return None

    def _count(self, index: int, cycle: Cycle) -> None:
        with self._lock:
            self.outcomes[cycle.outcome] += 1
            self.uplink_bytes += cycle.uplink_bytes
            self.downlink_bytes += cycle.downlink_bytes
            self.session_s += cycle.session_s
            # The moment decides who is next, so phones take turns: one that took part goes to the back.
            heapq.heappush(self._waiting, (time.monotonic() + cycle.retry_after_s, index))


def _name_of(user: str) -> str:
    """What a user's files are called: users may be called anything."""
    return hashlib.sha256(str(user).encode()).hexdigest()[:16]
