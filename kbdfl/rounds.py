"""What a closed round leaves behind, and the store that keeps it."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np

from kbdfl.algorithms.aggregate import Gathering, RunningSum, Summing
from kbdfl.algorithms.noised import Noised, NoisedUnseen, Release
from kbdfl.algorithms.scaffold import ServerControl, read_change
from kbdfl.assignment import Assignment
from kbdfl.errors import ConfigError, Conflict, Forbidden, ModelError, WireError
from kbdfl.privacy import Central
from kbdfl.task import Task
from kbdfl.transform import Update
from kbdfl.wire import Report, decode_report

MaybeCentral = Central | None  # of a task with privacy; None of others
LOSS_STEP = 2.0**-20
LARGEST_LOSS = 1e9  # no model that can still be saved loses more; a sum over any cohort stays a number
# Of an `OpenRound`, all whole numbers.
_COUNTERS = ("awaited", "staleness", "examples", "tokens", "loss", "uplink_bytes")


@dataclass(frozen=True, slots=True)
class RoundResult:
    """A closed round. `version` is the model's after it; times are the driver's clock in seconds.

    `dropped` selected phones were not counted; of `refused` ones a report had to be refused. `staleness` is the
    mean over the counted reports of the versions committed since the one they began from; None if rounds are
    synchronous, or there were none. `epsilon` is spent so far; None where no privacy is claimed.
    """

    round: int
    status: str  # committed or abandoned
    version: int
    reports: int
    dropped: int
    examples: int
    tokens: int
    train_loss: float | None
    uplink_bytes: int
    downlink_bytes: int
    started_s: float
    ended_s: float
    refused: int = 0
    staleness: float | None = None
    epsilon: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now; come back later."""

    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Finished:
    """All rounds are over."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A report was counted in `round` (or had been: `duplicate`).

    `closed` is the round's result if this report ended it.
    """

    round: int
    duplicate: bool
    closed: RoundResult | None


@dataclass(frozen=True, slots=True)
class Summed:
    """A report that was read elsewhere, where its update was added to a sum: a frame of `nbytes` without its update."""

    report: Report
    sha256: bytes
    nbytes: int

    @classmethod
    def of(cls, frame: bytes, *, max_bytes: int) -> tuple["Summed", Update]:
        """What stands for a frame, and the update in it. Raises WireError or TooLarge."""
        report = decode_report(frame, max_bytes=max_bytes)
        digest = hashlib.sha256(frame).digest()
        return cls(replace(report, update=Update({})), digest, len(frame)), report.update

    def __len__(self) -> int:
        return self.nbytes


@dataclass(slots=True)
class OpenRound:
    """What is known of the round in flight; it lives in memory only."""

    gathered: Gathering  # the updates, at the round's coordinates
    counted: set[tuple[str, bytes]] = field(default_factory=set)  # (device, sha256) of the counted reports
    awaited: int = 0  # of the counted reports, those whose updates are in no sum yet
    whole: int = 0  # reports that are all there will be; 0 = as many as the cohort
    waiting: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)  # selected phones that sent what cannot be counted
    staleness: int = 0  # of all counted reports together
    examples: int = 0
    tokens: int = 0
    loss: int = 0  # nats, in steps of LOSS_STEP: whole numbers add up exactly, in any order
    uplink_bytes: int = 0
    downlink_bytes: int = 0

    def await_sum(self, staleness: int) -> None:
        """A report's update comes in a sum. Raises Conflict where it must come by itself."""
        if staleness or not isinstance(self.gathered, RunningSum):
            raise Conflict(
                "an update that is stale, or for a robust aggregate, must come by itself, not in a sum"
            )
        self.awaited += 1

    def count(self, fingerprint: tuple[str, bytes], report: Report, *, staleness: int, nbytes: int) -> None:
        """One more report, a frame of `nbytes`."""
        self.counted.add(fingerprint)
        self.staleness += staleness
        self.examples += report.examples
        self.tokens += report.tokens
        self.loss += round(report.train_loss * report.tokens / LOSS_STEP)
        self.uplink_bytes += nbytes

    def state(self) -> dict[str, Any]:
        """A copy of what a crash must not lose, for a running sum."""
        return self.known() | self.sums()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self.know(state)
        self.restore_sums(state)

    def known(self) -> dict[str, Any]:
        """Of `state` what all must know who serve the round together."""
        counted, refused = _flat(self.counted), set(self.refused)
        return {"counted": counted, "refused": refused, "downlink_bytes": self.downlink_bytes}

    def know(self, state: dict[str, Any]) -> None:
        """Take over what `known` gave."""
        self.counted, self.refused = _pairs(*state["counted"]), state["refused"]
        self.downlink_bytes = state["downlink_bytes"]

    @property
    def sum(self) -> Summing:
        """What is gathered, of a task whose reports are added up; of others nobody asks for it."""
        return cast(Summing, self.gathered)

    def sums(self) -> dict[str, Any]:
        """Of `state` what each of those may keep by itself, for it adds up in any order."""
        return {"gathered": self.sum.state()} | {name: getattr(self, name) for name in _COUNTERS}

    def restore_sums(self, sums: dict[str, Any]) -> None:
        """Go on from what `sums` gave."""
        self.sum.restore(sums["gathered"])
        for name in _COUNTERS:
            setattr(self, name, sums[name])

    def add(self, sums: dict[str, Any]) -> None:
        """Count what `sums` gave somewhere else."""
        self.sum.add_state(sums["gathered"])
        for name in _COUNTERS:
            setattr(self, name, getattr(self, name) + sums[name])

    def settle(self) -> None:
        """The round's result is kept."""
        if isinstance(self.gathered, Release):
            self.gathered.settle()

    def result(self, *, asynchronous: bool, **more: Any) -> RoundResult:
        """How it ended; `more` are the fields of `RoundResult` that it does not know itself."""
        reports = len(self.counted)
        return RoundResult(
            reports=reports,
            examples=self.examples,
            tokens=self.tokens,
            train_loss=self.loss * LOSS_STEP / self.tokens if self.tokens else None,
            uplink_bytes=self.uplink_bytes,
            downlink_bytes=self.downlink_bytes,
            refused=len(self.refused),
            staleness=self.staleness / reports if asynchronous and reports else None,
            epsilon=self.gathered.epsilon if isinstance(self.gathered, Release) else None,
            **more,
        )


