"""The WSGI server: waitress, tuned for bodies of a megabyte over connections that stay open."""

import errno
import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager

from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer, create_server
from waitress.task import ErrorTask

from kbdfl.errors import ConfigError
from kbdfl.server.problems import CONTENT_TYPE, document

MEBIBYTE = 2**20
GRACE_S = 5.0


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


class _Channel(HTTPChannel):
    error_task_class = _ProblemTask


class HttpServer:
    """A listening server; the address is taken when it is made, `run` serves until `stop`."""

    def __init__(self, app: Callable, *, host: str, port: int, threads: int = 8, max_body_bytes: int) -> None:
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a short queue is ordinary for a fleet
        self._stopping = threading.Event()
        self._sockets: dict = {}
        try:
            server = create_server(
                app,
                map=self._sockets,
                host=host,
                port=port,
                ipv6=":" in host,
                ipv4=":" not in host,
                threads=threads,
                ident="kbdfl",
                connection_limit=1000,
                channel_timeout=120,
                asyncore_use_poll=True,  # select() ends at 1,024 file descriptors
                recv_bytes=MEBIBYTE // 4,
                inbuf_overflow=64 * MEBIBYTE,  # bodies stay in memory
                outbuf_overflow=64 * MEBIBYTE,
                # a little more than the application takes: it refuses, and says the limit
                max_request_body_size=max_body_bytes + MEBIBYTE,
            )
        except OSError as error:
            reason = {errno.EADDRINUSE: "is in use", errno.EACCES: "needs more rights"}.get(
                error.errno or 0, f"cannot be had ({error.strerror or error})"
            )
            raise ConfigError(f"port {port} on {host} {reason}") from None
        except ValueError as error:  # a host name that cannot be resolved
            raise ConfigError(f"cannot listen on {host}: {error}") from None
        if not isinstance(server, TcpWSGIServer):
            raise ConfigError(f"{host} stands for several addresses; name one")
        server.channel_class = _Channel
        self._server = server
        self.host, self.port = host, int(server.effective_port)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def run(self) -> None:
        """Serve in this thread until `stop` is called; answers that are being written are finished."""
        loop = self._server.asyncore.loop
        while not self._stopping.is_set():
            loop(timeout=1.0, use_poll=True, map=self._sockets, count=1)
        self._server.accepting = False
        deadline = time.monotonic() + GRACE_S
        while self._busy() and time.monotonic() < deadline:
            loop(timeout=0.05, use_poll=True, map=self._sockets, count=1)
        self._server.task_dispatcher.shutdown(timeout=GRACE_S)
        self._server.asyncore.close_all(self._sockets)

    def stop(self) -> None:
        """Make `run` return; may be called from any thread or a signal handler, and more than once."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._server.pull_trigger()

    def _busy(self) -> bool:
        return any(c.requests or c.total_outbufs_len for c in list(self._server.active_channels.values()))


@contextmanager
def running(app: Callable, *, host: str = "127.0.0.1", port: int = 0, threads: int = 8, max_body_bytes: int):
    """An `HttpServer` that serves from a thread of its own inside the `with` block."""
    server = HttpServer(app, host=host, port=port, threads=threads, max_body_bytes=max_body_bytes)
    thread = threading.Thread(target=server.run, name="kbdfl-http", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def serve(server: HttpServer) -> None:
    """Serve in the main thread until SIGTERM or SIGINT."""
    before = {
        number: signal.signal(number, lambda *_: server.stop()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        server.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
