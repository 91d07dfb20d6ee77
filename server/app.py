"""The Flask application around one served task, or several."""

from flask import Flask, Response
from flask.json.provider import DefaultJSONProvider

from kbdfl.server import addresses, monitoring, problems
from kbdfl.server.admin_api import admin_api
from kbdfl.server.admin_pages import admin_pages
from kbdfl.server.assets import WebRuntime, distance_library
from kbdfl.server.credentials import Credentials
from kbdfl.server.device_api import device_api
from kbdfl.server.express import Express
from kbdfl.server.openapi import openapi
from kbdfl.server.pages import pages
from kbdfl.server.run_api import run_api
from kbdfl.server.secure_api import secure_api
from kbdfl.server.service import TaskService
from kbdfl.server.sessions import Sessions
from kbdfl.server.tasks import Tasks

SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Content-Security-Policy",
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


def create_app(
    served: TaskService | Tasks, *, credentials: Credentials | None = None, secure_cookies: bool = False
) -> Flask:
    """An application that serves `served`, whose services the caller starts and closes.

    `credentials` are those of the folder if none are given; `secure_cookies` are sent over TLS only.
    """
    tasks = served if isinstance(served, Tasks) else Tasks.alone(served)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = tasks.max_report_bytes
    app.config["WEB_RUNTIME"] = WebRuntime.find()  # None: pages ask the server for suggestions
    app.config["WEB_DISTANCE"] = distance_library()  # None: pages do not correct
    app.config["ADMIN_COOKIE_SECURE"] = secure_cookies
    app.extensions["kbdfl.credentials"] = credentials or Credentials(tasks.folder)
    app.extensions["kbdfl.sessions"] = Sessions()
    app.json = json = DefaultJSONProvider(app)
    json.sort_keys = False
    addresses.install(app, tasks)
    problems.install(app)
    counted = monitoring.install(app, tasks)
    for blueprint in (device_api, secure_api, run_api, pages, admin_api, admin_pages, openapi):
        app.register_blueprint(blueprint)

    @app.after_request
    def secure(response: Response) -> Response:
        for name, value in SECURITY_HEADERS:
            more = response.headers.get(name)  # a page's own exceptions
            response.headers[name] = _joined(value, more) if more else value
        return response

    express = Express(
        app.wsgi_app,
        tasks,
        most_report_bytes=tasks.max_report_bytes,
        headers=SECURITY_HEADERS,
        counted=counted,
    )
    app.extensions["kbdfl.express"] = express
    app.wsgi_app = express  # type: ignore[method-assign]
    return app


def _joined(policy: str, more: str) -> str:
    """A policy and the directives of one answer, which take the place of those of the same name."""
    named = {directive.split()[0] for directive in more.split("; ")}
    return "; ".join([part for part in policy.split("; ") if part.split()[0] not in named] + [more])
