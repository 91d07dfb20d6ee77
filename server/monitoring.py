"""How a server is, for those who watch over it: /healthz, /readyz, Prometheus' /metrics, a line a request in the log.

Labels are bounded: endpoints, statuses, and words of `kbdfl.server.outcomes`. No label and no line holds a device, an
address or anything that a request contained.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from math import inf
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
from kbdfl.server.addresses import tasks
from kbdfl.server.outcomes import noted
from kbdfl.server.tasks import ServedTask, Tasks

log = logging.getLogger(__name__)

monitoring = Blueprint("monitoring", __name__)

REGISTRY = "kbdfl.registry"  # among the application's extensions
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
NOWHERE = "none"  # the endpoint of an address that is none
# Moments of birth would be a sample more for each other.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has types for all but this one

COUNTED = {"device_api.report": "reports", "device_api.check_in": "check_ins"}


Counted = Callable[..., None]  # a request was answered: see `install`
Family = type[CounterMetricFamily] | type[GaugeMetricFamily]


def install(app: Flask, served: Tasks) -> Counted:
    """Watch over `app`, which serves these tasks: count its requests, and answer those who ask how it is.

    What is returned counts a request that `app` itself was not asked.
    """
    registry = CollectorRegistry()  # the application's own: a process may have several
    seconds = Histogram(
        "kbdfl_request_seconds",
        "Seconds from a request's arrival in the application to its answer.",
        ("endpoint", "status"),
        buckets=BUCKETS_S,
        registry=registry,
    )
    labels = ("task", "result")
    counters = {
        "reports": Counter("kbdfl_reports", "Reports by what came of them.", labels, registry=registry),
        "check_ins": Counter("kbdfl_check_ins", "Check-ins by their answer.", labels, registry=registry),
    }
    ProcessCollector(registry=registry)
    registry.register(_Collector(served))
    app.extensions[REGISTRY] = registry
    app.register_blueprint(monitoring)

    # Labels are bounded, and finding the counter that has them takes longer than counting.
    of_seconds = cache(seconds.labels)
    of_result = cache(lambda kind, *labels: counters[kind].labels(*labels))

    def counted(
        endpoint: str,
        status: int,
        outcome: str,
        took_s: float,
        *,
        task: str,
        method: str,
        up_bytes: int,
        down_bytes: int,
    ) -> None:
        of_seconds(endpoint, status).observe(took_s)
        if kind := COUNTED.get(endpoint):
            of_result(kind, task if served.known(task) else NOWHERE, outcome).inc()
        if log.isEnabledFor(logging.INFO):
            fields = {
                "method": method,
                "endpoint": endpoint,
                "status": status,
                "outcome": outcome,
                "ms": round(1_000 * took_s, 2),
                "up_bytes": up_bytes,
                "down_bytes": down_bytes,
            }
            log.info("%s", " ".join(map(str, fields.values())), extra={"fields": fields})

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        counted(
            request.endpoint or NOWHERE,
            response.status_code,
            noted(response.status_code),
            time.perf_counter() - g.began,
            task=g.get("answered_by") or g.get("task") or served.first.name,
            method=request.method if request.url_rule else NOWHERE,
            up_bytes=request.content_length or 0,
            down_bytes=response.content_length or 0,
        )
        return response

    return counted


@monitoring.get("/healthz")
def healthz() -> Response:
    """That the server answers."""
    return Response('{"ok": true}', content_type="application/json")


@monitoring.get("/readyz")
def readyz() -> Response:
    """That it can make reports durable; 503 while it cannot."""
    if not tasks().ready:
        raise ServerUnavailable("the server is starting, stopping, or cannot write to its folder")
    return Response('{"ready": true}', content_type="application/json")


@monitoring.get("/metrics")
def metrics() -> Response:
    """Everything countable, in Prometheus' text format."""
    text = generate_latest(current_app.extensions[REGISTRY])
    return Response(text, content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})


class _Collector:
    """The tasks' state when it is asked for, each family with the samples of all of them."""

    def __init__(self, served: Tasks) -> None:
        self._tasks = [_TaskCollector(task) for task in served]

    def describe(self) -> tuple[Metric, ...]:
        """Nothing in advance: its names clash with no other's, and a scrape need not come before its time."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families, in the order in which they are printed."""
        families: dict[str, Metric] = {}
        for task in self._tasks:
            for family in task.collect():
                known = families.setdefault(family.name, family)
                if known is not family:
                    known.samples.extend(family.samples)
        yield from families.values()


class _TaskCollector:
    """One task's. Closed rounds are read once each and added up."""

    def __init__(self, task: ServedTask) -> None:
        self._service, self._name = task.service, task.name
        self._lock = threading.Lock()  # several may ask at a time
        self._since, self._round, self._measured = 0, -1, -1
        self._rounds = {"committed": 0, "abandoned": 0}
        self._sums = {"reports": 0, "dropped": 0, "refused": 0, "uplink_bytes": 0, "downlink_bytes": 0}
        self._recall: dict[str, float] = {}

    def collect(self) -> Iterator[Metric]:
        """The families, with this task's samples."""
        service = self._service
        with self._lock:
            self._read()
            rounds, sums, recall, measured = (
                dict(self._rounds),
                dict(self._sums),
                dict(self._recall),
                self._measured,
            )
        yield self._gauge("kbdfl_ready", "Whether reports can be made durable.", float(service.ready))
        yield self._gauge("kbdfl_round", "The round that is open.", service.round)
        yield self._gauge("kbdfl_model_version", "The model's version.", service.version)
        if (privacy := service.privacy) is not None:
            epsilon, budget = privacy["epsilon"], privacy["budget_epsilon"]
            text = "Spent by all releases so far; infinite where nothing is claimed."
            yield self._gauge("kbdfl_privacy_epsilon", text, inf if epsilon is None else epsilon)
            if budget is not None:
                yield self._gauge("kbdfl_privacy_budget_epsilon", "What may be spent.", budget)
            yield self._gauge("kbdfl_privacy_releases", "Rows of the ledger.", privacy["releases"])
        yield self._family(GaugeMetricFamily, "kbdfl_phones", "Phones by state.", "state", service.phones())
        yield self._family(CounterMetricFamily, "kbdfl_rounds", "Closed rounds.", "status", rounds)
        phones = {"counted": sums["reports"], "dropped": sums["dropped"], "refused": sums["refused"]}
        yield self._family(
            CounterMetricFamily,
            "kbdfl_selected_phones",
            "What became of the phones that closed rounds had selected.",
            "outcome",
            phones,
        )
        frames = {"up": sums["uplink_bytes"], "down": sums["downlink_bytes"]}
        yield self._family(
            CounterMetricFamily,
            "kbdfl_frame_bytes",
            "Bytes of reports and models in closed rounds.",
            "direction",
            frames,
        )
        yield self._family(
            CounterMetricFamily,
            "kbdfl_socket_bytes",
            "Bytes at the socket, heads included, since the server started.",
            "direction",
            dict(zip(("up", "down"), service.traffic.total, strict=True)),
        )
        if recall:
            text = "Recall on held-out users when last measured."
            yield self._family(GaugeMetricFamily, "kbdfl_recall", text, "k", recall)
            yield self._gauge("kbdfl_recall_round", "The round after which it was measured.", measured)

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

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=("task",))
        family.add_metric((self._name,), value)
        return family

    def _family(self, kind: Family, name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
        family = kind(name, text, labels=("task", label))
        for key, value in values.items():
            family.add_metric((self._name, key), value)
        return family
