"""What anyone may read of a run under /v1: status, metrics, configuration, checkpoint, bundle, words."""

from flask import Response, current_app, request, url_for

from kbdfl.errors import DataError, TooLarge
from kbdfl.server.addresses import TaskBlueprint, service, tasks
from kbdfl.server.assets import ASK_AGAIN, RUNTIME_MODULE
from kbdfl.server.device_api import json_object, reply, whole_number

run_api = TaskBlueprint("run_api", __name__, url_prefix="/v1")

MAX_TEXT = 2_000  # characters; a message, not a document
MAX_SUGGESTIONS = 20
SLOTS = 3  # of a suggestion strip


@run_api.get("/tasks", once=True)
def served() -> Response:
    """The tasks of this server, the one first that answers where none is named."""
    return reply(
        {
            "tasks": [
                {
                    "name": task.name,
                    "population": task.population,
                    "base": task.base,
                    "state": task.state,
                    "round": task.service.round,
                    "rounds": task.service.task.rule.rounds,
                    "version": task.service.version,
                }
                for task in tasks()
            ]
        }
    )


@run_api.get("/status")
def status() -> Response:
    """The state of the task in one object."""
    return reply(service().status())


@run_api.get("/metrics")
def metrics() -> Response:
    """Rounds that came or changed after `since`; `next` is the `since` of the following request."""
    rows, newest = service().metrics(whole_number("since", request.args.get("since", "0")))
    return reply({"rounds": rows, "next": newest})


@run_api.get("/metrics/<int:number>/traffic")
def traffic(number: int) -> Response:
    """What crossed the socket while a round was open, heads included; device null is everybody not enrolled."""
    return reply({"round": number, "devices": service().traffic_of(number)})


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


@run_api.get("/models/latest")
def newest_model() -> Response:
    """The newest bundle: its version, its precisions, and where a page finds what runs it, if it is served."""
    bundle, runtime = service().current_bundle(), current_app.config["WEB_RUNTIME"]
    distance = current_app.config["WEB_DISTANCE"]
    address = runtime and url_for("pages.web_runtime", version=runtime.version, name=RUNTIME_MODULE)
    return reply(
        {
            "version": bundle.version,
            "rounds": bundle.rounds,
            "precisions": bundle.models(),
            "runtime": address,
            "distance": distance and url_for("pages.distance", version=distance[0]),
        }
    )


@run_api.get("/models/latest/<name>")
@run_api.get("/models/latest/<precision>/<name>")
def bundle_file(name: str, precision: str | None = None) -> Response:
    """A file of the newest bundle, float32 if no other precision is named, with its hash as entity tag."""
    return service().current_bundle().file(name, precision).response(ASK_AGAIN)


@run_api.post("/predict")
def predict() -> Response:
    """Suggestions for a text, by the newest bundle; `count` of them, three if it is not said."""
    asked = json_object()
    text, count = asked.get("text"), asked.get("count", SLOTS)
    if not isinstance(text, str):
        raise DataError("text must be a string")
    if len(text) > MAX_TEXT:
        raise TooLarge(f"text may have {MAX_TEXT} characters at most, got {len(text)}")
    if type(count) is not int or not 1 <= count <= MAX_SUGGESTIONS:
        raise DataError(f"count must be a whole number from 1 to {MAX_SUGGESTIONS}, got {str(count)[:20]}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError("text must be Unicode, got half of a surrogate pair") from None
    bundle = service().current_bundle()
    suggestions = bundle.predictor.suggest(text, k=count)
    return reply(
        {
            "suggestions": [
                {"word": s.word, "probability": round(float(s.probability), 6)} for s in suggestions
            ],
            "rounds": bundle.rounds,
            "version": bundle.version,
        }
    )
