"""Bytes at the socket, compared with what a client's own socket saw."""

import json
import socket
import threading

import pytest

from kbdfl.identity import sign_request
from kbdfl.server.app import create_app
from kbdfl.server.serving import running
from kbdfl.server.traffic import UNKNOWN, Traffic


@pytest.fixture
def server(service):
    with running(
        create_app(service), max_body_bytes=service.task.max_report_bytes, traffic=service.traffic
    ) as server:
        yield server


class Connection:
    """An HTTP connection that counts its own bytes."""

    def __init__(self, server):
        self._socket = socket.create_connection((server.host, server.port), timeout=20)
        self.up = self.down = 0

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, int]:
        """Send a request and read its whole answer; the bytes each way."""
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"{method} {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n{head}\r\n"
        self._socket.sendall(request.encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(65536)
        top, _, rest = answer.partition(b"\r\n\r\n")
        (length,) = [
            int(line.split(b":")[1]) for line in top.lower().split(b"\r\n") if b"content-length" in line
        ]
        while len(rest) < length:
            rest += self._socket.recv(65536)
        return len(request) + len(body), len(top) + 4 + length

    def close(self):
        self._socket.close()


def signed(phone, method, path, body=b"", *, at):
    return sign_request(phone.key, method=method, path=path, body=body, timestamp=at)


def test_what_a_device_moved_is_counted_to_the_byte(server, service, client, new_phone):
    phones = [new_phone(client) for _ in range(2)]
    connection, counted = Connection(server), {phone.id: [0, 0] for phone in phones}
    for _ in range(3):  # in turn, over one connection
        for phone in phones:
            for method, path in (("POST", "/v1/check-in"), ("GET", "/v1/models/0")):
                headers = signed(phone, method, path, at=service.wall_clock())
                for way, number in enumerate(connection.ask(method, path, headers)):
                    counted[phone.id][way] += number
    page = connection.ask("GET", "/healthz", {})  # by now the answers before have been counted
    refused = connection.ask("POST", "/v1/check-in", {"X-Kbdfl-Device": phones[0].id})
    connection.ask("GET", "/healthz", {})
    connection.close()
    crossed = service.traffic.take()
    assert {device: list(both) for device, both in crossed.items() if device} == counted
    assert crossed[UNKNOWN][0] >= page[0] + refused[0]
    assert crossed[UNKNOWN][1] >= page[1] + refused[1]
    assert min(counted[phones[0].id]) > 500


def test_devices_that_share_connections_are_kept_apart(server, service, client, new_phone):
    """Many requests back to back: the next one may be read while another thread ends the one before."""
    phones = [new_phone(client) for _ in range(2)]
    counted = [{phone.id: [0, 0] for phone in phones} for _ in range(4)]

    def talk(place):
        connection = Connection(server)
        for turn in range(100):
            phone = phones[turn % 2]
            path = ("/v1/check-in", "/v1/models/0")[turn % 2]
            headers = signed(phone, ("POST", "GET")[turn % 2], path, at=service.wall_clock())
            for way, number in enumerate(connection.ask(("POST", "GET")[turn % 2], path, headers)):
                counted[place][phone.id][way] += number
        connection.ask("GET", "/healthz", {})  # by now the answers before have been counted
        connection.close()

    threads = [threading.Thread(target=talk, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    crossed = service.traffic.take()
    for phone in phones:
        assert crossed[phone.id] == tuple(sum(each[phone.id][way] for each in counted) for way in (0, 1))


def test_an_upload_that_breaks_off_is_counted_as_nobodys(server, service, client, new_phone):
    phone = new_phone(client)
    headers = signed(phone, "POST", "/v1/rounds/0/report", b"x" * 5000, at=service.wall_clock())
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"POST /v1/rounds/0/report HTTP/1.1\r\nHost: here\r\nContent-Length: 5000\r\n{head}\r\n"
    with socket.create_connection((server.host, server.port), timeout=20) as connection:
        connection.sendall(request.encode() + b"x" * 3000)
    while not (crossed := service.traffic.take()):
        pass
    assert crossed == {UNKNOWN: (len(request) + 3000, 0)}


def test_a_rounds_row_and_devices_hold_what_crossed(service, client, new_phone):
    for number in range(2):
        for up in (10, 20):
            phone = new_phone(client)
            service.traffic.add(phone.id, up=up, down=3 * up)
            phone.take_part(service, seed=number)
        service.traffic.add(UNKNOWN, up=1, down=2)
    service.traffic.add("late", up=5)
    service.close()
    text = (service.folder / "metrics.jsonl").read_text()
    first, second = map(json.loads, text.splitlines())
    assert (first["socket_up_bytes"], first["socket_down_bytes"], first["socket_devices"]) == (30, 90, 2)
    # With what came between the rounds and after the last.
    assert (second["socket_up_bytes"], second["socket_down_bytes"]) == (37, 94)
    assert second["socket_devices"] == 3


def test_devices_of_a_closed_round_can_be_asked_for(service, client, new_phone, problem):
    phones = [new_phone(client) for _ in range(2)]
    assert problem(client.get("/v1/metrics/0/traffic"))["detail"] == "round 0 is not closed yet"
    for place, phone in enumerate(phones):
        service.traffic.add(phone.id, up=place + 1, down=10)
        phone.take_part(service)
    answer = client.get("/v1/metrics/0/traffic").json
    assert answer == {
        "round": 0,
        "devices": [{"device": phones[1].id, "up_bytes": 2, "down_bytes": 10},
                    {"device": phones[0].id, "up_bytes": 1, "down_bytes": 10}],
    }  # fmt: skip
    assert problem(client.get(f"/v1/metrics/{2**80}/traffic"))["status"] == 404


def test_no_byte_is_lost_between_threads():
    traffic, taken = Traffic(), []

    def add():
        for _ in range(2000):
            traffic.add("a", up=1, down=2)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken.append(traffic.take())
    taken.append(traffic.take())
    assert sum(crossed["a"][0] for crossed in taken if crossed) == 8000
    assert sum(crossed["a"][1] for crossed in taken if crossed) == 16_000
