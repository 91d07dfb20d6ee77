"""`kbdfl bench server`: two seconds of load on a real server, a small herd, and how figures are reckoned."""

import json
import socket
import threading

import pytest

from kbdfl.cli.bench.exchange import GONE, Exchange, request_bytes
from kbdfl.cli.bench.load import Lane, percentile
from kbdfl.cli.server_process import server_process
from kbdfl.errors import ServerUnavailable
from kbdfl.run import RunConfig, Settings

QUICK = ("--duration-s", 2, "--devices", 24, "--cohort", 8, "--clients", 4)


def bench(kbdfl, *arguments):
    code, out, err = kbdfl("bench", "server", *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_load_of_two_seconds_is_answered_without_an_error(kbdfl):
    found = bench(kbdfl, *QUICK)
    assert (found["errors"], found["error_kinds"]) == (0, {})
    assert found["preset"] == "tiny"
    assert found["frame_bytes"] == pytest.approx(40_000, rel=0.05)
    assert found["reports_per_s"] > 0
    assert found["checkins_per_s"] > 0
    for name in ("report", "checkin"):
        assert 0 < found[f"{name}_p50_ms"] <= found[f"{name}_p99_ms"] <= found[f"{name}_longest_ms"]
    assert found["rounds"] > 0
    assert found["rounds_abandoned"] == 0
    reports = round(found["reports_per_s"] * found["duration_s"])
    # What is counted in closed rounds, the open one excepted.
    assert 8 * found["rounds"] <= reports + 1
    assert found["checkins_assigned"] >= reports - 1
    assert found["peak_rss_bytes"] >= found["rss_before_bytes"] > 1 << 20


def test_with_a_rate_no_more_is_asked(kbdfl):
    found = bench(kbdfl, *QUICK, "--rate-reports", 5, "--rate-checkins", 20)
    assert found["errors"] == 0
    assert 0 < found["reports_per_s"] * found["duration_s"] <= 5 * 2 + 1.5
    assert 0 < found["checkins_per_s"] * found["duration_s"] <= 20 * 2 + 1.5


def test_slow_clients_are_held_and_the_others_answered(kbdfl):
    found = bench(kbdfl, *QUICK, "--slow-clients", 20)
    assert (found["errors"], found["error_kinds"]) == (0, {})
    assert (found["slow_clients"], found["slow_clients_held"]) == (20, 20)
    for name in ("report", "checkin"):
        without, beside = found[f"{name}_p99_ms_without_slow"], found[f"{name}_p99_ms_beside_slow"]
        assert min(without, beside) > 0
        assert found[f"{name}_p99_ratio"] == pytest.approx(beside / without, abs=0.006)


def test_a_herd_is_answered_and_it_is_normal_again(kbdfl):
    found = bench(kbdfl, "--herd", 40)
    assert found["herd"] == 40
    assert found["answered_200"] + found["answered_503"] == 40
    assert found["answered_503_without_retry_after"] == 0
    assert found["other"] == {}
    assert found["normal_again_s"] >= 0


def test_what_it_would_not_look_at_is_refused(kbdfl):
    for arguments, why in (
        (("--herd", 5, "--clients", 3), "--clients must not come with --herd"),
        (("--herd", 5, "--slow-clients", 3), "--slow-clients must not come with --herd"),
        (("--devices", 5, "--cohort", 6), "--cohort must be at most --devices"),
    ):
        code, out, err = kbdfl("bench", "server", *arguments)
        assert (code, out) == (2, "")
        assert why in err


def test_a_server_that_does_not_start_says_why(tmp_path):
    with (
        pytest.raises(ServerUnavailable, match="must be an address of this machine"),
        server_process(RunConfig(Settings(preset="tiny")), tmp_path / "new", "--host", "nowhere.invalid"),
    ):
        pass


def test_percentiles_are_of_the_values_themselves():
    assert percentile([], 0.5) is None
    assert percentile([7.0], 0.99) == 7.0
    assert percentile(range(1, 101), 0.5) == 50
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile(range(1, 11), 0.99) == 10


@pytest.fixture
def scripted():
    """A server on loopback that answers each connection's requests with the given bytes, then closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def start(*answers):
        def serve():
            with listener, listener.accept()[0] as connection:
                for answer in answers:
                    connection.recv(1 << 16)
                    for place in range(len(answer)):  # however slowly it comes
                        connection.sendall(answer[place : place + 1])

        threading.Thread(target=serve, daemon=True).start()
        return Exchange(*listener.getsockname())

    return start


def until(exchange, condition):
    for _ in range(10_000):
        if condition():
            return
        exchange.turn(0.01)
    raise AssertionError("nothing came of it")


def test_answers_come_to_who_asked_and_what_got_none_is_gone(scripted):
    exchange = scripted(b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\nhi", b"HTTP/1.1 503 No\r\n")
    connection, came = exchange.connection(), []
    for _ in range(2):
        connection.ask(request_bytes("GET", "/", {}), lambda *answer: came.append(answer))
        until(exchange, lambda: not exchange.under_way)
    assert came == [(200, {"x-a": "b", "content-length": "2"}, b"hi"), (GONE, {}, b"closed there")]
    exchange.close()


def test_what_a_lane_cannot_send_yet_is_late_by_as_much(scripted):
    """A rate's latencies are reckoned from when a request was due, not from when a connection was free for it."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    exchange = scripted(answer, answer)
    lane = Lane(exchange, connections=1, rate=1e6)
    for _ in range(2):
        lane.start(lambda now: (request_bytes("GET", "/", {}), 0.0, lambda *_: None))
        until(exchange, lambda: not exchange.under_way)
    first, second = lane.latencies_s
    assert second > first
    exchange.close()
