"""Many HTTP exchanges at a time from one thread, for loads that must not take the processor from who is measured.

Not a client for use: it speaks to `kbdfl serve` on loopback, reads answers that state their length, and no others.
"""

import selectors
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

CHUNK = 1 << 16
END_OF_HEAD = b"\r\n\r\n"
GONE = 0  # the status of a request that no answer came to

# What is called with an answer: its status, its headers in lower case, and its body; with GONE if none came, and why.
Done = Callable[[int, dict[str, str], bytes], None]


def request_bytes(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A request as it is sent; `headers` come besides Host and Content-Length."""
    lines = [f"{method} {path} HTTP/1.1", "Host: loopback", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Exchange:
    """Connections to one server and what is under way on them. `turn` it for anything to happen."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._selector = selectors.DefaultSelector()
        self.under_way: set[Connection] = set()
        self.open: set[Connection] = set()

    def close(self) -> None:
        """Let go of the connections that are open; requests under way end with GONE."""
        for connection in list(self.open):
            connection.end()
        self._selector.close()

    def connection(self) -> "Connection":
        """A new one, which connects with its first request."""
        return Connection(self, self._address)

    def turn(self, timeout_s: float) -> None:
        """Go on with whatever can go on; wait for it as long as this at most."""
        for key, events in self._selector.select(max(0.0, timeout_s)):
            key.data.go_on(events)

    def watch(self, connection: "Connection", events: int, *, before: int) -> None:
        """Wait for `events` on a connection; 0 = not at all."""
        if events == before:
            return
        if not events:
            self._selector.unregister(connection.socket)
        elif before:
            self._selector.modify(connection.socket, events, connection)
        else:
            self._selector.register(connection.socket, events, connection)


class Connection:
    """One that stays open from request to request, until the server closes it; `since_s` is when it last began one."""

    def __init__(self, exchange: Exchange, address: tuple[str, int]) -> None:
        self._exchange, self._address = exchange, address
        self.socket: Any = None
        self._events = 0
        self._out, self._in = memoryview(b""), bytearray()
        self._done: Done | None = None
        self.since_s = 0.0

    def ask(self, request: bytes, done: Done) -> None:
        """Send a request, one at a time; `done` is called, in a `turn`, with what came of it."""
        self._done, self._out = done, memoryview(request)
        self._in.clear()
        self._exchange.under_way.add(self)
        self.since_s = time.perf_counter()
        if self.socket is not None:
            self.go_on(selectors.EVENT_WRITE)
            return
        self._exchange.open.add(self)
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(self._address)  # what comes of it is seen when it can be written to
        self._watch(selectors.EVENT_WRITE)

    def go_on(self, events: int) -> None:
        """Send and read what can be sent and read now."""
        try:
            if events & selectors.EVENT_WRITE:
                self._out = self._out[self.socket.send(self._out) :]
                self._watch(selectors.EVENT_WRITE if self._out else selectors.EVENT_READ)
            if events & selectors.EVENT_READ:
                data = self.socket.recv(CHUNK)
                if not data:
                    self.end("closed there")
                    return
                self._in += data
                self._read()
        except BlockingIOError:
            self._watch(selectors.EVENT_WRITE if self._out else selectors.EVENT_READ)
        except OSError as error:
            self.end(type(error).__name__)

    def end(self, why: str = "closed here") -> None:
        """Close it; a request that waits for its answer ends with GONE, and says `why`."""
        self._shut()
        self._finish(GONE, {}, why.encode())

    def _shut(self) -> None:
        self._watch(0)
        if self.socket is not None:
            self.socket.close()
            self.socket = None
            self._exchange.open.discard(self)

    def _read(self) -> None:
        at = self._in.find(END_OF_HEAD)
        if at < 0:
            return
        first, *lines = self._in[:at].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = bytes(self._in[at + len(END_OF_HEAD) :])
        if len(body) < int(headers.get("content-length", 0)):
            return
        if headers.get("connection", "").lower() == "close":
            self._shut()
        self._finish(int(first.split(" ", 2)[1]), headers, body)

    def _finish(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self._exchange.under_way.discard(self)
        done, self._done = self._done, None
        if done is not None:
            done(status, headers, body)

    def _watch(self, events: int) -> None:
        if self.socket is not None:
            self._exchange.watch(self, events, before=self._events)
            self._events = events
