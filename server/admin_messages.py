"""The messages of administration, as `kbdfl.server.messages` has the others: the API's, and the forms of the page."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from kbdfl.server.messages import Device, Name, Privacy, Token, Whole
from kbdfl.server.registry import MOST_TOKENS


@dataclass(frozen=True, slots=True)
class Devices:
    """Devices enrolled and revoked, tokens made and not used."""

    enrolled: Whole
    revoked: Whole
    unused_tokens: Whole


@dataclass(frozen=True, slots=True)
class TaskState:
    """The task's state, and the versions that it can go back to."""

    name: Name
    population: Name
    task: str
    state: Literal["open", "paused", "stopped"]
    round: Whole
    rounds: Whole
    version: Whole
    finished: bool
    privacy: Privacy | None
    kept_versions: list[Whole]
    enrolment: Literal["open", "token"]
    devices: Devices


@dataclass(frozen=True, slots=True)
class TaskStates:
    """Of all tasks."""

    tasks: list[TaskState]


@dataclass(frozen=True, slots=True)
class Version:
    """One of the kept versions."""

    version: int


@dataclass(frozen=True, slots=True)
class Count:
    """How many tokens are wanted."""

    count: Annotated[int, Meta(ge=1, le=MOST_TOKENS)] = 1


@dataclass(frozen=True, slots=True)
class Tokens:
    """New tokens, which are shown this once."""

    tokens: list[Token]


@dataclass(frozen=True, slots=True)
class Revoked:
    """A device all of whose requests are refused."""

    device: Device
    revoked: bool


@dataclass(frozen=True, slots=True)
class ClosedRound:
    """A round's entry in the audit log, with the reasons for which reports were refused."""

    number: Whole
    at_s: float
    by: str
    what: Literal["round committed", "round abandoned"]
    round: Whole
    version: Whole
    reports: Whole
    dropped: Whole
    refused: Whole
    reasons: dict[str, Whole]
    task: Name | None = None


@dataclass(frozen=True, slots=True)
class ClosedRounds:
    """The newest first."""

    rounds: list[ClosedRound]


@dataclass(frozen=True, slots=True)
class Entries:
    """Of the audit log, the newest first: `number`, `at_s` (since 1970), `by`, `what`, and what belongs to that."""

    entries: list[dict[str, Any]]


# forms


@dataclass(frozen=True, slots=True)
class Form:
    """A form of the page, which holds the token of the session that it was made for."""

    form_token: str


@dataclass(frozen=True, slots=True)
class LoginForm(Form):
    """The password, or the API's token."""

    password: str = ""


@dataclass(frozen=True, slots=True)
class VersionForm(Form):
    """A version to go back to."""

    version: str = ""


@dataclass(frozen=True, slots=True)
class CountForm(Form):
    """How many tokens are wanted."""

    count: str = ""


@dataclass(frozen=True, slots=True)
class DeviceForm(Form):
    """A device to revoke."""

    device: str = ""
