"""The open round of a secure task: one session of secure aggregation, from the first phone that is assigned to the sum.

It lives in memory only. Nothing that a phone is told depends on the disk: a phone is counted once the sum is, durably,
and a server that was killed before has lost the session, so that the round is abandoned and the next one begins under
another number (`SecureRoom.restart`), for phones join one session a round.

A phase ends when all have answered who can, or `phase_deadline_s` after it began. The first one, in which phones train
and then advertise, ends that long after a whole cohort has advertised, and in time for the other phases before the
round's deadline. Where too few are left, or fewer than the round needs, the round is abandoned.

Thread-safe by a lock of its own, which is taken after the service's turn, never before it; the sum is computed under
neither.
"""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from werkzeug.exceptions import Gone

from kbdfl.algorithms.secure import STEPS as STEPS_OF_A_SESSION
from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator
from kbdfl.errors import ConfigError, Conflict, TooLarge, WireError
from kbdfl.identity import device_id
from kbdfl.rounds import Finished, RoundResult, Wait
from kbdfl.secagg import Server, Shortfall, Sum, messages
from kbdfl.secagg.field import BYTES
from kbdfl.secure import SESSION, count_sum, terms_of
from kbdfl.server.administration import TaskAdministration
from kbdfl.server.turns import LocalTurn, Turn

log = logging.getLogger(__name__)

ASK_AGAIN_S = 1  # a phone whose next message is not there yet
STEPS = ("advertise", "share", "mask", "confirm", "unmask")  # what phones send, a phase each
ASKED = ("terms", "roster", "inbox", "survivors", "quorum")  # what they get before it
KINDS: dict[str, type[messages.Message]] = {
    "advertise": messages.Advert,
    "share": messages.Shares,
    "mask": messages.Masked,
    "confirm": messages.Confirmation,
    "unmask": messages.Unmasked,
}


@dataclass(slots=True, eq=False)
class _Session:
    """One round's: who was invited, who took which step, and since when its phase lasts (the turn's clock)."""

    assignment: Assignment
    server: Server
    ends_s: float  # of the round
    began_s: float
    members: set[str] = field(default_factory=set)
    answered: dict[str, set[str]] = field(default_factory=lambda: {step: set() for step in STEPS})
    sent: dict[str, int] = field(default_factory=dict)  # device -> bytes
    phase: int = 0  # of STEPS
    enough_s: float | None = None  # since when a cohort has advertised
    total: Sum | None = None
    lost: str = ""  # why there is no sum

    @property
    def round(self) -> int:
        return self.assignment.round

    @property
    def over(self) -> bool:
        """Whether there is nothing more to send."""
        return self.phase == len(STEPS) or bool(self.lost)

    def able(self, phase: int) -> set[str]:
        """Who may take the step of this phase."""
        return self.answered[STEPS[phase - 1]] if phase else self.members

    def largest(self, step: str) -> int:
        """Bytes of a message."""
        terms = self.server.terms
        most = {
            "share": messages.BOX * terms.devices + 128,
            "mask": terms.payload_bytes + 64,
            "unmask": BYTES * terms.devices + 64,
        }
        return most.get(step, KINDS[step].largest)


