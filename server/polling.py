"""The loop under waitress's connections, for many of them that are mostly idle.

waitress's own asks every connection in every turn what it waits for, and takes one new one a turn; with a thousand open
that is most of the work. This one asks those that have something in hand, and all of them once a second, which also
finds those that waitress has given up.
"""

import select
import time

from waitress.wasyncore import dispatcher, readwrite

IDLE = select.POLLIN | select.POLLPRI  # what a connection with nothing in hand waits for
ALL_S = 1.0  # between two turns in which all are asked
ACCEPTED = 64  # new connections a turn, at most


class Loop:
    """Turns over `sockets`, waitress's map of file descriptors, in one thread: the one that opens and closes them."""

    def __init__(self, sockets: dict[int, dispatcher]) -> None:
        self._sockets = sockets
        self._poll = select.poll()
        # Who is registered under a descriptor, and for what.
        self._waits: dict[int, tuple[dispatcher, int]] = {}
        self._busy: set[int] = set()
        self._all_s = 0.0

    def turn(self, timeout_s: float) -> None:
        """Wait for something to happen, at most so long, and let whom it concerns deal with it."""
        self._ask()
        for descriptor, flags in self._poll.poll(1_000 * timeout_s):
            who, _ = self._waits.get(descriptor, (None, 0))
            if who is None or not self._open(descriptor, who):
                continue
            self._busy.add(descriptor)
            readwrite(who, flags)
            if not self._open(descriptor, who):
                self._forget(descriptor)
            elif who.accepting:
                self._accept(who)

    def _open(self, descriptor: int, who: dispatcher) -> bool:
        return self._sockets.get(descriptor) is who  # once it is closed, the number may be another's

    def _ask(self) -> None:
        now = time.monotonic()
        if now >= self._all_s:
            self._all_s = now + ALL_S
            self._busy.update(self._sockets)
            for descriptor in self._waits.keys() - self._sockets.keys():
                self._forget(descriptor)
        for descriptor in list(self._busy):
            who = self._sockets.get(descriptor)
            if who is None:
                self._forget(descriptor)
                continue
            flags = IDLE if who.readable() else 0
            if not who.accepting and who.writable():
                flags |= select.POLLOUT
            self._wait(descriptor, who, flags)
            if flags == IDLE and not who.accepting:  # who accepts looks after the others whenever it is asked
                self._busy.discard(descriptor)

    def _wait(self, descriptor: int, who: dispatcher, flags: int) -> None:
        known = self._waits.get(descriptor)
        if known == (who, flags):
            return
        self._waits[descriptor] = who, flags
        if flags:
            self._poll.register(descriptor, flags)  # or changes what is registered
        elif known is not None and known[1]:
            self._poll.unregister(descriptor)

    def _forget(self, descriptor: int) -> None:
        self._busy.discard(descriptor)
        _, flags = self._waits.pop(descriptor, (None, 0))
        if flags:
            self._poll.unregister(descriptor)

    def _accept(self, who: dispatcher) -> None:
        """The others that wait; one was taken by the event itself. New ones are asked in the next turn."""
        for _ in range(ACCEPTED - 1):
            count = len(self._sockets)
            if not who.readable():
                break
            who.handle_accept()
            if len(self._sockets) == count:
                break
        self._busy.update(self._sockets.keys() - self._waits.keys())
