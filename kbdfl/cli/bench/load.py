"""Phones that check in and report and do nothing else: real keys, signatures and frames, trained once.

All phones stand in a ring. A check-in takes the one at its front; if it is assigned a part it stands in the queue of
those that report, and goes back to the ring's end once its report was answered. So every report is one that was asked
for, and rounds close by being full.
"""

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from kbdfl.cli.bench.exchange import GONE, Connection, Done, Exchange, request_bytes
from kbdfl.cli.common import progress

if TYPE_CHECKING:
    from kbdfl.identity import Signer
    from kbdfl.run import RunConfig
    from kbdfl.wire import Report

CHECK_IN = "/v1/check-in"
ENROLLING = 8  # phones at a time
OK = 200
DRAIN_S = 30.0  # that answers are waited for when nothing more is asked


def enrolled(url: str, count: int) -> "list[Signer]":
    """So many new phones, each enrolled with a key of its own."""
    from kbdfl.device_sim.agent import ServerClient
    from kbdfl.identity import Signer, generate_key, public_key

    client = ServerClient(url, connections=ENROLLING)

    def one(_: int) -> "Signer":
        key = generate_key()
        client.enrol(public_key(key))
        return Signer(key)

    with ThreadPoolExecutor(ENROLLING) as pool:
        return list(progress(pool.map(one, range(count)), total=count, unit="phone", desc="enrol"))


def trained_report(config: "RunConfig") -> "Report":
    """What a phone of generated personas reports in the first round of `config`."""
    from kbdfl.assignment import Assignment
    from kbdfl.device_sim.population import Population, open_logs
    from kbdfl.device_sim.runtime import prepare, train
    from kbdfl.params import digest
    from kbdfl.run import build_task
    from kbdfl.wire import decode_report

    built = build_task(config)
    assignment = Assignment.of_round(
        built.task, 0, version=0, published=built.params, sha256=digest(built.params)
    )
    phones = Population(open_logs("personas", seed=config.settings.seed, devices=1), devices=1)
    run = prepare(assignment, phones.log(phones.users[0]).sentences(built.vocabulary))
    frame = train(assignment, built.params, run, device="0" * 16)
    return decode_report(frame, max_bytes=len(frame) + assignment.max_report_bytes)


def check_in_request(signer: "Signer") -> bytes:
    """A signed check-in, as a phone with a tier sends it."""
    body = b'{"tier": "mid"}'
    headers = signer.sign(method="POST", path=CHECK_IN, body=body, timestamp=time.time())
    return request_bytes("POST", CHECK_IN, headers | {"Content-Type": "application/json"}, body)


