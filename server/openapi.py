"""The OpenAPI 3.1 document of all that programs may ask, made of the application itself, at /v1/openapi.json.

Addresses, methods and parameters come from the routes, texts from the docstrings of their functions, and the rest from
`kbdfl.server.operations`.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
from flask import Blueprint, Flask, Response, current_app
from werkzeug.routing import Rule

from kbdfl._version import __version__
from kbdfl.identity import DEVICE as DEVICE_HEADER
from kbdfl.identity import FRESH_S, NONCE, SIGNATURE, TIME
from kbdfl.server.admin_pages import SESSION
from kbdfl.server.assets import ASK_AGAIN, Asset
from kbdfl.server.messages import Problem
from kbdfl.server.operations import (
    ADMINISTRATOR,
    DEVICE,
    HTML,
    JSON,
    OPERATIONS,
    PAGE,
    Operation,
)
from kbdfl.server.problems import CONTENT_TYPE
from kbdfl.server.tasks import NAME

openapi = Blueprint("openapi", __name__, url_prefix="/v1")

KEPT = "kbdfl.openapi"  # among the application's extensions
ABOUT = """A server of federated tasks: phones enrol, check in, fetch the model and report. The addresses of each task
begin with /v1/tasks/NAME; those that name none are the first one's.

What a route refuses, and what the server refuses before it knows the route (a malformed head, a body over the limit),
is a problem document (RFC 9457)."""

_VARIABLE = re.compile(r"<(?:(?P<kind>[a-z]+)(?:\((?P<of>[^)]*)\))?:)?(?P<name>[a-z_]+)>")
_SIGNED = {
    "device": (DEVICE_HEADER, "The id that the device got when it enrolled."),
    "time": (TIME, f"Seconds since 1970; at most {FRESH_S} s from the server's clock."),
    "nonce": (NONCE, "16 to 64 random hex digits, new for each request."),
    "signature": (SIGNATURE, "128 hex digits: Ed25519 over method, path, the body's sha256, time and nonce."),
}
_REASONS = {
    200: "As asked.",
    202: "Not there yet.",
    204: "Taken.",
    206: "A part of it.",
    303: "Done; the page shows what became of it.",
    304: "The asker has it already.",
    400: "What was sent is malformed or impossible.",
    401: "Whoever asks has not shown who it is.",
    403: "Whoever asks may not.",
    404: "There is no such thing.",
    409: "It does not fit what was done before.",
    410: "It was there, and is no more.",
    413: "The body is over its limit.",
    415: "The body is of another type.",
    416: "There is no such part.",
    429: "Too many requests in a while.",
    503: "Not now; the same again may succeed.",
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}}


@openapi.get("/openapi.json")
def described() -> Response:
    """This document."""
    kept = current_app.extensions
    if KEPT not in kept:
        content = json.dumps(document(current_app), separators=(",", ":")).encode()
        kept[KEPT] = Asset.of(content, JSON)
    asset: Asset = kept[KEPT]
    return asset.response(ASK_AGAIN)


def document(app: Flask) -> dict[str, Any]:
    """The document of `app`: every route whose function is in OPERATIONS."""
    refs, components = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, str] = {}
    names: set[str] = set()
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        operation = OPERATIONS.get(rule.endpoint)
        if operation is None:
            continue
        view = app.view_functions[rule.endpoint]
        tag = rule.endpoint.split(".")[0]
        tags.setdefault(tag, _first_line(sys.modules[view.__module__].__doc__))
        address, parameters = _address(rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            name = rule.endpoint
            if name in names:
                name += "_by_" + "_and_".join(parameter["name"] for parameter in parameters)
            names.add(name)
            said = inspect.cleandoc(view.__doc__ or "")
            paths.setdefault(address, {})[method.lower()] = {
                "tags": [tag],
                "operationId": name,
                "summary": _first_line(said),
                "description": said,
                **_described(operation, parameters, refs),
            }
    return {
        "openapi": "3.1.0",
        "info": {"title": "kbdfl", "version": __version__, "description": ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in tags.items()],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _security_schemes()},
    }


def _described(
    operation: Operation, parameters: list[dict[str, Any]], refs: dict[Any, dict[str, Any]]
) -> dict[str, Any]:
    """Parameters, body, answers and security of one operation."""
    described: dict[str, Any] = {"parameters": parameters + list(_parameters(operation, refs))}
    if operation.takes_body:
        schema = refs[operation.body] if operation.body else {}
        content = {operation.takes: {"schema": schema}}
        described["requestBody"] = {"required": not operation.optional, "content": content}
    described["responses"] = {
        str(status): answer for status, answer in _responses(operation, bool(parameters), refs)
    }
    described["security"] = {
        DEVICE: [{name: [] for name in _SIGNED}],
        ADMINISTRATOR: [{"token": []}],
        PAGE: [{}, {"session": []}],
    }.get(operation.by, [])
    return described


def _parameters(operation: Operation, refs: dict[Any, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for name, kind in operation.query.items():
        yield {"name": name, "in": "query", "required": False, "schema": refs[kind]}
    if operation.fetched:
        yield _header("If-None-Match", "The entity tag of what the asker has.")
    if operation.ranges:
        yield _header("Range", "Bytes from where a broken download stopped, as `bytes=1000-`.")


def _header(name: str, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": text,
        "schema": {"type": "string"},
    }


def _responses(
    operation: Operation, addressed: bool, refs: dict[Any, dict[str, Any]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every status that can come, in order."""
    content = {kind: _one_of([refs[each] for each in types]) for kind, types in operation.answers.items()}
    success: dict[str, Any] = {"description": _REASONS[operation.status]}
    if content:
        success["content"] = content
    if operation.retry_after:
        success["headers"] = _RETRY_AFTER
    if operation.status == 303:
        success["headers"] = {"Location": {"required": True, "schema": {"type": "string"}}}
    yield operation.status, success
    if operation.not_yet:
        yield 202, {"description": _REASONS[202], "headers": _RETRY_AFTER}
    if operation.ranges:
        yield 206, {"description": _REASONS[206], "content": content}
    if operation.fetched:
        yield 304, {"description": _REASONS[304]}
    problem = {CONTENT_TYPE: {"schema": refs[Problem]}}
    if operation.by == PAGE:
        problem |= {HTML: {}}  # the page again, with what was wrong
    statuses = {*operation.statuses, 404} if addressed else set(operation.statuses)
    for status in sorted(statuses):
        refused: dict[str, Any] = {"description": _REASONS[status], "content": problem}
        if status in (429, 503):
            refused["headers"] = {name: header | {"required": True} for name, header in _RETRY_AFTER.items()}
        yield status, refused


