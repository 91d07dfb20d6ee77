"""The application behind real sockets: limits that waitress itself keeps, ports, and an orderly end."""

import http.client
import json
import socket
import threading
import time

import pytest

from kbdfl.errors import ConfigError
from kbdfl.server.app import create_app
from kbdfl.server.serving import HttpServer, listen, running


@pytest.fixture
def server(service):
    limit = service.task.max_report_bytes
    with running(create_app(service), max_body_bytes=limit) as server:
        yield server


def ask(server, method: str, path: str, body: bytes | None = None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def exchange(server, request: bytes) -> tuple[bytes, dict]:
    """Send raw bytes; the head of the answer and its JSON, read until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, json.loads(body)


def test_it_serves_on_a_free_port(server):
    response, body = ask(server, "GET", "/healthz")
    assert (response.status, json.loads(body)) == (200, {"ok": True})
    assert server.url == f"http://127.0.0.1:{server.port}"


def test_a_connection_stays_open(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.connect()
    local = connection.sock.getsockname()
    for _ in range(3):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b'{"ok": true}'
        assert connection.sock.getsockname() == local
    connection.close()


@pytest.mark.parametrize("over", [1, 2**20 + 1, 2**30])
def test_a_body_over_the_limit_is_a_problem_document_whoever_refuses_it(server, service, over):
    length = service.task.max_report_bytes + over
    lines = ["POST /v1/enrol HTTP/1.1", "Host: x", "Connection: close", "Content-Type: application/json"]
    request = "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()
    # one byte over is within what waitress reads, and the application refuses it
    head, document = exchange(server, request + (bytes(length) if over == 1 else b""))
    assert b" 413 " in head.splitlines()[0]
    assert b"application/problem+json" in head
    assert document["status"] == 413


def test_a_malformed_request_is_a_problem_document(server):
    head, document = exchange(server, b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n")
    assert b" 400 " in head.splitlines()[0]
    assert document["title"] == "Bad Request"


def test_a_port_in_use_is_one_clear_line(server):
    with pytest.raises(ConfigError, match=f"port {server.port} on 127.0.0.1 is in use"):
        listen("127.0.0.1", server.port)


@pytest.mark.parametrize("host", ["no such host", "203.0.113.7"])
def test_an_address_of_another_machine_is_one_clear_line(host):
    with pytest.raises(ConfigError, match=r"listen|host must be"):
        listen(host, 0)


def test_stopping_lets_the_answer_in_progress_finish():
    entered, gate = threading.Event(), threading.Event()

    def slow(environ, start_response):
        entered.set()
        assert gate.wait(20)
        start_response("200 OK", [("Content-Length", "4")])
        return [b"done"]

    server = HttpServer(slow, listen("127.0.0.1", 0), threads=2, max_body_bytes=1000)
    thread = threading.Thread(target=server.run)
    thread.start()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(ask(server, "GET", "/")))
    asking.start()
    assert entered.wait(20)
    server.stop()
    server.stop()
    time.sleep(0.1)
    gate.set()
    asking.join()
    thread.join()
    assert answers[0][1] == b"done"
    with pytest.raises(ConnectionRefusedError):
        ask(server, "GET", "/")


def test_many_phones_at_once_are_each_counted_once(make_service, new_phone):
    """Forty phones report over HTTP from eight threads; a round's totals have every report exactly once."""
    service = make_service(cohort=40, over_selection=1.0, min_reports=0, rounds=1)
    client = create_app(service).test_client()
    phones = [new_phone(client) for _ in range(40)]
    with running(create_app(service), max_body_bytes=service.task.max_report_bytes) as server:

        def play(mine):
            for phone in mine:
                phone.client = Through(server)
                _, frame = phone.take_part(service)
                again = phone.report(0, frame)  # some answers got lost, the phones thought
                assert again.json["accepted"]

        threads = [threading.Thread(target=play, args=(phones[i::8],)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (row,), _ = service.metrics(0)
    assert (row["status"], row["reports"], row["dropped"]) == ("committed", 40, 0)


class Through:
    """What `Phone` needs of a test client, over a real connection."""

    def __init__(self, server) -> None:
        self._server = server

    def open(self, path, *, method, data, headers, content_type=None):
        headers = headers | ({"Content-Type": content_type} if content_type else {})
        response, body = ask(self._server, method, path, body=data, headers=headers)
        return type("Answer", (), {"status_code": response.status, "json": json.loads(body)})


def test_a_server_may_be_stopped_again_after_it_has_closed():
    with running(lambda environ, start: start("200 OK", []) or [b""]) as server:
        pass
    server.stop()
    server.stop()
    assert server._closed


@pytest.mark.parametrize(("proxy", "address"), [(None, b"127.0.0.1"), ("127.0.0.1", b"192.0.2.7")])
def test_only_a_trusted_proxy_says_whom_a_request_is_from(proxy, address):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(environ["REMOTE_ADDR"])))])
        return [environ["REMOTE_ADDR"].encode()]

    server = HttpServer(app, listen("127.0.0.1", 0), threads=1, max_body_bytes=1_000, trusted_proxy=proxy)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ask(server, "GET", "/", headers={"X-Forwarded-For": "192.0.2.7"})[1] == address
    finally:
        server.stop()
        thread.join()
