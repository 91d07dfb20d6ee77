"""A phone's part in a session of secure aggregation: what it trained becomes words, and it plays `kbdfl.secagg.Device`.

The report that training gives never leaves the phone. It asks for the next message until that is there, more and more
rarely, and says nothing more once anything is not as it must be (`Abort`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Protocol

from kbdfl.assignment import Assignment
from kbdfl.device_sim.encoding import payload_of
from kbdfl.device_sim.joined import Joined
from kbdfl.device_sim.runtime import Declined
from kbdfl.errors import ConfigError, Conflict
from kbdfl.secagg import Abort, Device, Floors, messages
from kbdfl.secagg.graph import honest_of
from kbdfl.wire import decode_report

STEPS = ("advertise", "share", "mask", "confirm", "unmask")  # what it sends
ASKED = ("terms", "roster", "inbox", "survivors", "quorum")  # what it asks for before each
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Caution:
    """What a phone insists on, whatever the server says: `floors` of every session, and with `required` a session.

    A phone that requires it takes no part in tasks whose server could read its update. One with a `noise` takes none in
    those whose phones add less to their sum, in clip norms.
    """

    floors: Floors = Floors()
    required: bool = False
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise < inf:
            raise ConfigError(f"a phone's noise floor must be >= 0 and finite, got {self.noise}")

    @property
    def survivors(self) -> int:
        """Honest phones that are in any sum which a phone gives its shares for, by its own floors."""
        return honest_of(self.floors.devices, self.floors.corrupt)

    def check(self, assignment: Assignment) -> None:
        """Raise Declined for a task in which the phone takes no part."""
        if self.required and not assignment.secure:
            raise Declined(
                "the task's updates could be read one by one, and this phone has them summed unseen"
            )
        noise, fewest = assignment.noise_multiplier, assignment.noise_survivors
        if not self.noise <= noise < inf:  # written so that a NaN fails it
            raise Declined(f"phones add noise of {noise:g} clip norms, and this one wants {self.noise:g}")
        if noise and not assignment.secure:
            raise Declined("a phone's share of noise hides it in a sum alone, and this task makes none")
        if noise and not 1 <= fewest <= self.survivors:
            raise Declined(
                f"the noise is made for {fewest} honest phones in a sum, and of those that this phone accepts some "
                f"may have {self.survivors}"
            )


class Client(Protocol):
    """What carries messages: `kbdfl.device_sim.agent.ServerClient`."""

    def signed(
        self, key: bytes, method: str, path: str, *, body: bytes = b"", content_type: str = ""
    ) -> bytes: ...


class SecurePart:
    """One phone in one session, of the task whose addresses begin with `base`; `words` int64 (m,) is what it gives.

    The phone falls silent before the step `silent`, if that is one.
    """

    def __init__(
        self,
        assignment: Assignment,
        frame: bytes,
        client: Client,
        *,
        key: bytes,
        base: str,
        caution: Caution,
        joined: Joined,
        silent: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.assignment, self._client, self._key, self._silent = assignment, client, key, silent
        self._path = f"{base}/rounds/{assignment.round}/secure"
        report = decode_report(frame, max_bytes=assignment.max_report_bytes)
        self.device = report.device
        self._payload = payload_of(assignment)
        self.words = self._payload.of(report)
        self._device = Device(key, seen=joined, floors=caution.floors)
        self._clock = clock
        self._step, self._polls = 0, 0
        self._unsent: bytes | None = None
        self.up_bytes = self.down_bytes = 0
        self.cpu_s = 0.0  # of the processor, from a message to the answer

    @property
    def summed(self) -> bool:
        """Whether the server has taken its masked words."""
        return self._step > STEPS.index("mask")

    def go_on(self) -> tuple[str, float, str]:
        """Take the steps that can be taken now: what came of it, seconds until the next one may be, and why.

        reported  all is said
        summing   the next message is not there yet
        dropped   the phone fell silent
        late      the session has gone on without it
        declined  the session is not as it must be
        """
        try:
            wait_s = self._steps()
        except Conflict as late:
            return "late", 0.0, str(late)
        except Abort as reason:
            return "declined", 0.0, str(reason)
        if self._step == len(STEPS):
            return "reported", 0.0, ""
        return ("dropped" if STEPS[self._step] == self._silent else "summing"), wait_s, ""

    def _steps(self) -> float:
        while self._step < len(STEPS) and STEPS[self._step] != self._silent:
            if self._unsent is None:
                asked = self._client.signed(self._key, "GET", f"{self._path}/{ASKED[self._step]}")
                if not asked:
                    self._polls += 1
                    return min(FIRST_WAIT_S * 2 ** min(self._polls, 9), LONGEST_WAIT_S)
                self.down_bytes += len(asked)
                began_s = time.thread_time()
                try:
                    self._unsent = self._answer(asked)
                finally:
                    self.cpu_s += time.thread_time() - began_s
            path, octets = f"{self._path}/{STEPS[self._step]}", "application/octet-stream"
            self._client.signed(self._key, "POST", path, body=self._unsent, content_type=octets)
            self.up_bytes += len(self._unsent)
            self._unsent, self._polls = None, 0
            self._step += 1
        return 0.0

    def _answer(self, asked: bytes) -> bytes:
        device, now, step = self._device, self._clock(), STEPS[self._step]
        if step == "advertise":
            work = self.assignment
            answer: messages.Message = device.join(
                messages.Terms.decode(asked),
                task=work.task,
                round=work.round,
                model_sha256=bytes.fromhex(work.model_sha256),
                words=self._payload.words,
                room=(self._payload.levels, self._payload.noise_bound),
                now=now,
            )
        elif step == "share":
            answer = device.share(messages.Roster.decode(asked), now=now)
        elif step == "mask":
            answer = device.mask(messages.Inbox.decode(asked), self.words, now=now)
        elif step == "confirm":
            answer = device.confirm(messages.Survivors.decode(asked), now=now)
        else:
            answer = device.unmask(messages.Quorum.decode(asked), now=now)
        return answer.encode()