@contextmanager
def together(
    open_: OpenRound, control: ServerControl | None, elsewhere: Callable[[], Iterable[dict[str, Any]]]
) -> Iterator[None]:
    """In the block a round, and its `control`, hold what others have summed `elsewhere` too.

    If the block fails they are as before: the round will be closed again, when the others may have summed more.
    """
    own: tuple[dict[str, Any], Any] | None = None
    try:
        for sums in elsewhere():
            if own is None:  # whoever is alone copies nothing
                own = open_.sums(), control and (control.change.copy(), control.joined)
            open_.add(sums["open"])
            if control is not None:
                control.merge(*sums["control"])
        if open_.awaited:
            raise RuntimeError(f"of {open_.awaited} reports that were counted, the updates are in no sum")
        yield
    except BaseException:
        if own is not None:
            open_.restore_sums(own[0])
            if control is not None:
                control.change, control.joined = own[1]
        raise


def check_books(task: Task, privacy: MaybeCentral) -> MaybeCentral:
    """`privacy`, if the task needs it and not otherwise. Raises ConfigError where a promise would not be kept."""
    if task.algorithm.privacy.on and privacy is None:
        mechanism = task.algorithm.privacy.mechanism
        raise ConfigError(f"privacy must be none where no ledger of it is kept, got {mechanism}")
    return privacy


def open_round(task: Task, assignment: Assignment, privacy: MaybeCentral) -> tuple[Assignment, OpenRound]:
    """An empty round for `assignment`, and that with the norm that its phones clip to."""
    algorithm, size = task.algorithm, assignment.coordinates.model.spec.size
    if privacy is None:
        return assignment, OpenRound(algorithm.gathering(size))
    if algorithm.privacy.on_devices:
        return assignment, OpenRound(NoisedUnseen(privacy, size=size, round=assignment.round))
    noised = Noised(privacy, algorithm.transforms, size=size, round=assignment.round)
    return replace(assignment, update_clip_norm=privacy.device_clip_norm), OpenRound(noised)


def read_report(frame: bytes, task: Task) -> Report:
    """A report that comes by itself. Raises WireError or TooLarge, Forbidden where updates are summed unseen."""
    if task.algorithm.secure.on:
        raise Forbidden("this task's updates are summed unseen; a report that can be read is refused")
    return decode_report(frame, max_bytes=task.max_report_bytes)


