"""How a server is, for those who watch over it: /healthz, /readyz, Prometheus' /metrics, a line a request in the log.

Labels are bounded: endpoints, statuses, and words of `kbdfl.server.outcomes`. No label and no line holds a device, an
address or anything that a request contained.
"""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from kbdfl.errors import ServerUnavailable
from kbdfl.server.outcomes import noted
from kbdfl.server.service import TaskService

log = logging.getLogger(__name__)

monitoring = Blueprint("monitoring", __name__)

REGISTRY = "kbdfl.registry"  # among the application's extensions
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
NOWHERE = "none"  # the endpoint of an address that is none
disable_created_metrics()  # moments of birth, a sample more for each other

COUNTED = {"device_api.report": "reports", "device_api.check_in": "check_ins"}


def install(app: Flask, service: TaskService) -> None:
    """Watch over `app`, which serves `service`: count its requests, and answer those who ask how it is."""
    registry = CollectorRegistry()  # the application's own: a process may have several
    seconds = Histogram(
        "kbdfl_request_seconds",
        "Seconds from a request's arrival in the application to its answer.",
        ("endpoint", "status"),
        buckets=BUCKETS_S,
        registry=registry,
    )
    counters = {
        "reports": Counter("kbdfl_reports", "Reports by what came of them.", ("result",), registry=registry),
        "check_ins": Counter("kbdfl_check_ins", "Check-ins by their answer.", ("result",), registry=registry),
    }
    ProcessCollector(registry=registry)
    registry.register(_TaskCollector(service))
    app.extensions[REGISTRY] = registry
    app.register_blueprint(monitoring)

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        endpoint, took_s = request.endpoint or NOWHERE, time.perf_counter() - g.began
        seconds.labels(endpoint, response.status_code).observe(took_s)
        if kind := COUNTED.get(endpoint):
            counters[kind].labels(noted(response.status_code)).inc()
        if log.isEnabledFor(logging.INFO):
            _log(endpoint, response, took_s)
        return response


def _log(endpoint: str, response: Response, took_s: float) -> None:
    fields = {
        "method": request.method if request.url_rule else NOWHERE,
        "endpoint": endpoint,
        "status": response.status_code,
        "outcome": noted(response.status_code),
        "ms": round(1_000 * took_s, 2),
        "up_bytes": request.content_length or 0,
        "down_bytes": response.content_length or 0,
    }
    log.info("%s", " ".join(map(str, fields.values())), extra={"fields": fields})


@monitoring.get("/healthz")
def healthz() -> Response:
    """That the server answers."""
    return Response('{"ok": true}', content_type="application/json")


@monitoring.get("/readyz")
def readyz() -> Response:
    """That it can make reports durable; 503 while it cannot."""
    service: TaskService = current_app.extensions["kbdfl"]
    if not service.ready:
        raise ServerUnavailable("the server is starting, stopping, or cannot write to its folder")
    return Response('{"ready": true}', content_type="application/json")


@monitoring.get("/metrics")
def metrics() -> Response:
    """Everything countable, in Prometheus' text format."""
    text = generate_latest(current_app.extensions[REGISTRY])
    return Response(text, content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})


class _TaskCollector:
    """The task's state when it is asked for. Closed rounds are read once each and added up."""

    def __init__(self, service: TaskService) -> None:
        self._service = service
        self._lock = threading.Lock()  # several may ask at a time
        self._since, self._round, self._measured = 0, -1, -1
        self._rounds = {"committed": 0, "abandoned": 0}
        self._sums = {"reports": 0, "dropped": 0, "refused": 0, "uplink_bytes": 0, "downlink_bytes": 0}
        self._recall: dict[str, float] = {}

    def describe(self) -> tuple[Metric, ...]:
        """Nothing in advance: its names clash with no other's, and a scrape need not come before its time."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families, in the order in which they are printed."""
        service = self._service
        with self._lock:
            self._read()
            rounds, sums, recall, measured = (
                dict(self._rounds),
                dict(self._sums),
                dict(self._recall),
                self._measured,
            )
        yield _gauge("kbdfl_ready", "Whether reports can be made durable.", float(service.ready))
        yield _gauge("kbdfl_round", "The round that is open.", service.round)
        yield _gauge("kbdfl_model_version", "The model's version.", service.version)
        yield _family(GaugeMetricFamily, "kbdfl_phones", "Phones by state.", "state", service.phones())
        yield _family(CounterMetricFamily, "kbdfl_rounds", "Closed rounds.", "status", rounds)
        phones = {"counted": sums["reports"], "dropped": sums["dropped"], "refused": sums["refused"]}
        yield _family(
            CounterMetricFamily,
            "kbdfl_selected_phones",
            "What became of the phones that closed rounds had selected.",
            "outcome",
            phones,
        )
        frames = {"up": sums["uplink_bytes"], "down": sums["downlink_bytes"]}
        yield _family(
            CounterMetricFamily,
            "kbdfl_frame_bytes",
            "Bytes of reports and models in closed rounds.",
            "direction",
            frames,
        )
        yield _family(
            CounterMetricFamily,
            "kbdfl_socket_bytes",
            "Bytes at the socket, heads included, since the server started.",
            "direction",
            dict(zip(("up", "down"), service.traffic.total, strict=True)),
        )
        if recall:
            yield _family(
                GaugeMetricFamily, "kbdfl_recall", "Recall on held-out users when last measured.", "k", recall
            )
            yield _gauge("kbdfl_recall_round", "The round after which it was measured.", measured)

    def _read(self) -> None:
        rows, self._since = self._service.metrics(self._since)
        for row in rows:
            self._add(row)

    def _add(self, row: dict[str, Any]) -> None:
        number = row["round"]
        if number > self._round:  # rows come in order, and again when recall or the socket's bytes are known
            self._round = number
            self._rounds[row["status"]] += 1
            for name in self._sums:
                self._sums[name] += row.get(name) or 0
        if number >= self._measured and row.get("recall_top1") is not None:
            self._measured = number
            self._recall = {"1": row["recall_top1"], "3": row["recall_top3"]}


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _family(kind: Any, name: str, text: str, label: str, values: dict[str, Any]) -> Metric:
    family: Metric = kind(name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
