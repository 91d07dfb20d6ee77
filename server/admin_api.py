"""The administrator's API under /v1/admin: a task's state, enrolment, devices, rounds and the audit log.

Every request carries `Authorization: Bearer TOKEN`. Where no administrator is configured there is no such address.
"""

from flask import Blueprint, Response, abort, current_app, request

from kbdfl.errors import DataError, Unauthorised
from kbdfl.server import audit_log
from kbdfl.server.administration import OPEN, PAUSED, STOPPED
from kbdfl.server.credentials import Credentials
from kbdfl.server.device_api import json_object, reply, service, whole_number
from kbdfl.server.rates import LOGIN

admin_api = Blueprint("admin_api", __name__, url_prefix="/v1/admin")

BECOME = {"pause": PAUSED, "resume": OPEN, "stop": STOPPED}
MOST_ROWS = 100


def credentials() -> Credentials:
    """Of the folder that this application serves; 404 without any."""
    known: Credentials = current_app.extensions["kbdfl.credentials"]
    if not known.configured:
        abort(404)
    return known


@admin_api.before_app_request
def nowhere() -> None:
    """Nothing below these addresses is there, whatever the method, until an administrator is configured."""
    if request.path.startswith(("/admin", "/v1/admin")):
        credentials()


@admin_api.before_request
def authorise() -> None:
    """Let nobody by without the token; who guesses is counted."""
    known = credentials()
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not known.token_fits(token.strip()):
        service().administration.rates.check(LOGIN, request.remote_addr or "")
        raise Unauthorised("an administrator's token is needed: Authorization: Bearer TOKEN")


@admin_api.after_request
def unkept(response: Response) -> Response:
    """What is said here is kept by nobody on the way."""
    response.headers["Cache-Control"] = "no-store"
    return response


def _by() -> str:
    return f"api {request.remote_addr}"


@admin_api.get("/task")
def task() -> Response:
    """The task's state, the versions that it can go back to, devices and unused tokens."""
    return reply(summary())


def summary() -> dict:
    """What the API and the page say about the task."""
    served = service()
    return {
        "task": served.task.name,
        "state": served.administration.state,
        "round": served.round,
        "rounds": served.task.rule.rounds,
        "version": served.version,
        "kept_versions": served.kept_versions(),
        "enrolment": served.administration.registry.enrolment,
        "devices": served.administration.registry.counts(),
    }


@admin_api.post("/task/<any(pause, resume, stop):act>")
def become(act: str) -> Response:
    """Check-ins of a paused task are told to wait, those of a stopped one that all is over."""
    service().become(BECOME[act], by=_by())
    return task()


@admin_api.post("/task/roll-back")
def roll_back() -> Response:
    """Abandon the round in flight and go on from an earlier version, which gets a new number."""
    version = json_object().get("version")
    if type(version) is not int:
        raise DataError(f"version must be a whole number, got {version!r}"[:100])
    service().roll_back(version, by=_by())
    return task()


@admin_api.post("/tokens")
def tokens() -> Response:
    """New enrolment tokens, which are shown this once."""
    count = json_object().get("count", 1)
    if type(count) is not int:
        raise DataError(f"count must be a whole number, got {count!r}"[:100])
    return reply({"tokens": service().administration.make_tokens(count, by=_by())})


@admin_api.post("/devices/<device>/revoke")
def revoke(device: str) -> Response:
    """Refuse all that a device sends from now on."""
    service().administration.revoke(device, by=_by())
    return reply({"device": device, "revoked": True})


@admin_api.get("/rounds")
def rounds() -> Response:
    """The last closed rounds, or those before round `before`, with the reasons for which reports were refused."""
    records = service().administration.records
    return reply({"rounds": audit_log.closed_rounds(records, before=_before(), most=MOST_ROWS)})


@admin_api.get("/audit-log")
def log() -> Response:
    """The last entries, or those before number `before`."""
    records = service().administration.records
    return reply({"entries": audit_log.entries(records, before=_before(), most=MOST_ROWS)})


def _before() -> int | None:
    text = request.args.get("before")
    return None if text is None else whole_number("before", text)
