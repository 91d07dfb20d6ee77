"""The loop under the connections: many at a time, idle ones, broken ones, and those that are given up."""

import socket
import time

import pytest

from kbdfl.server.serving import running

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
MANY = 150


def hello(environ, start):
    start("200 OK", [("Content-Length", "5")])
    return [b"hello"]


@pytest.fixture
def server():
    with running(hello, threads=4) as server:
        yield server


@pytest.fixture
def connect(server):
    """Connections to the server, closed at the end."""
    opened = []

    def one():
        opened.append(socket.create_connection((server.host, server.port), timeout=20))
        return opened[-1]

    yield one
    for connection in opened:
        connection.close()


def ask(connection):
    connection.sendall(REQUEST)
    return answered(connection)


def answered(connection):
    answer = b""
    while not answer.endswith(b"hello"):
        more = connection.recv(4096)
        assert more, answer
        answer += more
    return answer


def test_many_connections_are_answered_again_and_again(connect):
    connections = [connect() for _ in range(MANY)]
    for _ in range(2):
        for connection in connections:
            connection.sendall(REQUEST)
        for connection in connections:
            assert answered(connection).startswith(b"HTTP/1.1 200 OK")
    assert ask(connections[0])


def test_connections_that_end_make_room_for_others(connect):
    for _ in range(3):
        connections = [connect() for _ in range(20)]
        for place, connection in enumerate(connections):
            if place % 2:
                connection.sendall(REQUEST[:10])  # and no more
            else:
                ask(connection)
            connection.close()
        assert ask(connect())


def test_requests_that_come_at_once_are_answered_in_turn(connect):
    connection = connect()
    connection.sendall(3 * REQUEST)
    answer = b""
    while answer.count(b"hello") < 3:
        answer += connection.recv(4096)
    assert answer.count(b"HTTP/1.1 200 OK") == 3


def test_an_answer_that_is_not_read_at_once_arrives_whole(connect):
    size = 8 << 20

    def large(environ, start):
        start("200 OK", [("Content-Length", str(size))])
        return [bytes(size)]

    with (
        running(large, threads=1) as server,
        socket.create_connection((server.host, server.port), timeout=20) as connection,
    ):
        connection.sendall(REQUEST)
        time.sleep(0.1)  # the socket's buffers are full by now
        received = 0
        while received < size:
            data = connection.recv(1 << 20)
            assert data
            received += len(data)


def test_a_connection_that_is_silent_for_too_long_is_closed(server, connect):
    connection = connect()
    ask(connection)
    server._server.adj.channel_timeout = 0
    server._server.next_channel_cleanup = 0
    assert connection.recv(1) == b""
