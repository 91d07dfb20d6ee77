"""Connections: what is answered where it was read, requests that never end, and TLS."""

import http.client
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from kbdfl.errors import ConfigError
from kbdfl.server import connections
from kbdfl.server.connections import tls_context
from kbdfl.server.plain import Reply
from kbdfl.server.serving import running


def application(environ, start):
    """Who answered, and how many bytes came."""
    body = environ["wsgi.input"].read()
    answer = f"{threading.current_thread().name} {environ['wsgi.url_scheme']} {len(body)} ".encode()
    answer += body if environ["PATH_INFO"] == "/echo" else b""
    start("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


class Quick:
    """Answers posts to /quick as `application` would."""

    def takes(self, request):
        return request.method == "POST" and request.path == "/quick"

    def answer(self, request, claim):
        content = f"{threading.current_thread().name} quick {len(request.body)} ".encode()
        return Reply(200, [("Content-Length", str(len(content)))], content)


def talk(connection, path, body=b"", method="POST"):
    connection.request(method, path, body=body)
    return connection.getresponse().read().split(b" ", 3)


@pytest.fixture
def server():
    with running(application, quick=Quick()) as server:
        yield server


def test_what_is_quick_is_answered_by_the_thread_that_reads(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    by = [talk(connection, path, b"ab")[0] for path in ("/quick", "/slow", "/quick")]
    by.append(talk(connection, "/quick", method="GET")[0])
    connection.close()
    assert by[0] == by[2] == b"kbdfl-http"
    assert all(name.startswith(b"waitress") for name in (by[1], by[3]))


def sent(connection, data, answers):
    """What comes back until there are so many answers."""
    connection.sendall(data)
    got = b""
    while got.count(b"HTTP/1.1 200 OK") < answers or not got.endswith(b" "):
        got += connection.recv(65536)
    return [part.partition(b"\r\n\r\n")[2].split() for part in got.split(b"HTTP/1.1 200 OK")[1:]]


def post(path, size, more=b""):
    request = b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s"
    return request % (path, more, size, b"z" * size)


def test_requests_that_come_together_are_answered_in_turn_by_waitress(server):
    paths = [(b"/quick", 1), (b"/quick", 2), (b"/slow", 3), (b"/quick", 4), (b"/quick", 5)]
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        answers = sent(connection, b"".join(post(*each) for each in paths), 5)
    assert [size for _, _, size in answers] == [b"1", b"2", b"3", b"4", b"5"]
    assert {kind for _, kind, _ in answers} == {b"http"}


def test_a_quick_request_may_come_in_two_parts(server):
    request = post(b"/quick", 9)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in (len(request) - 9, len(request) - 1, 30):
            connection.sendall(request[:cut])
            time.sleep(0.1)
            (answer,) = sent(connection, request[cut:], 1)
            assert answer[1:] == [b"quick" if cut > 30 else b"http", b"9"]  # the head must come whole


def test_what_is_not_plain_is_read_by_waitress(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        (answer,) = sent(connection, post(b"/quick", 3, b"Connection: keep-alive\r\n"), 1)
        assert answer[1:] == [b"http", b"3"]
        (answer,) = sent(connection, post(b"/quick", 3), 1)
        assert answer[1:] == [b"quick", b"3"]


@pytest.mark.parametrize("path", [b"/slow", b"/quick"])
def test_a_request_that_does_not_arrive_whole_in_time_ends_its_connection(path, server, monkeypatch):
    monkeypatch.setattr(connections, "ARRIVAL_S", 0.5)
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as dripping,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as idle,
    ):
        dripping.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" % path)
        ended = False
        for _ in range(100):  # a byte at a time, so that the connection is never idle
            try:
                dripping.sendall(b"z")
                dripping.settimeout(0.1)
                ended = dripping.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
            if ended:
                break
        assert ended
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 200"


def certified(folder, *, password=None):
    """The files of a certificate of its own for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    secret = BestAvailableEncryption(password) if password else NoEncryption()
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    return paths


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    return certified(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secured(pem):
    with running(application, quick=Quick(), tls=tls_context(*pem), max_body_bytes=2**24) as server:
        yield server


def connect(server, pem):
    context = ssl.create_default_context(cafile=pem[0])
    return http.client.HTTPSConnection("localhost", server.port, context=context, timeout=20)


def test_tls_carries_bodies_of_megabytes_both_ways(secured, pem):
    assert secured.url.startswith("https://")
    connection = connect(secured, pem)
    for size in (0, 1, 100_000, 5_000_000):
        body = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
        _, scheme, length, echoed = talk(connection, "/echo", body)
        assert (int(length), echoed) == (size, body)
    assert talk(connection, "/quick", b"ab")[0] == b"kbdfl-http"
    assert scheme == b"https"
    connection.close()


def test_tls_connections_share_a_server(secured, pem):
    def one(number):
        connection = connect(secured, pem)
        sizes = [int(talk(connection, path, b"z" * number * 1000)[2]) for path in ("/slow", "/quick") * 5]
        connection.close()
        return sizes == [number * 1000] * 10

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(48)))


def test_whoever_does_not_speak_tls_is_let_go_and_others_are_served(secured, pem, caplog):
    with socket.create_connection(("127.0.0.1", secured.port), timeout=20) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(100))
        try:
            while plain.recv(4096):
                pass
        except ConnectionResetError:
            pass
    silent = socket.create_connection(("127.0.0.1", secured.port), timeout=20)  # never says hello
    connection = connect(secured, pem)
    assert talk(connection, "/slow")[1] == b"https"
    connection.close()
    silent.close()
    assert not caplog.records


def test_old_versions_of_tls_are_refused(secured, pem):
    context = ssl.create_default_context(cafile=pem[0])
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("localhost", secured.port), timeout=20) as connection,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(connection, server_hostname="localhost")


def test_a_certificate_that_cannot_be_used_is_one_clear_line(pem, tmp_path):
    other = certified(tmp_path / "other")
    locked = certified(tmp_path / "locked", password=b"secret")
    text = tmp_path / "text.pem"
    text.write_text("hello")
    for files, line in [
        ((pem[0], other[1]), "must hold a PEM certificate chain and its key"),
        ((text, pem[1]), "must hold a PEM certificate chain and its key"),
        ((pem[0],), "must hold a PEM certificate chain and its key"),
        ((tmp_path / "none.pem",), "cannot be read"),
        (locked, "must not be encrypted"),
    ]:
        with pytest.raises(ConfigError, match=line) as refusal:
            tls_context(*files)
        assert "\n" not in str(refusal.value)
    assert tls_context(*pem) is not None
