"""What phones on bad lines do to the others: connections that send half a report and no more, lap by lap."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from kbdfl.cli.bench.load import Load, percentile

if TYPE_CHECKING:
    from kbdfl.cli.server_process import Served

LAP_S = 60.0  # at most: a server ends what has not arrived after two minutes
HALF = 20_000  # bytes of a body of twice as many


def laps(load: Load, served: "Served", *, clients: int, duration_s: float) -> tuple[float, dict[str, Any]]:
    """Run `load` in turns without and with so many slow `clients`; the seconds in all, and the tail of either."""
    count = max(2, round(duration_s / LAP_S / 2)) * 2
    lanes = {"report": load.reports, "checkin": load.check_ins}
    found: dict[tuple[str, bool], list[float]] = {
        (name, crowded): [] for name in lanes for crowded in (False, True)
    }
    elapsed_s, held = 0.0, clients
    for lap in range(count):
        crowded = lap % 2 == 1
        before = {name: len(lane.latencies_s) for name, lane in lanes.items()}
        with ExitStack() as stack:
            sockets = stack.enter_context(_half_sent(served, clients)) if crowded else []
            elapsed_s += load.run(duration_s / count)
            if crowded:
                held = min(held, sum(map(_open, sockets)))
        for name, lane in lanes.items():
            found[name, crowded] += lane.latencies_s[before[name] :]
    tails = {key: percentile(values, 0.99) for key, values in found.items()}
    facts: dict[str, Any] = {"slow_clients": clients, "slow_clients_held": held}
    for name in lanes:
        without, beside = tails[name, False], tails[name, True]
        facts[f"{name}_p99_ms_without_slow"] = without and round(1_000 * without, 2)
        facts[f"{name}_p99_ms_beside_slow"] = beside and round(1_000 * beside, 2)
        facts[f"{name}_p99_ratio"] = round(beside / without, 2) if without and beside else None
    return elapsed_s, facts


@contextmanager
def _half_sent(served: "Served", count: int) -> Iterator[list[socket.socket]]:
    head = f"POST /v1/rounds/0/report HTTP/1.1\r\nHost: loopback\r\nContent-Length: {2 * HALF}\r\n"
    request = f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + bytes(HALF)
    with ExitStack() as stack:
        sockets = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            connection.sendall(request)
            sockets.append(connection)
        yield sockets


def _open(connection: socket.socket) -> bool:
    """Whether the server still waits for the other half."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False
