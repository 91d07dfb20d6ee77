"""A herd: so many phones check in within one second, each over a connection of its own, and a probe looks on."""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from kbdfl.cli.bench.exchange import GONE, Exchange
from kbdfl.cli.bench.load import OK, check_in_request

if TYPE_CHECKING:
    from kbdfl.identity import Signer

WITHIN_S = 1.0  # all of them
PROBE_S = 0.1  # between two probes, which are check-ins of a phone that is not of the herd
NORMAL_S = 0.1  # a normal answer takes at most so long
IN_A_ROW = 5  # normal answers, after which it is normal again
PATIENCE_S = 120.0


def herd(exchange: Exchange, signers: "list[Signer]", outsider: "Signer") -> dict[str, Any]:
    """What became of the check-ins of `signers`, and when a probe's were normal again; seconds from the first."""
    requests = [check_in_request(signer) for signer in signers]
    answers: Counter[str] = Counter()
    took_s: list[float] = []
    probe = _Probe(exchange, outsider)
    began = time.perf_counter()

    def send(request: bytes) -> None:
        connection = exchange.connection()

        def done(status: int, headers: dict[str, str], body: bytes) -> None:
            answers[_kind(status, headers, body)] += 1
            took_s.append(time.perf_counter() - connection.since_s)
            connection.end()

        connection.ask(request, done)

    sent = 0
    while (now := time.perf_counter() - began) < PATIENCE_S:
        while sent < min(len(requests), len(requests) * now / WITHIN_S):
            send(requests[sent])
            sent += 1
        probe.turn()
        if sent == len(requests) and len(took_s) == sent and probe.in_a_row >= IN_A_ROW:
            break
        exchange.turn(0.001 if sent < len(requests) else PROBE_S / 4)
    normal_s = None if probe.normal_since_s is None else round(max(0.0, probe.normal_since_s - began), 2)
    return {
        "answered_200": answers["200"],
        "answered_503": answers["503"],
        "answered_503_without_retry_after": answers["503 without Retry-After"],
        "other": {kind: count for kind, count in answers.items() if kind not in ("200", "503")}
        | ({"unanswered": len(requests) - len(took_s)} if len(took_s) < len(requests) else {}),
        "longest_s": round(max(took_s, default=0.0), 2),
        "probe_longest_s": round(probe.longest_s, 3),
        "normal_again_s": normal_s,
    }


class _Probe:
    """One check-in after another, on a new connection each. `normal_since_s` is None while they are not normal."""

    def __init__(self, exchange: Exchange, signer: "Signer") -> None:
        self._exchange, self._signer = exchange, signer
        self._busy, self._next_s = False, 0.0
        self.in_a_row, self.longest_s = 0, 0.0
        self.normal_since_s: float | None = None

    def turn(self) -> None:
        """Ask, if it is time."""
        now = time.perf_counter()
        if self._busy or now < self._next_s:
            return
        self._busy, self._next_s = True, now + PROBE_S
        connection = self._exchange.connection()

        def done(status: int, *_: Any) -> None:
            ended = time.perf_counter()
            taken = ended - connection.since_s
            self._busy, self.longest_s = False, max(self.longest_s, taken)
            if status == OK and taken <= NORMAL_S:
                self.normal_since_s = ended if self.normal_since_s is None else self.normal_since_s
                self.in_a_row += 1
            else:
                self.normal_since_s, self.in_a_row = None, 0
            connection.end()

        connection.ask(check_in_request(self._signer), done)


def _kind(status: int, headers: dict[str, str], body: bytes) -> str:
    if status == GONE:
        return body.decode()
    return f"{status} without Retry-After" if status == 503 and "retry-after" not in headers else str(status)
