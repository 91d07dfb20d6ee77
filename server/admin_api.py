"""The administrator's API under /v1/admin: each task's state and rounds, enrolment, devices and the audit log.

What is a task's stands twice: /task and /rounds are the first one's, /tasks/NAME and /tasks/NAME/rounds those of any.

Every request carries `Authorization: Bearer TOKEN`. Where no administrator is configured there is no such address.
"""

from typing import Any

from flask import Response, abort, current_app, request

from kbdfl.errors import DataError, Unauthorised
from kbdfl.server import audit_log
from kbdfl.server.addresses import TASK, TaskBlueprint, current, service, tasks
from kbdfl.server.administration import OPEN, PAUSED, STOPPED
from kbdfl.server.credentials import Credentials
from kbdfl.server.device_api import json_object, reply, whole_number
from kbdfl.server.rates import LOGIN
from kbdfl.server.tasks import ServedTask

admin_api = TaskBlueprint("admin_api", __name__, url_prefix="/v1/admin")

BECOME = {"start": OPEN, "pause": PAUSED, "resume": OPEN, "stop": STOPPED}
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
        tasks().administration.rates.check(LOGIN, request.remote_addr or "")
        raise Unauthorised("an administrator's token is needed: Authorization: Bearer TOKEN")


@admin_api.after_request
def unkept(response: Response) -> Response:
    """What is said here is kept by nobody on the way."""
    response.headers["Cache-Control"] = "no-store"
    return response


def _by() -> str:
    return f"api {request.remote_addr}"


@admin_api.get("/tasks", once=True)
def every_task() -> Response:
    """The state of every task."""
    return reply({"tasks": [summary(each) for each in tasks()]})


@admin_api.get("/task", once=True)
@admin_api.get(TASK, once=True)
def task() -> Response:
    """The task's state, the versions that it can go back to, devices and unused tokens."""
    return reply(summary(current()))


def summary(each: ServedTask) -> dict[str, Any]:
    """What the API and the page say about a task."""
    served, registry = each.service, tasks().administration.registry
    return {
        "name": each.name,
        "population": each.population,
        "task": served.task.name,
        "state": served.administration.state,
        "round": served.round,
        "rounds": served.task.rule.rounds,
        "version": served.version,
        "finished": served.finished,
        "privacy": served.privacy,
        "kept_versions": served.kept_versions(),
        "enrolment": registry.enrolment,
        "devices": registry.counts(),
    }


@admin_api.post("/task/<any(start, pause, resume, stop):act>", once=True)
@admin_api.post(TASK + "/<any(start, pause, resume, stop):act>", once=True)
def become(act: str) -> Response:
    """Check-ins of a paused task are told to wait, those of a stopped one that all is over.

    To start and to resume a task is the same: it is open.
    """
    service().become(BECOME[act], by=_by())
    return task()


@admin_api.post("/task/roll-back", once=True)
@admin_api.post(TASK + "/roll-back", once=True)
def roll_back() -> Response:
    """Abandon the round in flight and go on from an earlier version, which gets a new number."""
    version = json_object().get("version")
    if type(version) is not int:
        raise DataError(f"version must be a whole number, got {version!r}"[:100])
    service().roll_back(version, by=_by())
    return task()


@admin_api.post("/tokens", once=True)
def tokens() -> Response:
    """New enrolment tokens, which are shown this once."""
    count = json_object().get("count", 1)
    if type(count) is not int:
        raise DataError(f"count must be a whole number, got {count!r}"[:100])
    return reply({"tokens": tasks().administration.make_tokens(count, by=_by())})


@admin_api.post("/devices/<device>/revoke", once=True)
def revoke(device: str) -> Response:
    """Refuse all that a device sends from now on."""
    tasks().administration.revoke(device, by=_by())
    return reply({"device": device, "revoked": True})


@admin_api.get("/rounds")
def rounds() -> Response:
    """A task's last closed rounds, or those before round `before`, with the reasons for which reports were refused."""
    return reply({"rounds": service().administration.closed_rounds(before=_before(), most=MOST_ROWS)})


@admin_api.get("/audit-log", once=True)
def log() -> Response:
    """The last entries, whichever task they are about, or those before number `before`."""
    records = tasks().administration.records
    return reply({"entries": audit_log.entries(records, before=_before(), most=MOST_ROWS)})


def _before() -> int | None:
    text = request.args.get("before")
    return None if text is None else whole_number("before", text)
