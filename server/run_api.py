"""What anyone may read of a run under /v1: status, metrics, configuration, checkpoint, bundle, words."""

from flask import Blueprint, Response, request

from kbdfl.errors import ConfigError, DataError, TooLarge
from kbdfl.server.device_api import json_object, reply, service

run_api = Blueprint("run_api", __name__, url_prefix="/v1")

MAX_TEXT = 2_000  # characters; a message, not a document
MAX_SUGGESTIONS = 3  # what the exported graph computes


@run_api.get("/status")
def status() -> Response:
    """The state of the task in one object."""
    return reply(service().status())


@run_api.get("/metrics")
def metrics() -> Response:
    """Rounds that came or changed after `since`; `next` is the `since` of the following request."""
    since = request.args.get("since", "0")
    if not since.isascii() or not since.isdigit() or len(since) > 15:
        raise ConfigError(f"since must be a whole number >= 0, got {since[:20]!r}")
    rows, newest = service().metrics(int(since))
    return reply({"rounds": rows, "next": newest})


@run_api.get("/config")
def config() -> Response:
    """The run's config.toml."""
    return Response(service().config_text(), content_type="application/toml; charset=utf-8")


@run_api.get("/checkpoint")
def checkpoint() -> Response:
    """The newest checkpoint, as safetensors."""
    path = service().checkpoint()
    response = Response(path.read_bytes(), content_type="application/octet-stream")
    response.headers["Content-Disposition"] = f'attachment; filename="{path.name}"'
    return response


@run_api.get("/models/latest/<name>")
def bundle_file(name: str) -> Response:
    """A file of the newest bundle, with its hash as entity tag."""
    file = service().current_bundle().file(name)
    response = Response(content_type=file.content_type)
    response.set_etag(file.sha256)
    response.headers["Cache-Control"] = "no-cache"  # the address stays, the content is replaced
    if request.if_none_match.contains(file.sha256):
        response.status_code = 304
    else:
        response.set_data(file.content)
    return response


@run_api.post("/predict")
def predict() -> Response:
    """Suggestions for a text, by the newest bundle."""
    text = json_object().get("text")
    if not isinstance(text, str):
        raise DataError("text must be a string")
    if len(text) > MAX_TEXT:
        raise TooLarge(f"text may have {MAX_TEXT} characters at most, got {len(text)}")
    bundle = service().current_bundle()
    suggestions = bundle.predictor.suggest(text, k=MAX_SUGGESTIONS)
    return reply(
        {
            "suggestions": [
                {"word": s.word, "probability": round(float(s.probability), 6)} for s in suggestions
            ],
            "rounds": bundle.rounds,
            "version": bundle.version,
        }
    )
