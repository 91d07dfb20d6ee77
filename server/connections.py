"""A connection of waitress's that counts what crosses it, answers what is quick at once, and may speak TLS.

A request of waitress's goes to one of its threads and comes back, which takes longer than a check-in takes to answer.
What a `kbdfl.server.plain.Quick` takes is read and answered without it, in the thread of the loop.
"""

import ssl
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import Error, build_http_date

from kbdfl.errors import ConfigError
from kbdfl.server.plain import Quick, read
from kbdfl.server.problems import CONTENT_TYPE, document
from kbdfl.server.traffic import CLAIM, UNKNOWN, Traffic

ARRIVAL_S = (
    120.0  # from a request's first byte to its last; without a limit, a byte a minute would keep a connection
)

WITH_HEAD_BYTES = 65_536  # of a body at most that is sent together with the head before it


class _Refused(Protocol):
    error: Error


class _ProblemTask(ErrorTask):  # type: ignore[misc]  # to mypy waitress has no types
    """What waitress itself refuses (a malformed head, a body over the limit), said as a problem document."""

    request: _Refused  # pyright: ignore[reportIncompatibleVariableOverride]  # typeshed has it for an Error

    def execute(self) -> None:
        error = self.request.error
        body = document(error.code, str(error.body).splitlines()[0] if error.body else error.reason)
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", CONTENT_TYPE), ("X-Content-Type-Options", "nosniff")]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


_date = lru_cache(maxsize=2)(build_http_date)  # it changes once a second


class _Task(WSGITask):  # type: ignore[misc]  # to mypy waitress has no types
    channel: "Connection"  # pyright: ignore[reportIncompatibleVariableOverride]  # no other has such tasks
    response_headers: Sequence[tuple[str, str]]
    wrote_header: bool

    def get_environment(self) -> dict[str, Any]:
        return super().get_environment() | {CLAIM: self.channel.claim}

    def write(self, data: bytes) -> None:
        if self.wrote_header:
            super().write(data)
            return
        self.response_headers = [*self.response_headers, ("Date", _date(int(self.start_time)))]
        if self.has_body and self.content_length == len(data) <= WITH_HEAD_BYTES:
            # One call of the system's, not two.
            head = self.build_response_header()
            self.wrote_header = True
            self.content_bytes_written = len(data)
            self.channel.write_soon(head + data)
        else:
            super().write(data)


class _NothingYet(Exception):
    """TLS has nothing to read for now; waitress would take an OSError for the end of the connection."""


class Connection(HTTPChannel):  # type: ignore[misc]  # to mypy waitress has no types
    """What is read before a device has shown who it is, is its own, once it has.

    A server's connections are a subclass of its own, which has its `traffic` and its `quick`.
    """

    traffic: Traffic
    quick: Quick | None
    task_class = _Task
    error_task_class = _ProblemTask
    _held = b""  # the beginning of a quick request
    _device = UNKNOWN  # whom the request in hand, or the one before, came from
    _unclaimed = 0  # bytes of the request in hand
    _incoming = 0  # bytes that were read for the next one, which may be while the one in hand ends
    _arriving_s: float | None = None  # since when a request has been arriving

    def claim(self, device: str) -> None:
        """The request in hand is `device`'s."""
        self._device = device
        self._count_read(device)

    def recv(self, buffer_size: int) -> bytes:
        data = super().recv(buffer_size)
        self._incoming += len(data)
        return data

    def send(self, data: bytes, do_close: bool = True) -> int:
        sent = super().send(data, do_close)
        if sent:
            self.traffic.add(self._device, down=sent)
        return sent

    def handle_read(self) -> None:
        super().handle_read()
        if self.request is None and not self._held:
            self._arriving_s = None
        elif self._arriving_s is None:
            self._arriving_s = time.monotonic()

    def received(self, data: bytes) -> bool:
        quick = self.quick
        if quick is None or self.request is not None or self.requests or not self.readable():
            return bool(super().received(data))
        data, self._held = self._held + data, b""
        request = read(data)
        if request is None or not quick.takes(request):
            return bool(super().received(data))
        if not request.whole:
            self._held = data
        else:
            self._begin()
            reply = quick.answer(request, self.claim)
            answer = reply.encode(date=_date(int(time.time())), server=self.server.adj.ident)
            self.write_soon(answer[self.send(answer) :])
        return True

    def readable(self) -> bool:
        # Asked at least once a second.
        if self._arriving_s is not None and time.monotonic() > self._arriving_s + ARRIVAL_S:
            self.will_close = True
        return super().readable()

    def service(self) -> None:
        self._begin()
        super().service()

    def _begin(self) -> None:
        # Nothing is read until the last answer was sent, nor while a request waits for this: all that was read is its
        # own. What nobody claims is counted by the next request, which another thread may begin as this one ends.
        self._count_read(UNKNOWN)
        self._device = UNKNOWN
        self._unclaimed, self._incoming = self._incoming, 0

    def handle_close(self) -> None:
        self._count_read(UNKNOWN)
        self._unclaimed, self._incoming = self._incoming, 0
        self._count_read(UNKNOWN)
        super().handle_close()

    def _count_read(self, device: str) -> None:
        if self._unclaimed:
            self.traffic.add(device, up=self._unclaimed)
            self._unclaimed = 0


