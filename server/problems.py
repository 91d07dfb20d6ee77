"""Every error as an RFC 9457 problem document: {"title", "status", "detail"}, without a traceback."""

import json
import math
from http import HTTPStatus

from flask import Flask, Response
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from kbdfl.errors import KbdflError
from kbdfl.server.outcomes import note_error

CONTENT_TYPE = "application/problem+json"
FAILED = "the server failed at this request; its log says why"


def document(status: int, detail: str) -> bytes:
    """The body of a problem document."""
    return json.dumps({"title": HTTPStatus(status).phrase, "status": status, "detail": detail}).encode()


def problem(status: int, detail: str) -> Response:
    """An error as a problem document (RFC 9457) of one line."""
    return Response(document(status, detail), status, content_type=CONTENT_TYPE)


def install(app: Flask) -> None:
    """Answer all errors of `app` with problem documents."""

    @app.errorhandler(KbdflError)
    def refused(error: KbdflError) -> Response:
        note_error(error)
        response = problem(error.status, str(error))
        if error.retry_after_s is not None:
            response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
        return response

    @app.errorhandler(HTTPException)
    def refused_by_http(error: HTTPException) -> Response:
        status = error.code or 500
        if isinstance(error, RequestEntityTooLarge):
            return problem(status, f"a body may have {app.config['MAX_CONTENT_LENGTH']} bytes at most")
        if status == 500:  # flask has logged the traceback; nobody else sees it
            return problem(status, FAILED)
        response = problem(status, error.description or HTTPStatus(status).phrase)
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response