def check_report(
    report: Report, assignment: Assignment, task: Task, *, spec_hash: str, scaffold: bool
) -> None:
    """Raise WireError or ModelError unless what a report holds is what its phone was asked for.

    `spec_hash` names the round's coordinates; `scaffold` says whether a control variate comes along.
    """
    if report.train_loss > LARGEST_LOSS:
        raise WireError(
            f"train_loss must be at most {LARGEST_LOSS:g} nats a token, got {report.train_loss:g}"
        )
    if report.model_sha256 != assignment.model_sha256:
        raise ModelError("the report was trained on another model than the one that was assigned")
    if report.spec_hash != spec_hash:
        raise ModelError(f"the report is laid out as {report.spec_hash}, the round as {spec_hash}")
    if (report.control is None) != (not scaffold):
        raise ModelError("a report must hold a control variate where the task is SCAFFOLD, and nowhere else")
    if report.upload != task.algorithm.upload:
        raise ModelError(f"the task's upload is {task.algorithm.upload}, the report is {report.upload}"[:200])


def control_change(report: Report, assignment: Assignment, task: Task) -> np.ndarray | None:
    """float32 (P,): by how much a phone's control variate has changed; None without SCAFFOLD. Raises WireError."""
    if report.control is None:
        return None
    algorithm, size, draws = task.algorithm, task.config.spec.size, assignment.control_draws
    bound = algorithm.update_clip_norm
    return read_change(algorithm.transforms, report.control, draws, size=size, norm_bound=bound)


def _flat(counted: Collection[tuple[str, bytes]]) -> list[Any]:
    """Two values instead of thousands, which are packed in no time; a device's name is printable, so on one line."""
    pairs = list(counted)
    return ["\n".join(device for device, _ in pairs), b"".join(sha256 for _, sha256 in pairs)]


def _pairs(devices: str, digests: bytes) -> set[tuple[str, bytes]]:
    """The inverse of `_flat`."""
    names = devices.split("\n") if devices else []
    return {(name, digests[32 * at : 32 * at + 32]) for at, name in enumerate(names)}


def metrics_row(
    result: RoundResult,
    recall: Mapping[str, float] = MappingProxyType({}),
    *,
    wall_s: float,
    virtual_s: float | None = None,
) -> dict[str, Any]:
    """A closed round as one line of metrics.jsonl.

    `recall` has recall_top1 and recall_top3 once they are measured; `wall_s` are the run's seconds so far,
    `virtual_s` the simulated ones. A server adds what crossed its socket, heads of requests included, and how many
    devices' bytes they were. `epsilon` is null where no privacy is claimed.
    """
    return {
        "round": result.round,
        "status": result.status,
        "version": result.version,
        "reports": result.reports,
        "dropped": result.dropped,
        "refused": result.refused,
        "staleness": result.staleness,
        "tokens": result.tokens,
        "train_loss": result.train_loss,
        "recall_top1": recall.get("recall_top1"),
        "recall_top3": recall.get("recall_top3"),
        "uplink_bytes": result.uplink_bytes,
        "downlink_bytes": result.downlink_bytes,
        "socket_up_bytes": None,
        "socket_down_bytes": None,
        "socket_devices": None,
        "wall_s": round(wall_s, 3),
        "virtual_s": virtual_s,
        "epsilon": result.epsilon,
    }


@dataclass(frozen=True, slots=True)
class Saved:
    """What a store gives back: the last closed round (-1 if none), the model after it, the server rule's state.

    `counted` are the reports of the last rounds, the newest round first: (device, sha256 of the frame).
    """

    round: int
    version: int
    params: np.ndarray
    server_state: dict[str, np.ndarray]
    counted: tuple[set[tuple[str, bytes]], ...] = ()


class Store(Protocol):
    """Where closed rounds become durable. A round in flight is not: after a crash it is abandoned."""

    def load(self) -> Saved | None:
        """The newest saved state, or None."""
        ...

    def save(
        self,
        result: RoundResult,
        params: np.ndarray,
        server_state: dict[str, np.ndarray],
        *,
        counted: Collection[tuple[str, bytes]] = (),
    ) -> None:
        """Keep a closed round, whose reports were `counted`, and the model after it, all or nothing."""


class MemoryStore:
    """Keeps the last state in memory: for simulations and tests."""

    def __init__(self) -> None:
        self.saved: Saved | None = None

    def load(self) -> Saved | None:
        return self.saved

    def save(
        self,
        result: RoundResult,
        params: np.ndarray,
        server_state: dict[str, np.ndarray],
        *,
        counted: Collection[tuple[str, bytes]] = (),
    ) -> None:
        self.saved = Saved(result.round, result.version, params, server_state)


def check_state(saved: dict[str, np.ndarray], fresh: dict[str, np.ndarray]) -> None:
    """Raise ModelError unless a saved server state has the arrays that the task's server rule begins with."""
    shapes = [{name: array.shape for name, array in state.items()} for state in (saved, fresh)]
    if shapes[0] != shapes[1]:
        raise ModelError(
            f"the server rule keeps {sorted(fresh)}, the store holds {sorted(saved)} of another rule"
        )
