"""Check-ins past Flask. Phones check in far more often than they do anything else, and most are told to wait.

What is said is `kbdfl.server.offers.check_in`'s, as in the view of `device_api`; Flask around it takes longer than it
does. Whatever is not an ordinary check-in goes on to Flask, before anything of its body is read.
"""

import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from kbdfl.errors import KbdflError
from kbdfl.server import offers
from kbdfl.server.outcomes import outcome_of
from kbdfl.server.problems import CONTENT_TYPE, FAILED, document, reason_of
from kbdfl.server.tasks import Tasks
from kbdfl.server.traffic import CLAIM

log = logging.getLogger(__name__)

PATH = re.compile("/v1(?:/tasks/([a-z0-9-]{1,40}))?/check-in")
MOST_BODY_BYTES = 4_096  # of an ordinary one
ENDPOINT = "device_api.check_in"

Wsgi = Callable[[dict, Callable], Iterable[bytes]]


def is_check_in(method: str, path: str) -> bool:
    """Whether a request is answered at once, where nothing that it needs is waited for."""
    return method == "POST" and PATH.fullmatch(path) is not None


class Express:
    """A WSGI application around `app`, Flask's. `counted` is told of each request as `kbdfl.server.monitoring` is."""

    def __init__(
        self, app: Wsgi, served: Tasks, *, headers: Iterable[tuple[str, str]], counted: Callable[..., None]
    ) -> None:
        self._app, self._served = app, served
        self._headers, self._counted = list(headers), counted

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        size = _ordinary(environ)
        found = None if size is None else PATH.fullmatch(environ["PATH_INFO"])
        if found is None:
            return self._app(environ, start_response)
        began = time.perf_counter()
        body = environ["wsgi.input"].read(size)
        named: str | None = found[1]
        status, kind, content, outcome, retry_s = 200, offers.JSON, b"", "", None
        task = named or self._served.first.name
        try:
            told = offers.check_in(
                self._served,
                named,
                path=environ["PATH_INFO"],
                headers=_Headers(environ),
                body=body,
                kind=offers.JSON,
                claim=environ.get(CLAIM),
            )
            content, outcome = json.dumps(told.document).encode(), told.outcome
            retry_s, task = told.retry_after_s, told.task.name
        except KbdflError as error:
            status, kind, retry_s = error.status, CONTENT_TYPE, error.retry_after_s
            content, outcome = document(status, str(error)), outcome_of(error)
        except Exception:
            log.exception("Exception on %s [POST]", ENDPOINT)  # as Flask would
            status, kind, content, outcome = 500, CONTENT_TYPE, document(500, FAILED), "http_500"
        headers = [("Content-Type", kind), ("Content-Length", str(len(content))), *self._headers]
        if retry_s is not None:
            headers.append(("Retry-After", str(math.ceil(retry_s))))
        start_response(f"{status} {reason_of(status)}", headers)
        self._counted(
            ENDPOINT,
            status,
            outcome,
            time.perf_counter() - began,
            task=task,
            method="POST",
            up_bytes=len(body),
            down_bytes=len(content),
        )
        return [content]


def _ordinary(environ: dict[str, Any]) -> int | None:
    """The length of the body of a POST of JSON, or of nothing, that says how long it is; None for all else."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if environ["REQUEST_METHOD"] != "POST" or not length.isdecimal() or int(length) > MOST_BODY_BYTES:
        return None
    kind = environ.get("CONTENT_TYPE", "")
    if "HTTP_TRANSFER_ENCODING" in environ or (length != "0" and kind != offers.JSON):
        return None
    return int(length)


class _Headers(Mapping[str, str]):
    """A request's headers by their own names."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        return self._environ["HTTP_" + name.upper().replace("-", "_")]

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._environ if key.startswith("HTTP_"))

    def __len__(self) -> int:
        return sum(1 for _ in self)
