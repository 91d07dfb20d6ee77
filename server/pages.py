"""Each task's two pages, and the libraries they load: plotly from its Python package, onnxruntime-web from npm's."""

from functools import cache
from typing import Any

from flask import Response, current_app, make_response, render_template

from kbdfl.errors import NotFound
from kbdfl.server.addresses import TaskBlueprint, current, tasks
from kbdfl.server.assets import ASK_AGAIN, FOR_GOOD, SCRIPT, Asset

pages = TaskBlueprint("pages", __name__)

# Exceptions from the policy of app.py, which allows nothing inline and nothing from elsewhere.
POLICY = "Content-Security-Policy"
PLOTLY_NEEDS = "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:"  # it writes style elements
WASM_NEEDS = "script-src 'self' 'wasm-unsafe-eval'"


@cache
def _plotly() -> tuple[str, Asset]:
    """Version and source of plotly.js as the installed package carries it."""
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    return get_plotlyjs_version(), Asset.of(get_plotlyjs().encode(), SCRIPT)


@pages.get("/")
def dashboard() -> Response:
    """The run as it goes: rounds, recall, bytes, phones."""
    version, _ = _plotly()
    text = render_template("dashboard.html", plotly_version=version, **_of_task())
    return make_response(text, {POLICY: PLOTLY_NEEDS})


@pages.get("/keyboard")
def keyboard() -> Response:
    """A phone whose suggestions come from the newest bundle."""
    return make_response(render_template("keyboard.html", **_of_task()), {POLICY: WASM_NEEDS})


def _of_task() -> dict[str, Any]:
    """What the templates say of the task, and of those beside it."""
    served = current()
    return {"task": served.service.task.name, "served": served, "tasks": list(tasks())}


@pages.get("/assets/plotly-<version>.min.js", once=True)
def plotly(version: str) -> Response:
    """The version is part of the address, so a browser may keep the file for good."""
    installed, source = _plotly()
    return source.response(FOR_GOOD if version == installed else ASK_AGAIN)


@pages.get("/assets/ort/<version>/<name>", once=True)
def web_runtime(version: str, name: str) -> Response:
    """The files with which a page runs the model itself."""
    runtime = current_app.config["WEB_RUNTIME"]
    if runtime is None:
        raise NotFound("onnxruntime-web is not installed; `npm ci` in server/web does it")
    return runtime.asset(version, name).response(FOR_GOOD)


@pages.get("/assets/levenshtein-<version>.js", once=True)
def distance(version: str) -> Response:
    """The edit distance between two words, as a module."""
    if current_app.config["WEB_DISTANCE"] is None:
        raise NotFound("fastest-levenshtein is not installed; `npm ci` in server/web does it")
    installed, module = current_app.config["WEB_DISTANCE"]
    return module.response(FOR_GOOD if version == installed else ASK_AGAIN)
