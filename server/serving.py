"""The WSGI server: waitress, tuned for bodies of a megabyte over connections that stay open."""

import errno
import gc
import logging
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

from waitress.server import create_server
from waitress.task import ThreadedTaskDispatcher
from waitress.trigger import trigger as Trigger
from waitress.wasyncore import close_all

from kbdfl.errors import ConfigError
from kbdfl.server.connections import Connection, connection_class
from kbdfl.server.plain import Quick
from kbdfl.server.polling import Loop
from kbdfl.server.traffic import Traffic

MEBIBYTE = 2**20
BACKLOG = 4096  # connections that wait to be taken; the system may set a lower limit
GRACE_S = 5


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is a free one. Raises ConfigError in one line when it cannot be had.

    Whoever connects waits until a server runs on it, so a port can be taken before slow preparations.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"host must be an address of this machine, got {host} ({error.strerror})") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        why = {
            errno.EADDRINUSE: f"port {port} on {host} is in use; choose another with --port",
            errno.EACCES: f"port {port} on {host} needs more rights; choose one above 1023 with --port",
        }
        reason = why.get(error.errno or 0, f"cannot listen on {host} port {port}: {error.strerror}")
        raise ConfigError(reason) from None
    return listener


class _Server(Protocol):
    """What is needed of waitress's server on one socket; typeshed has wrong types for half of it."""

    accepting: bool
    active_channels: dict[int, Connection]
    channel_class: type[Connection]
    pull_trigger: Callable[[], None]
    task_dispatcher: ThreadedTaskDispatcher
    trigger: Trigger


class HttpServer:
    """An application on a listening socket; `run` serves until `stop`. `traffic` counts what crosses.

    A request that comes through the proxy at the address `trusted_proxy` is from whom the proxy says. What `quick`
    takes is answered by the thread that reads.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        listener: socket.socket,
        *,
        threads: int,
        max_body_bytes: int,
        traffic: Traffic | None = None,
        trusted_proxy: str | None = None,
        quick: Quick | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        believed = {"x-forwarded-for", "x-forwarded-proto"} if trusted_proxy else set()
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a short queue is ordinary for a fleet
        self._stopping = threading.Event()
        self._closing = threading.RLock()  # reentrant: a signal may call `stop` in the middle of `run`
        self._closed = False
        self._sockets: dict[int, Any] = {}  # waitress's dispatchers; typeshed has them for sockets
        self._scheme = "http" if tls is None else "https"
        self._loop_thread = 0
        made = create_server(
            app,
            map=self._sockets,
            sockets=[listener],
            threads=threads,
            ident="kbdfl",
            url_scheme=self._scheme,
            backlog=BACKLOG,
            connection_limit=1000,
            channel_timeout=120,
            recv_bytes=MEBIBYTE // 4,
            inbuf_overflow=64 * MEBIBYTE,  # bodies stay in memory
            outbuf_overflow=64 * MEBIBYTE,
            # A little more than the application takes: it is the one to refuse, and to say the limit.
            max_request_body_size=max_body_bytes + MEBIBYTE,
            trusted_proxy=trusted_proxy,
            trusted_proxy_headers=believed,
            clear_untrusted_proxy_headers=True,
        )
        self._server = cast(_Server, made)
        self._server.channel_class = connection_class(tls, traffic=traffic or Traffic(), quick=quick)
        self._server.pull_trigger = self._wake
        self.host: str
        self.port: int
        self.host, self.port = listener.getsockname()[:2]

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def run(self) -> None:
        """Serve in this thread until `stop` is called; answers in progress are finished."""
        loop = Loop(self._sockets)
        self._loop_thread = threading.get_ident()
        while not self._stopping.is_set():
            loop.turn(1.0)
        self._server.accepting = False
        deadline = time.monotonic() + GRACE_S
        while self._busy() and time.monotonic() < deadline:
            loop.turn(0.05)
        self._server.task_dispatcher.shutdown(timeout=GRACE_S)
        with self._closing:
            self._closed = True
            close_all(self._sockets)

    def stop(self) -> None:
        """Make `run` return; may be called from any thread or a signal handler, and more than once."""
        self._stopping.set()
        with self._closing:
            if not self._closed:  # `run` may have seen the flag and closed the trigger in the meantime
                self._server.trigger.pull_trigger()

    def _wake(self) -> None:
        if threading.get_ident() != self._loop_thread:
            self._server.trigger.pull_trigger()

    def _busy(self) -> bool:
        return any(c.requests or c.total_outbufs_len for c in list(self._server.active_channels.values()))


@contextmanager
def running(
    app: Callable[..., Any], *, threads: int = 8, max_body_bytes: int = MEBIBYTE, **options: Any
) -> Iterator[HttpServer]:
    """An `HttpServer` on a free loopback port, serving from a thread of its own inside the `with` block."""
    listener = listen("127.0.0.1", 0)
    server = HttpServer(app, listener, threads=threads, max_body_bytes=max_body_bytes, **options)
    thread = threading.Thread(target=server.run, name="kbdfl-http", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def serve(server: HttpServer) -> None:
    """Serve in the main thread until SIGTERM or SIGINT."""
    signals = (signal.SIGTERM, signal.SIGINT)
    gc.collect()
    gc.freeze()  # what there is now stays, and to look through it time and again holds up everybody
    before = {number: signal.signal(number, lambda *_: server.stop()) for number in signals}
    try:
        server.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
