"""The administrator's pages: what /v1/admin does, behind a password, in forms that work without a script.

A server of one task has one page. With several, /admin has what is the server's and the list of the tasks, each of
which has a page at /admin/tasks/NAME.

Every form carries a token that only a page of the same session can know. An act ends in a redirection, so that loading
a page again repeats nothing; only new enrolment tokens are shown at once, because they are shown once.
"""

import math
from datetime import UTC, datetime
from typing import Any

from flask import Response, current_app, make_response, redirect, render_template, request, url_for

from kbdfl.errors import ConfigError, DataError, Forbidden, KbdflError
from kbdfl.server import audit_log
from kbdfl.server.addresses import TASK, TaskBlueprint, current, named, service, tasks
from kbdfl.server.admin_api import BECOME, credentials, summary
from kbdfl.server.administration import PAUSED
from kbdfl.server.rates import LOGIN
from kbdfl.server.sessions import LIFETIME_S, Sessions, new_id

admin_pages = TaskBlueprint("admin_pages", __name__, url_prefix="/admin")

SESSION, VISITOR = (
    "kbdfl_admin",
    "kbdfl_visitor",
)  # a link from elsewhere shows neither, and must not end a session
POLICY = "form-action 'self'"
SHOWN_ROUNDS, SHOWN_ENTRIES = 20, 30


def _sessions() -> Sessions:
    sessions: Sessions = current_app.extensions["kbdfl.sessions"]
    return sessions


def _session() -> str:
    return request.cookies.get(SESSION, "")


def _visitor() -> str:
    return request.cookies.get(VISITOR, "")


def _logged_in() -> bool:
    return _sessions().has(_session(), credentials().mark)


@admin_pages.before_request
def same_site() -> None:
    """A form must come from a page of this very session, or of this very visitor if it is the one to log in."""
    if request.method != "POST":
        return
    visiting = request.endpoint == "admin_pages.log_in"
    name = _visitor() if visiting else _session()
    if not _sessions().form_fits(name, request.form.get("form_token", "")):
        raise Forbidden("the form is not of this session; load the page again")
    if not visiting and not _logged_in():
        raise Forbidden("nobody is logged in any more; load the page again")


@admin_pages.errorhandler(KbdflError)
def refused(error: KbdflError) -> Response:
    """The page again, with what was wrong."""
    response = _page(error=str(error), status=error.status)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return response


@admin_pages.get("")
def page() -> Response:
    """The page of the server or of a task, or the form to log in."""
    return _page()


@admin_pages.post("/log-in")
def log_in() -> Response:
    """By the password, or the token of the API."""
    tasks().administration.rates.check(LOGIN, request.remote_addr or "")
    if not credentials().password_fits(request.form.get("password", "")):
        raise Forbidden("that is not the password")
    tasks().administration.note(_by(), "logged in")
    return _with_cookie(_back(), SESSION, _sessions().begin(credentials().mark))


@admin_pages.post("/log-out", once=True)
def log_out() -> Response:
    """End the session."""
    _sessions().end(_session())
    response = _back()
    response.delete_cookie(SESSION, path="/admin")
    return response


@admin_pages.post("/task/<any(start, pause, resume, stop):act>", once=True)
@admin_pages.post(TASK + "/<any(start, pause, resume, stop):act>", once=True)
def become(act: str) -> Response:
    """See the API."""
    service().become(BECOME[act], by=_by())
    return _back()


@admin_pages.post("/task/roll-back", once=True)
@admin_pages.post(TASK + "/roll-back", once=True)
def roll_back() -> Response:
    """See the API."""
    service().roll_back(_number("version"), by=_by())
    return _back()


@admin_pages.post("/tokens", once=True)
def tokens() -> Response:
    """New tokens, on the page that answers and on no other."""
    made = tasks().administration.make_tokens(_number("count"), by=_by())
    return _page(tokens=made)


@admin_pages.post("/revoke", once=True)
def revoke() -> Response:
    """See the API."""
    device = request.form.get("device", "").strip()
    if not device:
        raise DataError("a device's id is needed, as the list of the round's traffic names it")
    tasks().administration.revoke(device, by=_by())
    return _back()


def _number(name: str) -> int:
    text = request.form.get(name, "").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ConfigError(f"{name} must be a whole number, got {text[:20]!r}")
    return int(text)


def _by() -> str:
    return f"page {request.remote_addr}"


def _back() -> Response:
    return make_response(redirect(url_for("admin_pages.page"), 303))


def _page(*, error: str = "", tokens: list[str] | None = None, status: int = 200) -> Response:
    """The page of an administrator, or of a visitor, who gets a name so that the form can have its token."""
    if _logged_in():
        text = render_template(
            "admin.html",
            form_token=_sessions().form_token(_session()),
            error=error,
            tokens=tokens or [],
            **_shown(),
        )
        return _private(make_response(text, status))
    name = _visitor() or new_id()
    text = render_template("log_in.html", form_token=_sessions().form_token(name), error=error)
    return _with_cookie(_private(make_response(text, status)), VISITOR, name)


def _shown() -> dict[str, Any]:
    """What is shown of the task that the address names, or of the server, or of both if it has one task."""
    served = tasks()
    shown: dict[str, Any] = {}
    of_task = served.known(named())
    if of_task or len(served) == 1:
        task = current() if of_task else served.first
        closed = task.service.administration.closed_rounds(most=SHOWN_ROUNDS)
        shown |= {"now": summary(task), "rounds": [_round(entry) for entry in closed]}
        shown |= {"begun": task.service.administration.touched or task.state != PAUSED}
    if not of_task:
        entries = audit_log.acts(
            served.administration.records, most=SHOWN_ENTRIES
        )  # a task's rounds have a table
        shown |= {"entries": [_told(entry) for entry in entries], "folder": served.folder}
        shown |= {"devices": served.administration.registry.counts()}
        shown |= {"enrolment": served.administration.registry.enrolment}
    return shown | {"tasks": list(served) if len(served) > 1 else []}


def _round(entry: dict[str, Any]) -> dict[str, Any]:
    """A closed round as the table shows it."""
    return entry | {"outcome": entry["what"].removeprefix("round "), "reasons": _listed(entry["reasons"])}


def _told(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the audit log with its time in UTC, and all but its first fields in one."""
    at = datetime.fromtimestamp(entry["at_s"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    more = {name: value for name, value in entry.items() if name not in ("number", "at_s", "by", "what")}
    reasons = _listed(more.pop("reasons", {}))
    told = ", ".join(f"{name} {value}" for name, value in sorted(more.items()))
    return entry | {"at": at, "more": f"{told} ({reasons})" if reasons else told}


def _listed(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def _private(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Content-Security-Policy"] = POLICY
    return response


def _with_cookie(response: Response, cookie: str, value: str) -> Response:
    response.set_cookie(
        cookie,
        value,
        max_age=int(LIFETIME_S),
        path="/admin",
        httponly=True,
        samesite="Strict",
        secure=current_app.config["ADMIN_COOKIE_SECURE"],
    )
    return response