def percentile(values: Iterable[float], share: float) -> float | None:
    """The smallest of the values that at least this share of them do not exceed; None of none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None


@dataclass(frozen=True, slots=True)
class Part:
    """A phone that was assigned a part in a round of the model with this sha256, at `since_s` of the clock."""

    signer: "Signer"
    round: int
    model_sha256: str
    since_s: float


class Lane:
    """Requests of one kind on connections of their own: `rate` a second, 0 = whenever one is free.

    With a rate latency is reckoned from when a request was due, so that one which had to wait for a free connection
    counts with its wait.
    """

    def __init__(self, exchange: Exchange, *, connections: int, rate: float) -> None:
        self._free = [exchange.connection() for _ in range(connections)]
        self._gap_s = 1 / rate if rate else 0.0
        self._due_s = time.perf_counter()
        self.latencies_s: list[float] = []

    def start(self, take: Callable[[float], tuple[bytes, float, Done] | None]) -> float:
        """Begin what is due; seconds until something will be, if no answer comes before.

        `take` gives a request, since when it could have been sent and whom its answer concerns; None if there is none.
        """
        while self._free:
            now = time.perf_counter()
            if self._gap_s and now < self._due_s:
                return self._due_s - now
            taken = take(now)
            if taken is None:
                self._due_s = max(self._due_s, now)
                break
            request, could_s, done = taken
            due_s = max(self._due_s, could_s)
            self._due_s = due_s + self._gap_s
            self._ask(self._free.pop(), request, due_s if self._gap_s else None, done)
        return 1.0

    def _ask(self, connection: Connection, request: bytes, due_s: float | None, done: Done) -> None:
        def answered(status: int, headers: dict[str, str], body: bytes) -> None:
            if status == OK:
                since_s = connection.since_s if due_s is None else due_s
                self.latencies_s.append(time.perf_counter() - since_s)
            self._free.append(connection)
            done(status, headers, body)

        connection.ask(request, answered)


class Load:
    """All phones in one thread. `run` it; then `reports` and `check_ins` have the latencies and `errors` the rest."""

    def __init__(
        self,
        exchange: Exchange,
        signers: "list[Signer]",
        report: "Report",
        *,
        clients: int,
        rate_reports: float,
        rate_check_ins: float,
    ) -> None:
        self._exchange = exchange
        self._ring = deque(signers)
        self._parts: deque[Part] = deque()
        fields = {name: getattr(report, name) for name in report.__dataclass_fields__}
        self._fields: dict[str, Any] = fields
        self.reports = Lane(exchange, connections=clients - clients // 2, rate=rate_reports)
        self.check_ins = Lane(exchange, connections=max(1, clients // 2), rate=rate_check_ins)
        self.answers: Counter[str] = Counter()  # of check-ins
        self.errors: Counter[str] = Counter()
        self.frame_bytes = 0

    def run(self, duration_s: float) -> float:
        """Ask for so long, and wait for what is still to be answered; the seconds that it took in all."""
        began = time.perf_counter()
        with progress(total=round(duration_s), unit="s", desc="load") as bar:
            while (spent := time.perf_counter() - began) < duration_s:
                bar.update(int(spent) - bar.n)
                wait_s = min(self.reports.start(self._next_report), self.check_ins.start(self._next_check_in))
                self._exchange.turn(min(wait_s, duration_s - spent))
        drained = time.perf_counter() + DRAIN_S
        while self._exchange.under_way and time.perf_counter() < drained:
            self._exchange.turn(0.1)
        return time.perf_counter() - began

    def _next_check_in(self, now: float) -> tuple[bytes, float, Done] | None:
        if not self._ring:
            return None
        signer = self._ring.popleft()

        def done(status: int, _: dict[str, str], body: bytes) -> None:
            answer: dict[str, Any] = json.loads(body) if status == OK else {"status": _kind(status, body)}
            self.answers[answer["status"]] += 1
            if answer["status"] == "assigned":
                part = Part(signer, answer["round"], answer["model_sha256"], time.perf_counter())
                self._parts.append(part)
                return
            if answer["status"] != "wait":
                self.errors[f"check-in {answer['status']}"] += 1
            self._ring.append(signer)

        return check_in_request(signer), 0.0, done

    def _next_report(self, now: float) -> tuple[bytes, float, Done] | None:
        if not self._parts:
            return None
        part = self._parts.popleft()

        def done(status: int, _: dict[str, str], body: bytes) -> None:
            if status != OK:
                self.errors[f"report {_kind(status, body)}"] += 1
            if status in (GONE, 503):  # not known to be counted: a phone sends it again
                self._parts.append(part)
            else:
                self._ring.append(part.signer)

        return self._report_request(part), part.since_s, done

    def _report_request(self, part: Part) -> bytes:
        from kbdfl.wire import encode_report

        fields = self._fields | {
            "device": part.signer.device,
            "round": part.round,
            "model_sha256": part.model_sha256,
        }
        frame, path = encode_report(**fields), f"/v1/rounds/{part.round}/report"
        self.frame_bytes = len(frame)
        headers = part.signer.sign(method="POST", path=path, body=frame, timestamp=time.time())
        return request_bytes("POST", path, headers | {"Content-Type": "application/octet-stream"}, frame)


def _kind(status: int, body: bytes) -> str:
    return str(status) if status != GONE else body.decode()
