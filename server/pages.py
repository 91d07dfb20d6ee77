"""The two pages, and the chart library they load, which comes from the installed plotly package."""

import gzip
from functools import cache

from flask import Blueprint, Response, render_template, request

from kbdfl.server.device_api import reply, service

pages = Blueprint("pages", __name__)


@cache
def _plotly() -> tuple[str, bytes, bytes]:
    """Version, source and gzipped source of plotly.js as the installed package carries it."""
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    source = get_plotlyjs().encode()
    return get_plotlyjs_version(), source, gzip.compress(source, 6, mtime=0)


@pages.get("/")
def dashboard() -> str:
    """The run as it goes: rounds, recall, bytes, phones."""
    version, _, _ = _plotly()
    return render_template("dashboard.html", task=service().task.name, plotly_version=version)


@pages.get("/keyboard")
def keyboard() -> str:
    """A phone whose suggestions come from the newest bundle."""
    return render_template("keyboard.html", task=service().task.name)


@pages.get("/assets/plotly-<version>.min.js")
def plotly(version: str) -> Response:
    """The version is part of the address, so a browser may keep the file for good."""
    installed, source, packed = _plotly()
    response = Response(content_type="text/javascript; charset=utf-8")
    response.headers["Vary"] = "Accept-Encoding"
    if version == installed:
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    if "gzip" in request.accept_encodings:
        response.headers["Content-Encoding"] = "gzip"
        response.set_data(packed)
    else:
        response.set_data(source)
    return response


@pages.get("/healthz")
def healthz() -> Response:
    """That the server answers, for whoever watches over it."""
    return reply({"ok": True})
