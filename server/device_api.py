"""The device API under /v1: enrol, check in, fetch the model, report.

Check-in, model and report are signed with the device's Ed25519 key over method, path, body, time and nonce.
A phone may send again what it has signed: within the accepted 300 seconds a repeated check-in gets the assignment that
the phone has, if it has one, and a repeated report the answer that it got, and is counted once. `server/gate.py` says
what becomes of a request that a former process may have seen.
"""

import base64
import binascii
import json
import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Response, request
from werkzeug.exceptions import Gone

from kbdfl.errors import ConfigError, DataError, NotFound
from kbdfl.server import answers
from kbdfl.server.addresses import TaskBlueprint, answered_by, current, named, service, tasks
from kbdfl.server.answers import JSON, Asked, Headers, Told, parse_object
from kbdfl.server.bodies import ModelBody
from kbdfl.server.gate import Caller
from kbdfl.server.outcomes import note
from kbdfl.server.rates import ENROL
from kbdfl.server.traffic import CLAIM

device_api = TaskBlueprint("device_api", __name__, url_prefix="/v1")

PUBLIC_KEY_BYTES = 32


def json_object() -> dict[str, Any]:
    """The request's body, which must be a JSON object."""
    return parse_object(request.get_data(cache=False), request.mimetype)


def whole_number(name: str, text: str) -> int:
    """A number of a query. Raises ConfigError for any other text."""
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise ConfigError(f"{name} must be a whole number >= 0, got {text[:20]!r}")
    return int(text)


def reply(value: dict[str, Any]) -> Response:
    """A JSON answer."""
    return Response(json.dumps(value), content_type=JSON)


def signed(body: bytes) -> Caller:
    """The enrolled device that signed this request; raises what `answers.signed` raises."""
    return answers.signed(current(), _asked(body))


@device_api.post("/enrol")
def enrol() -> Response:
    """A phone shows its public key, and its token where one is needed, and learns its id."""
    administration = tasks().administration
    administration.rates.check(ENROL, request.remote_addr or "")
    body = json_object()
    encoded, token = body.get("public_key"), body.get("token")
    if not isinstance(token, str | None):
        raise DataError("token must be a string")
    if not isinstance(encoded, str):
        raise DataError("public_key must be a base64 string")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise DataError("public_key is not base64") from None
    if len(key) != PUBLIC_KEY_BYTES:
        raise DataError(f"public_key must be {PUBLIC_KEY_BYTES} bytes of Ed25519, got {len(key)}")
    return reply({"device": administration.registry.enrol(key, service().wall_clock(), token=token)})


@device_api.post("/check-in")
def check_in() -> Response:
    """An assignment, a time to come back, or that all rounds are over. A phone may state its hardware's tier.

    One that names its population gets a part in any task for that, and is told where the task's addresses begin.
    """
    told = answers.check_in(tasks(), _asked(request.get_data(cache=False)))
    if named() is None:
        answered_by(told.task)
    return _told(told)


def _asked(body: bytes) -> Asked:
    return Asked(
        named(),
        request.path,
        Headers(request.environ),
        body,
        request.mimetype,
        request.environ.get(CLAIM),
        request.method,
    )


def _told(told: Told) -> Response:
    note(told.outcome)
    response = reply(told.document)
    if told.retry_after_s is not None:
        response.headers["Retry-After"] = str(math.ceil(told.retry_after_s))
    return response


@device_api.get("/models/<int:version>", defaults={"held": None})
@device_api.get("/models/<int:version>/from/<int:held>")
def model(version: int, held: int | None) -> Response:
    """The frame that brings a phone which holds version `held`, if any, to the version of its assignment."""
    return _fetched(lambda: service().model(version, held=held), lambda: version < service().version)


@device_api.get("/models/<int:version>/control")
def control(version: int) -> Response:
    """SCAFFOLD's c beside a version."""
    return _fetched(lambda: service().control(version), lambda: version < service().version)


@device_api.get("/rounds/<int:number>/model")
def part(number: int) -> Response:
    """What a round's phones are sent of the model, where they need not have all of it."""
    return _fetched(lambda: service().part(number), lambda: number < service().round)


def _fetched(body_of: Callable[[], ModelBody], late: Callable[[], bool]) -> Response:
    """A body that never changes, with an entity tag, and in ranges, so that a broken download goes on where it was.

    One that is not there was once, if the phone is `late`.
    """
    signed(request.get_data(cache=False))
    try:
        body = body_of()
    except NotFound as error:
        if late():
            raise Gone(str(error)) from None
        raise
    response = Response(body.content, content_type="application/octet-stream")
    response.set_etag(body.etag)
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    response.make_conditional(request, accept_ranges=True, complete_length=len(body.content))
    if request.method == "GET" and response.status_code != HTTPStatus.NOT_MODIFIED:
        service().downloaded(response.content_length)
    return response


@device_api.post("/rounds/<int:number>/report")
def report(number: int) -> Response:
    """A phone's frame; the answer goes out after the report was counted."""
    return _told(answers.report(tasks(), _asked(request.get_data(cache=False)), number=number))
