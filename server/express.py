"""Check-ins and reports past Flask, which takes longer around them than they do themselves.

What is said is what `kbdfl.server.answers` says, as in the views of `device_api`. Whatever is not an ordinary one of
them goes on to Flask, before anything of its body is read. Check-ins wait for nothing, so they may also be answered
past waitress (`plain`).
"""

import logging
import math
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from msgspec.json import encode

from kbdfl.errors import KbdflError
from kbdfl.server.answers import BINARY, JSON, Asked, Headers, Told, check_in, report
from kbdfl.server.outcomes import outcome_of
from kbdfl.server.plain import Plain, Reply, status_line
from kbdfl.server.problems import CONTENT_TYPE, FAILED, document
from kbdfl.server.tasks import Tasks
from kbdfl.server.traffic import CLAIM

log = logging.getLogger(__name__)

TASK = "/v1(?:/tasks/([a-z0-9-]{1,40}))?"
CHECK_IN = re.compile(f"{TASK}/check-in")
REPORT = re.compile(f"{TASK}/rounds/([0-9]{{1,12}})/report")
MOST_OFFER_BYTES = 4_096  # of an ordinary check-in

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Express:
    """A WSGI application around `app`, Flask's, which is a `kbdfl.server.plain.Quick` too.

    `counted` is told of each request as `kbdfl.server.monitoring` is.

    Longer reports than `most_report_bytes` are Flask's to refuse.
    """

    def __init__(
        self,
        app: Wsgi,
        served: Tasks,
        *,
        most_report_bytes: int,
        headers: Iterable[tuple[str, str]],
        counted: Callable[..., None],
    ) -> None:
        self._app, self._served, self._most = app, served, most_report_bytes
        self._headers, self._counted = list(headers), counted

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path, reply = environ["PATH_INFO"], None
        if environ["REQUEST_METHOD"] == "POST":
            if (found := CHECK_IN.fullmatch(path)) and _ordinary(environ, JSON, MOST_OFFER_BYTES):
                reply = self._reply("check_in", _asked(environ, found[1], JSON), check_in)
            elif (found := REPORT.fullmatch(path)) and _ordinary(environ, BINARY, self._most):
                number = int(found[2])
                reply = self._reply(
                    "report",
                    _asked(environ, found[1], BINARY),
                    lambda served, asked: report(served, asked, number=number),
                )
        if reply is None:
            return self._app(environ, start_response)
        start_response(status_line(reply.status), list(reply.headers))
        return [reply.content]

    def takes(self, request: Plain) -> bool:
        """Whether it is an ordinary check-in."""
        return (
            request.method == "POST"
            and CHECK_IN.fullmatch(request.path) is not None
            and _fits(request.headers.get("Content-Type"), request.length, kind=JSON, most=MOST_OFFER_BYTES)
        )

    def answer(self, request: Plain, claim: Callable[[str], None]) -> Reply:
        """What a check-in is told."""
        found = CHECK_IN.fullmatch(request.path)
        named = found[1] if found else None
        return self._reply(
            "check_in", Asked(named, request.path, request.headers, request.body, JSON, claim), check_in
        )

    def _reply(self, view: str, asked: Asked, answer: Callable[[Tasks, Asked], Told]) -> Reply:
        began = time.perf_counter()
        status, content_type, retry_s = 200, JSON, None
        task = asked.name or self._served.first.name
        try:
            told = answer(self._served, asked)
            content, outcome = encode(told.document), told.outcome
            retry_s, task = told.retry_after_s, told.task.name
        except KbdflError as error:
            status, content_type, retry_s = error.status, CONTENT_TYPE, error.retry_after_s
            content, outcome = document(status, str(error)), outcome_of(error)
        except Exception:
            log.exception("Exception on device_api.%s [POST]", view)  # as Flask would
            status, content_type, content, outcome = 500, CONTENT_TYPE, document(500, FAILED), "http_500"
        headers = [("Content-Type", content_type), ("Content-Length", str(len(content))), *self._headers]
        if retry_s is not None:
            headers.append(("Retry-After", str(math.ceil(retry_s))))
        self._counted(
            f"device_api.{view}",
            status,
            outcome,
            time.perf_counter() - began,
            task=task,
            method="POST",
            up_bytes=len(asked.body),
            down_bytes=len(content),
        )
        return Reply(status, headers, content)


def _asked(environ: dict[str, Any], named: str | None, kind: str) -> Asked:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return Asked(named, environ["PATH_INFO"], Headers(environ), body, kind, environ.get(CLAIM))


def _ordinary(environ: dict[str, Any], kind: str, most: int) -> bool:
    """Whether a body says how long it is, and `_fits`."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or "HTTP_TRANSFER_ENCODING" in environ:
        return False
    return _fits(environ.get("CONTENT_TYPE"), int(length), kind=kind, most=most)


def _fits(given: str | None, length: int, *, kind: str, most: int) -> bool:
    """Whether a body has at most `most` bytes, and is of the media type `kind`, or nothing where that is JSON."""
    return length <= most and (given == kind or (not length and kind == JSON))