class TlsConnection(Connection):
    """The same over TLS, whose `context` the subclass has; bytes are counted as they are before they are encrypted.

    The handshake happens as the first bytes are read. One lock for both directions: a thread may send while the loop
    reads, and OpenSSL does not allow that.
    """

    context: ssl.SSLContext
    _wants_to_write = False  # a handshake that has something to say

    def __init__(self, server: Any, sock: Any, addr: Any, adj: Any, map: Any = None) -> None:
        self._tls = threading.Lock()
        sock.setblocking(False)
        secured = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        super().__init__(server, secured, addr, adj, map=map)

    def recv(self, buffer_size: int) -> bytes:
        with self._tls:
            try:
                return super().recv(buffer_size)
            except ssl.SSLWantReadError:
                raise _NothingYet from None
            except ssl.SSLWantWriteError:
                self._wants_to_write = True
                raise _NothingYet from None
            except ssl.SSLError:  # someone who does not speak TLS, or not ours
                failed = True
        if failed:
            self.handle_close()
        raise _NothingYet

    def send(self, data: bytes, do_close: bool = True) -> int:
        with self._tls:
            try:
                return super().send(data, do_close)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return 0
            except ssl.SSLError:
                self.will_close = True
                return 0

    def handle_read(self) -> None:
        try:
            while self.connected and self.readable():  # a record at a time
                super().handle_read()
        except _NothingYet:
            pass

    def writable(self) -> bool:
        return self._wants_to_write or super().writable()

    def handle_write(self) -> None:
        if self._wants_to_write:
            self._wants_to_write = False
            self.handle_read()
        super().handle_write()


def connection_class(
    context: ssl.SSLContext | None, *, traffic: Traffic, quick: Quick | None
) -> type[Connection]:
    """The connections of a server, over TLS if there is a `context`."""
    own = {"traffic": traffic, "quick": quick}
    if context is None:
        return type("_Plain", (Connection,), own)
    return type("_Secured", (TlsConnection,), own | {"context": context})


def tls_context(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer with a PEM file's certificate chain, and its key if it is in a file of its own.

    Raises ConfigError in one line for what is not that.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A password is not asked for on a terminal: a server starts by itself.
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        files = certificate if key is None else f"{certificate} and {key}"
        reason = (error.reason or "not PEM").lower().replace("_", " ")
        raise ConfigError(f"{files} must hold a PEM certificate chain and its key: {reason}") from None
    except OSError as error:
        raise ConfigError(f"{error.filename or certificate} cannot be read: {error.strerror}") from None
    return context


def _no_password() -> str:
    raise ConfigError("the TLS key must not be encrypted: nobody is there to say its password")
