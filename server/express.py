"""Check-ins and reports past Flask, which takes longer around them than they do themselves.

What is said is what `kbdfl.server.answers` says, as in the views of `device_api`. Whatever is not an ordinary one of
them goes on to Flask, before anything of its body is read.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from msgspec.json import encode

from kbdfl.errors import KbdflError
from kbdfl.server.answers import BINARY, JSON, Asked, Told, check_in, report
from kbdfl.server.outcomes import outcome_of
from kbdfl.server.problems import CONTENT_TYPE, FAILED, document, reason_of
from kbdfl.server.tasks import Tasks
from kbdfl.server.traffic import CLAIM

log = logging.getLogger(__name__)

TASK = "/v1(?:/tasks/([a-z0-9-]{1,40}))?"
CHECK_IN = re.compile(f"{TASK}/check-in")
REPORT = re.compile(f"{TASK}/rounds/([0-9]{{1,12}})/report")
MOST_OFFER_BYTES = 4_096  # of an ordinary check-in

Wsgi = Callable[[dict, Callable], Iterable[bytes]]


def is_check_in(method: str, path: str) -> bool:
    """Whether a request is answered at once, where nothing that it needs is waited for."""
    return method == "POST" and CHECK_IN.fullmatch(path) is not None


class Express:
    """A WSGI application around `app`, Flask's. `counted` is told of each request as `kbdfl.server.monitoring` is.

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

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] == "POST":
            if (found := CHECK_IN.fullmatch(path)) and _ordinary(environ, JSON, MOST_OFFER_BYTES):
                return self._answer(environ, start_response, "check_in", found[1], JSON, check_in)
            if (found := REPORT.fullmatch(path)) and _ordinary(environ, BINARY, self._most):
                number = int(found[2])
                return self._answer(
                    environ, start_response, "report", found[1], BINARY,
                    lambda served, asked: report(served, asked, number=number),
                )  # fmt: skip
        return self._app(environ, start_response)

    def _answer(
        self,
        environ: dict,
        start_response: Callable,
        view: str,
        named: str | None,
        kind: str,
        answer: Callable[[Tasks, Asked], Told],
    ) -> Iterable[bytes]:
        began = time.perf_counter()
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        asked = Asked(named, environ["PATH_INFO"], _Headers(environ), body, kind, environ.get(CLAIM))
        status, content_type, retry_s, task = 200, JSON, None, named or self._served.first.name
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
        start_response(f"{status} {reason_of(status)}", headers)
        self._counted(
            f"device_api.{view}",
            status,
            outcome,
            time.perf_counter() - began,
            task=task,
            method="POST",
            up_bytes=len(body),
            down_bytes=len(content),
        )
        return [content]


def _ordinary(environ: dict[str, Any], kind: str, most: int) -> bool:
    """Whether a body says how long it is, at most `most` bytes, and is of the media type `kind`, or nothing."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or int(length) > most or "HTTP_TRANSFER_ENCODING" in environ:
        return False
    return environ.get("CONTENT_TYPE") == kind or (length == "0" and kind == JSON)


@cache
def _key(name: str) -> str:
    """What WSGI calls a header; the code names few of them."""
    return "HTTP_" + name.upper().replace("-", "_")


class _Headers(Mapping[str, str]):
    """A request's headers by their own names."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        return self._environ[_key(name)]

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._environ if key.startswith("HTTP_"))

    def __len__(self) -> int:
        return sum(1 for _ in self)
