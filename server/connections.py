"""A connection of waitress's that counts what crosses it, answers what is quick at once, and may speak TLS.

A request of waitress's goes to one of its threads and comes back, which takes longer than a check-in takes to answer.
What the `Dispatcher` calls quick is answered where it was read, in the thread of the loop.
"""

import ssl
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import build_http_date

from kbdfl.errors import ConfigError
from kbdfl.server.problems import CONTENT_TYPE, document
from kbdfl.server.traffic import CLAIM, UNKNOWN

ARRIVAL_S = (
    120.0  # from a request's first byte to its last; without a limit, a byte a minute would keep a connection
)

Quick = Callable[[str, str], bool]  # whether a request of this method to this path is answered at once


def never(method: str, path: str) -> bool:
    """Nothing is quick."""
    return False


class _ProblemTask(ErrorTask):
    """What waitress itself refuses (a malformed head, a body over the limit), said as a problem document."""

    def execute(self) -> None:
        error = self.request.error
        body = document(error.code, str(error.body).splitlines()[0] if error.body else error.reason)
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [("Content-Type", CONTENT_TYPE), ("X-Content-Type-Options", "nosniff")]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


_date = lru_cache(maxsize=2)(build_http_date)  # it changes once a second


class _Task(WSGITask):
    def get_environment(self) -> dict:
        return super().get_environment() | {CLAIM: self.channel.claim}

    def write(self, data: bytes) -> None:
        if not self.wrote_header:
            self.response_headers.append(("Date", _date(int(self.start_time))))
        super().write(data)


class Dispatcher(ThreadedTaskDispatcher):
    """waitress's threads, but for what is `quick`: that is answered by the thread that calls `here` before it reads."""

    def __init__(self, threads: int, quick: Quick) -> None:
        super().__init__()
        self._quick = quick
        self._loop: threading.Thread | None = None
        self.set_thread_count(threads)

    def here(self) -> None:
        """This thread is the one that reads."""
        self._loop = threading.current_thread()

    @property
    def is_here(self) -> bool:
        return threading.current_thread() is self._loop

    def add_task(self, channel: "Connection") -> None:
        request = channel.requests[0]
        if self.is_here and not request.error and self._quick(request.command, request.path):
            channel.at_once = True
        else:
            super().add_task(channel)


class _NothingYet(Exception):
    """TLS has nothing to read for now; waitress would take an OSError for the end of the connection."""


class Connection(HTTPChannel):
    """What is read before a device has shown who it is, is its own, once it has."""

    task_class = _Task
    error_task_class = _ProblemTask
    at_once = False  # a request is to be answered as soon as what was read is parsed
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
            self.server.traffic.add(self._device, down=sent)
        return sent

    def handle_read(self) -> None:
        super().handle_read()
        if self.request is None:
            self._arriving_s = None
        elif self._arriving_s is None:
            self._arriving_s = time.monotonic()
        while self.at_once:  # more than once, if requests came together
            self.at_once = False
            self.service()
            if self.writable():
                self.handle_write()

    def readable(self) -> bool:
        # Asked at least once a second.
        if self._arriving_s is not None and time.monotonic() > self._arriving_s + ARRIVAL_S:
            self.will_close = True
        return super().readable()

    def service(self) -> None:
        # Nothing is read until the last answer was sent, nor while a request waits for this: all that was read is its
        # own. What nobody claims is counted by the next request, which another thread may begin as this one ends.
        self._count_read(UNKNOWN)
        self._device = UNKNOWN
        self._unclaimed, self._incoming = self._incoming, 0
        super().service()

    def handle_close(self) -> None:
        self._count_read(UNKNOWN)
        self._unclaimed, self._incoming = self._incoming, 0
        self._count_read(UNKNOWN)
        super().handle_close()

    def _count_read(self, device: str) -> None:
        if self._unclaimed:
            self.server.traffic.add(device, up=self._unclaimed)
            self._unclaimed = 0


class TlsConnection(Connection):
    """The same over TLS, whose `context` a subclass has; bytes are counted as they are before they are encrypted.

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


def connection_class(context: ssl.SSLContext | None) -> type[Connection]:
    """The connections of a server, over TLS if there is a `context`."""
    return Connection if context is None else type("_Secured", (TlsConnection,), {"context": context})


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