def _one_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    if len(schemas) > 1:
        return {"schema": {"oneOf": schemas}}
    return {"schema": schemas[0]} if schemas else {}


def _schemas() -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    """By type what stands for it in the document, and the components that this refers to."""
    kinds: dict[Any, None] = {Problem: None}
    for operation in OPERATIONS.values():
        for kind in [operation.body, *sum(operation.answers.values(), ()), *operation.query.values()]:
            if kind is not None:
                kinds[kind] = None
    template = "#/components/schemas/{name}"
    schemas, components = msgspec.json.schema_components(list(kinds), ref_template=template)
    for schema in components.values():
        schema["description"] = inspect.cleandoc(schema["description"])
    return dict(zip(kinds, schemas, strict=True)), components


def _address(rule: Rule) -> tuple[str, list[dict[str, Any]]]:
    """A route as OpenAPI writes it, and its parameters."""
    parameters = []
    for found in _VARIABLE.finditer(rule.rule):
        schema: dict[str, Any] = {"type": "string", "minLength": 1}
        if found["kind"] == "int":
            schema = {"type": "integer", "minimum": 0}
        elif found["kind"] == "any":
            schema = {"type": "string", "enum": [word.strip() for word in found["of"].split(",")]}
        elif found["name"] == "task":
            schema = {"type": "string", "pattern": f"^{NAME.pattern}$"}
        parameters.append({"name": found["name"], "in": "path", "required": True, "schema": schema})
    return _VARIABLE.sub(r"{\g<name>}", rule.rule), parameters


def _security_schemes() -> dict[str, Any]:
    schemes: dict[str, Any] = {
        name: {"type": "apiKey", "in": "header", "name": header, "description": text}
        for name, (header, text) in _SIGNED.items()
    }
    schemes["token"] = {"type": "http", "scheme": "bearer", "description": "An administrator's token."}
    schemes["session"] = {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION,
        "description": "Of an administrator who has logged in.",
    }
    return schemes


def _first_line(text: str | None) -> str:
    """The first paragraph, in one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())
