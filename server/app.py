"""The Flask application around one served task."""

from flask import Flask, Response

from kbdfl.server import problems
from kbdfl.server.assets import WebRuntime, distance_library
from kbdfl.server.device_api import device_api
from kbdfl.server.pages import pages
from kbdfl.server.run_api import run_api
from kbdfl.server.service import TaskService

SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Content-Security-Policy",
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


def create_app(service: TaskService) -> Flask:
    """An application that serves `service`, which the caller starts and closes."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = service.task.max_report_bytes
    app.config["WEB_RUNTIME"] = WebRuntime.find()  # None: pages ask the server for suggestions
    app.config["WEB_DISTANCE"] = distance_library()  # None: pages do not correct
    app.extensions["kbdfl"] = service
    app.json.sort_keys = False
    problems.install(app)
    for blueprint in (device_api, run_api, pages):
        app.register_blueprint(blueprint)

    @app.after_request
    def secure(response: Response) -> Response:
        for name, value in SECURITY_HEADERS:
            more = response.headers.get(name)  # a page's own exceptions
            response.headers[name] = f"{value}; {more}" if more else value
        return response

    return app
