"""Many phones against a real server: each enrols, checks in, trains and reports over HTTP.

A few threads play all phones in turn. The kernels hold no interpreter lock, so `workers` phones train at once;
two threads more than that keep requests in flight while the others compute.
"""

import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from kbdfl.device_sim.agent import Cycle, Phone, ServerClient, wait_for_vocabulary
from kbdfl.device_sim.devices import MID
from kbdfl.device_sim.population import Population
from kbdfl.device_sim.runtime import has_known_word
from kbdfl.errors import ConfigError, DataError
from kbdfl.kernels.train import Workspace
from kbdfl.rng import stream

IDLE_S = 0.004  # a thread whose phone was told to wait pauses, so that a full round is not stormed


class Fleet:
    """The training users of a population, each on a phone of its own.

    `tokens` are for enrolment, one a phone; raises ConfigError if there are some, but too few.
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
    ) -> None:
        if tokens and len(tokens) < len(population):
            raise ConfigError(f"{len(population)} phones need as many enrolment tokens, got {len(tokens)}")
        self._client, self._population, self._tokens = client, population, tokens
        self._threads = workers + 2
        self._seed, self._dropout = seed, dropout
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._waiting: list[tuple[float, int]] = []  # heap of (when a phone may come back, its index)
        self.phones: list[Phone] = []
        self.outcomes: Counter[str] = Counter()
        self.uplink_bytes = 0
        self.downlink_bytes = 0

    @property
    def size(self) -> int:
        """How many phones there are to be."""
        return len(self._population)

    def enrol(self, on_phone: Callable[[], None] = lambda: None) -> int:
        """Enrol a phone for every user and return how many have something to learn from; only those check in."""
        vocabulary = wait_for_vocabulary(self._client)
        eligible: list[int] = []

        def one(index: int) -> None:
            log = self._population.log(self._population.users[index])
            token = self._tokens[index] if self._tokens else None
            phone = Phone(self._client, log, vocabulary, tier=MID.name, token=token)
            usable = has_known_word(log.sentences(vocabulary))
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
        try:
            while not self._stop.is_set():
                index = self._next_phone()
                if index is None:
                    time.sleep(IDLE_S)
                    continue
                cycle = self.phones[index].cycle(
                    workspace=workspace, drops=lambda _: self._dropout > 0 and random.random() < self._dropout
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
            # The moment decides who is next, so phones take turns: one that took part goes to the back.
            heapq.heappush(self._waiting, (time.monotonic() + cycle.retry_after_s, index))
