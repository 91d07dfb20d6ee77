"""Bytes at the socket, heads of requests and answers included: what each device really sent and received."""

import threading

CLAIM = "kbdfl.claim"  # in a request's environment: what an application calls with the device that it is from
UNKNOWN = ""  # whose bytes are no enrolled device's: pages, enrolments, refused and broken requests

Crossed = dict[str, tuple[int, int]]  # device -> (up, down)


class Traffic:
    """What crossed since it was last taken. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._crossed: Crossed = {}
        self._up = self._down = 0

    def add(self, device: str, *, up: int = 0, down: int = 0) -> None:
        """Count bytes that `device` sent (`up`) or was sent."""
        with self._lock:
            before_up, before_down = self._crossed.get(device, (0, 0))
            self._crossed[device] = (before_up + up, before_down + down)
            self._up += up
            self._down += down

    @property
    def total(self) -> tuple[int, int]:
        """All bytes up and down, taken or not."""
        with self._lock:
            return self._up, self._down

    def take(self) -> Crossed:
        """The bytes of each device, from now on counted anew."""
        with self._lock:
            crossed, self._crossed = self._crossed, {}
        return crossed