class SecureRoom:
    """The sessions of one task, one after another; of a task whose updates are not summed unseen there is none."""

    def __init__(
        self,
        coordinator: Coordinator,
        turn: Turn,
        administration: TaskAdministration,
        *,
        wall_clock: Callable[[], float],
    ) -> None:
        self._coordinator, self._turn, self._administration = coordinator, turn, administration
        self._wall_clock = wall_clock
        self._secure, self._rule = coordinator.task.algorithm.secure, coordinator.task.rule
        if self._secure.on and not isinstance(turn, LocalTurn):
            raise ConfigError(
                "secure aggregation must be served by one process, which keeps sessions in memory"
            )
        self._lock = threading.RLock()
        self._session: _Session | None = None
        self._why = (-1, "")  # round, and why it has no sum

    # in the service's turn

    def restart(self, now: float) -> RoundResult | None:
        """End the round that a former process had open, if any phone has a part in it: its session is lost."""
        states = self._coordinator.device_states()
        if not self._secure.on or not (states["training"] or states["reported"]):
            return None
        self._why = self._coordinator.round, "the server was begun anew, and a session is in its memory only"
        log.warning("round %d is abandoned: %s", *self._why)
        return self._coordinator.close(now)

    def told(self, device: str, assignment: Assignment | Wait | Finished, now: float) -> None:
        """A phone has checked in, and was given a part in the open round or none."""
        if not self._secure.on or not isinstance(assignment, Assignment):
            return
        with self._lock:
            if self._session is None or self._session.round != assignment.round:
                terms = terms_of(
                    self._coordinator.task, assignment, session=os.urandom(SESSION), now=self._wall_clock()
                )
                server = Server(terms, self._secure.rule)
                self._session = _Session(assignment, server, ends_s=now + assignment.deadline_s, began_s=now)
            self._session.members.add(device)

    def settle(self, now: float) -> RoundResult | None:
        """The result of the round whose session is over, which is counted, or abandoned."""
        with self._lock:
            session = self._session
            if session is None or not (session.total or session.lost):
                return None
            self._session = None
            if session.round != self._coordinator.round:
                return None
            self._why = session.round, session.lost
        if session.total is None:
            log.warning("round %d is abandoned: %s", session.round, session.lost)
            self._administration.refused(Shortfall(session.lost))
            return self._coordinator.close(now)
        survivors = {device: session.sent[device] for device in map(device_id, session.total.survivors)}
        return count_sum(
            self._coordinator,
            session.total.levels,
            survivors,
            assignment=session.assignment,
            session=session.server.terms.session,
            now=now,
        )

    # outside of it

    def ask(self, device: str, identity: bytes, number: int, what: str) -> bytes | None:
        """The message `what` for a phone; None if it is not there yet. Raises Gone, or Conflict for another round."""
        self._check_on()
        with self._lock:
            session, phase = self._of(device, number), ASKED.index(what)
            if session.phase > phase:
                raise Gone(f"round {number} has gone on without this phone: {what} is over")
            if device not in session.able(phase):
                if session.phase == phase:
                    raise Gone(f"round {number} has gone on without this phone's message before {what}")
                return None
            if session.phase < phase:
                return None
            server = session.server
            message = {
                "terms": lambda: server.terms,
                "roster": lambda: server.roster_for(identity),
                "inbox": lambda: server.inbox_for(identity),
                "survivors": server.survivors,
                "quorum": server.quorum,
            }[what]()
            return message.encode()

    def take(self, device: str, identity: bytes, number: int, step: str, body: bytes) -> None:
        """A phone's message. The same twice changes nothing; raises Gone, Conflict, WireError or TooLarge."""
        self._check_on()
        with self._lock:
            session = self._of(device, number)
            if len(body) > session.largest(step):
                raise TooLarge(f"{step} must be at most {session.largest(step)} bytes, got {len(body)}")
            message, server = KINDS[step].decode(body), session.server
            if session.phase > STEPS.index(step) and device not in session.answered[step]:
                raise Gone(f"round {number} has gone on without this phone: {step} is over")
            _give(server, identity, message)
            if device not in session.answered[step]:
                session.answered[step].add(device)
                session.sent[device] = session.sent.get(device, 0) + len(body)
            if session.enough_s is None and len(session.answered["advertise"]) >= self._rule.cohort:
                session.enough_s = self._turn.now()

    def advance(self) -> None:
        """End the phase that is due; the last one computes the sum, which takes a while."""
        with self._lock:
            session = self._session
            if session is None or session.over or not self._due(session, self._turn.now()):
                return
            last = session.phase == len(STEPS) - 1
            if not last:
                self._close(session)
                return
            session.phase += 1
        try:
            total = session.server.close()
        except Shortfall as error:
            session.lost = str(error)
        else:
            session.total = total

    def _close(self, session: _Session) -> None:
        try:
            session.server.close()
            if STEPS[session.phase] == "mask" and len(session.answered["mask"]) < self._rule.enough:
                raise Shortfall(
                    f"at least {self._rule.enough} phones are needed, {len(session.answered['mask'])} gave words"
                )
        except Shortfall as error:
            session.lost = str(error)
            return
        session.phase += 1
        session.began_s = self._turn.now()

    def _due(self, session: _Session, now: float) -> bool:
        wait_s = self._secure.phase_deadline_s
        if session.phase:
            return now >= session.began_s + wait_s or session.answered[STEPS[session.phase]] >= session.able(
                session.phase
            )
        late = now >= session.ends_s - (STEPS_OF_A_SESSION - 1) * wait_s
        enough = session.enough_s is not None and now >= session.enough_s + wait_s
        return late or enough or len(session.answered["advertise"]) >= self._rule.selected

    def _of(self, device: str, number: int) -> _Session:
        """The session of round `number`, in which the device has a part."""
        session, open_ = self._session, self._coordinator.round
        if number < open_ or (session is not None and session.round == number and session.lost):
            why = session.lost if session is not None and session.round == number else ""
            why = why or (self._why[1] if self._why[0] == number else "")
            raise Gone(f"round {number} is over" + (f": {why}" if why else ""))
        if session is None or session.round != number:
            raise Conflict(f"round {open_} is open, and no phone has a part in round {number}")
        if device not in session.members:
            raise Conflict(f"device {device} was not selected in round {number}")
        return session

    def _check_on(self) -> None:
        if not self._secure.on:
            raise Conflict("this task's updates are not summed unseen; reports are sent by themselves")


def _give(server: Server, identity: bytes, message: messages.Message) -> None:
    """Let the server of a session have a phone's message. Raises WireError for the advert of another phone."""
    match message:
        case messages.Advert():
            if message.identity != identity:
                raise WireError("an advert must be of the device that sends it")
            server.advertise(message)
        case messages.Shares():
            server.share(identity, message)
        case messages.Masked():
            server.add(identity, message)
        case messages.Confirmation():
            server.confirm(identity, message)
        case messages.Unmasked():
            server.unmask(identity, message)
