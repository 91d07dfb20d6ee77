"""What goes over HTTP as JSON or in a form, as types: the schemas of the OpenAPI document are made of these.

No answer is built from them and no request is read by them; a test holds the real ones against the document.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from kbdfl.assignment import Assignment
from kbdfl.server.answers import TIER_CHARACTERS
from kbdfl.server.run_api import MAX_SUGGESTIONS, MAX_TEXT, SLOTS
from kbdfl.server.tasks import NAME

Whole = Annotated[int, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Device = Annotated[str, Meta(pattern="^[0-9a-f]{16}$", description="A device's id.")]
Token = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="A single-use enrolment token.")]
Seconds = Annotated[float, Meta(ge=0)]
Name = Annotated[str, Meta(pattern=f"^{NAME.pattern}$", description="Of a task or a population.")]


@dataclass(frozen=True, slots=True)
class Problem:
    """An RFC 9457 problem document: what must hold, and what came, in one line."""

    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: Annotated[str, Meta(min_length=1)]


# devices


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A device's Ed25519 key, 32 bytes in base64, and a token where one is needed."""

    public_key: Annotated[str, Meta(pattern="^[A-Za-z0-9+/]{43}=$")]
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The id by which the device is known from now on."""

    device: Device


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a device may say of itself: its kind of hardware, and the population that it belongs to."""

    tier: Annotated[str, Meta(max_length=TIER_CHARACTERS)] = ""
    population: Name | None = None


@dataclass(frozen=True, slots=True)
class Assigned(Assignment):
    """A part in a round. `deadline_s` is in seconds from now.

    One that named its population is told where the addresses of the task begin: `base`.
    """

    status: Literal["assigned"]
    base: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """There is no part now; come back in a while."""

    status: Literal["wait"]
    retry_after_s: Seconds


@dataclass(frozen=True, slots=True)
class Over:
    """All rounds are over."""

    status: Literal["finished"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """A report is counted, durably; `duplicate` if it had been before."""

    accepted: bool
    duplicate: bool


# the run


@dataclass(frozen=True, slots=True)
class OneTask:
    """A task of this server, for the phones of one population; its addresses begin with `base`."""

    name: Name
    population: Name
    base: str
    state: Literal["open", "paused", "stopped", "finished"]
    round: Whole
    rounds: Whole
    version: Whole


@dataclass(frozen=True, slots=True)
class EveryTask:
    """The first is the one that answers where none is named."""

    tasks: list[OneTask]


@dataclass(frozen=True, slots=True)
class Graph:
    """A file's size and its sha256, in hex."""

    bytes: Whole
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Bundle:
    """The newest exported model."""

    rounds: Whole | None
    version: Whole | None
    precision: str
    files: dict[str, Graph]
    precisions: dict[str, Graph]


@dataclass(frozen=True, slots=True)
class Phones:
    """How many are in each state, and how many have enrolled."""

    training: Whole
    reported: Whole
    waiting: Whole
    dropped: Whole
    enrolled: Whole


@dataclass(frozen=True, slots=True)
class Model:
    """The model's shape, and the hashes of its layout and its words."""

    vocabulary: Whole
    embedding: Whole
    cells: Whole
    parameters: Whole
    spec: str
    vocabulary_sha256: Sha256


@dataclass(frozen=True, slots=True)
class Rule:
    """How rounds go; `concurrency` is that of an asynchronous task."""

    cohort: Whole
    over_selection: float
    min_reports: Whole
    deadline_s: Seconds
    concurrency: Whole | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all closed rounds."""

    committed: Whole
    abandoned: Whole
    reports: Whole
    dropped: Whole
    refused: Whole
    uplink_bytes: Whole
    downlink_bytes: Whole
    socket_up_bytes: Whole | None
    socket_down_bytes: Whole | None


@dataclass(frozen=True, slots=True)
class Privacy:
    """What a task with privacy has spent, by its ledger; it is finished once its budget is `spent`.

    Where there is too little noise to claim anything epsilon is null, and so is a budget that was not set.
    """

    epsilon: float | None
    budget_epsilon: float | None
    delta: float
    rho: float
    releases: Whole
    spent: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Secure:
    """A task whose updates are summed unseen: no sum is of fewer phones, and `noised` says whether they add noise.

    Where they do, the sentence is that of the privacy, and null here.
    """

    fewest: Whole
    noised: bool
    sentence: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the task."""

    task: str
    phase: Literal["open", "finished"]
    state: Literal["open", "paused", "stopped"]
    round: Whole
    rounds: Whole
    version: Whole
    settled: bool
    uptime_s: Seconds
    phones: Phones
    model: Model
    rule: Rule
    secure: Secure | None
    privacy: Privacy | None
    totals: Totals
    bundle: Bundle | None
    failures: dict[str, str]


@dataclass(frozen=True, slots=True)
class Round:
    """A closed round, as a line of metrics.jsonl; null is what is not known, or not yet."""

    round: Whole
    status: Literal["committed", "abandoned"]
    version: Whole
    reports: Whole
    dropped: Whole
    refused: Whole
    staleness: float | None
    tokens: Whole
    train_loss: float | None
    recall_top1: float | None
    recall_top3: float | None
    uplink_bytes: Whole
    downlink_bytes: Whole
    socket_up_bytes: Whole | None
    socket_down_bytes: Whole | None
    socket_devices: Whole | None
    wall_s: float
    virtual_s: float | None
    epsilon: float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """Rounds, and the `since` of the following request."""

    rounds: list[Round]
    next: Whole


@dataclass(frozen=True, slots=True)
class Crossed:
    """Bytes of one device at the socket; null is everybody not enrolled."""

    device: Device | None
    up_bytes: Whole
    down_bytes: Whole


@dataclass(frozen=True, slots=True)
class RoundTraffic:
    """What crossed the socket while a round was open."""

    round: Whole
    devices: list[Crossed]


@dataclass(frozen=True, slots=True)
class NewestModel:
    """The newest bundle, and the addresses of what a page runs it with, if that is served."""

    version: Whole | None
    rounds: Whole | None
    precisions: dict[str, Graph]
    runtime: str | None
    distance: str | None


@dataclass(frozen=True, slots=True)
class Typed:
    """What was typed so far, and how many suggestions are wanted."""

    text: Annotated[str, Meta(max_length=MAX_TEXT)]
    count: Annotated[int, Meta(ge=1, le=MAX_SUGGESTIONS)] = SLOTS


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A word and its probability."""

    word: str
    probability: Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Suggestions:
    """The likeliest first, by a bundle of so many rounds."""

    suggestions: list[Suggestion]
    rounds: Whole | None
    version: Whole | None


# monitoring


@dataclass(frozen=True, slots=True)
class Alive:
    """The process answers."""

    ok: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """Reports can be made durable."""

    ready: bool
