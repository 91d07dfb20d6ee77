"""What the OpenAPI document says of an endpoint beside its route and its docstring: who may ask, with what body,
and what comes back.

The keys are names of functions of the blueprints. Addresses, methods and texts are read from these; a test fails when
one of them is not here.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from kbdfl.server import admin_messages as a
from kbdfl.server import messages as m

JSON, OCTETS, HTML = "application/json", "application/octet-stream", "text/html"
FORM = "application/x-www-form-urlencoded"
TOML, PROMETHEUS = "application/toml", "text/plain"
ANYONE, DEVICE, ADMINISTRATOR, PAGE = "anyone", "device", "administrator", "page"

# What may be refused whatever is asked for, by who asks.
REFUSED = {
    ANYONE: (),
    DEVICE: (401, 403, 409, 503),
    ADMINISTRATOR: (401, 404, 429, 503),
    PAGE: (403, 404, 429, 503),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """An endpoint: `answers` are schemas by content type, one of several for JSON; `refused` are further statuses.

    `by` is who may ask, `fetched` whether the answer has an entity tag, `ranges` whether it can be had in parts, and
    `status` that of success. A body is needed unless it is `optional`.
    """

    answers: dict[str, tuple[type, ...]] = field(default_factory=dict)
    by: str = ANYONE
    body: type | None = None
    takes: str = JSON
    optional: bool = False
    query: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    refused: tuple[int, ...] = ()
    fetched: bool = False
    ranges: bool = False
    retry_after: bool = False  # whether success may say when to come back
    not_yet: bool = False  # whether there may be nothing yet, and it says when to come back

    @property
    def statuses(self) -> list[int]:
        """Of all problem documents that it may answer with."""
        of_body = (400, 413) if self.takes == FORM else (400, 413, 415)
        refused = {*REFUSED[self.by], *self.refused, *(of_body if self.takes_body else ())}
        return sorted(refused | ({416} if self.ranges else set()))

    @property
    def takes_body(self) -> bool:
        return self.body is not None or self.takes != JSON


def _json(*kinds: type, **more: Any) -> Operation:
    return Operation({JSON: kinds}, **more)


def _download(**more: Any) -> Operation:
    return Operation({OCTETS: ()}, by=DEVICE, fetched=True, ranges=True, refused=(404, 410), **more)


def _form(form: type, **more: Any) -> Operation:
    return Operation(by=PAGE, body=form, takes=FORM, status=303, **more)


SINCE = {
    "since": Annotated[int, Meta(ge=0, lt=10**15, description="A revision: `next` of an earlier answer.")]
}
BEFORE = {"before": Annotated[int, Meta(ge=0, lt=10**15, description="Only what came before this number.")]}

OPERATIONS: dict[str, Operation] = {
    "device_api.enrol": _json(m.Enrolled, body=m.Enrolment, refused=(403, 429, 503)),
    "device_api.check_in": _json(
        m.Assigned,
        m.Waiting,
        m.Over,
        by=DEVICE,
        body=m.Hardware,
        optional=True,
        refused=(404, 429),
        retry_after=True,
    ),
    "device_api.model": _download(),
    "device_api.control": _download(),
    "device_api.part": _download(),
    "device_api.report": _json(m.Receipt, by=DEVICE, takes=OCTETS),
    "secure_api.ask": Operation({OCTETS: ()}, by=DEVICE, refused=(404, 410), not_yet=True),
    "secure_api.take": Operation({}, by=DEVICE, takes=OCTETS, status=204, refused=(404, 410)),
    "run_api.served": _json(m.EveryTask),
    "run_api.status": _json(m.Status),
    "run_api.metrics": _json(m.Metrics, query=SINCE, refused=(400,)),
    "run_api.traffic": _json(m.RoundTraffic, refused=(404,)),
    "run_api.config": Operation({TOML: ()}, refused=(404,)),
    "run_api.checkpoint": Operation({OCTETS: ()}, refused=(404,)),
    "run_api.newest_model": _json(m.NewestModel, refused=(404,)),
    "run_api.bundle_file": Operation({OCTETS: (), JSON: ()}, fetched=True, refused=(404,)),
    "run_api.predict": _json(m.Suggestions, body=m.Typed, refused=(404,)),
    "monitoring.healthz": _json(m.Alive),
    "monitoring.readyz": _json(m.Ready, refused=(503,)),
    "monitoring.metrics": Operation({PROMETHEUS: ()}),
    "openapi.described": Operation({JSON: ()}, fetched=True),
    "admin_api.every_task": _json(a.TaskStates, by=ADMINISTRATOR),
    "admin_api.task": _json(a.TaskState, by=ADMINISTRATOR),
    "admin_api.become": _json(a.TaskState, by=ADMINISTRATOR, refused=(409,)),
    "admin_api.roll_back": _json(a.TaskState, by=ADMINISTRATOR, body=a.Version, refused=(409,)),
    "admin_api.tokens": _json(a.Tokens, by=ADMINISTRATOR, body=a.Count),
    "admin_api.revoke": _json(a.Revoked, by=ADMINISTRATOR),
    "admin_api.rounds": _json(a.ClosedRounds, by=ADMINISTRATOR, query=BEFORE, refused=(400,)),
    "admin_api.log": _json(a.Entries, by=ADMINISTRATOR, query=BEFORE, refused=(400,)),
    "admin_pages.page": Operation({HTML: ()}, by=PAGE),
    "admin_pages.log_in": _form(a.LoginForm),
    "admin_pages.log_out": _form(a.Form),
    "admin_pages.become": _form(a.Form, refused=(409,)),
    "admin_pages.roll_back": _form(a.VersionForm, refused=(409,)),
    "admin_pages.tokens": Operation({HTML: ()}, by=PAGE, body=a.CountForm, takes=FORM),
    "admin_pages.revoke": _form(a.DeviceForm),
}
