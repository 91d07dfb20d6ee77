"""Check-ins and reports past Flask are answered, refused and counted as Flask's own view does it."""

import json

import pytest
from flask import Response

from kbdfl.identity import sign_request
from kbdfl.server.answers import Headers
from kbdfl.server.app import create_app
from kbdfl.server.express import Express
from kbdfl.server.plain import Plain
from tests.server.conftest import NOW

JSON = "application/json"


class WithoutExpress:
    """The same application without its express."""

    def __init__(self, app) -> None:
        self._app, self._express = app, app.wsgi_app
        assert isinstance(self._express, Express)

    def __enter__(self):
        self._app.wsgi_app = self._express._app

    def __exit__(self, *_) -> None:
        self._app.wsgi_app = self._express


REPORT = {"path": "/v1/rounds/0/report", "data": b"no frame", "content_type": "application/octet-stream"}
CASES = {
    "wait or a part": {},
    "no body": {"data": b"", "content_type": None},
    "a tier": {"data": b'{"tier": "mid"}'},
    "a population": {"data": b'{"population": "en"}'},
    "of a named task": {"path": "/v1/tasks/en/check-in"},
    "no such task": {"path": "/v1/tasks/xx/check-in"},
    "no such population": {"data": b'{"population": "fr"}'},
    "another's population": {"path": "/v1/tasks/en/check-in", "data": b'{"population": "de"}'},
    "no JSON": {"data": b"{"},
    "no object": {"data": b"[1]"},
    "a bad tier": {"data": json.dumps({"tier": "x" * 33}).encode()},
    "not signed": {"headers": {"X-Kbdfl-Signature": ""}},
    "another body": {"signed": b"other"},
    "another type": {"content_type": "text/plain"},
    "a longer body": {"data": b'{"tier": "mid"' + b" " * 5_000 + b"}"},
    "too long ago": {"at": NOW - 400},
    "a query": {"query_string": {"a": "1"}},
    "a report of nobody selected": REPORT,
    "a report of nothing": REPORT | {"data": b""},
    "a report to a named task": REPORT | {"path": "/v1/tasks/de/rounds/0/report"},
    "a report to no task": REPORT | {"path": "/v1/tasks/xx/rounds/0/report"},
    "a report as text": REPORT | {"content_type": "text/plain"},
    "a report that is not signed": REPORT | {"headers": {"X-Kbdfl-Signature": ""}},
    "a report to a round of many digits": REPORT | {"path": f"/v1/rounds/{10**20}/report"},
    "a report too long": REPORT | {"data": bytes(1 << 20)},
}


def answer(client, phone, *, path="/v1/check-in", data=b"{}", signed=None, at=NOW, headers=None, **more):
    signature = sign_request(
        phone.key, method="POST", path=path, body=data if signed is None else signed, timestamp=at
    )
    more = {"content_type": JSON} | more
    return client.post(path, data=data, headers=signature | (headers or {}), **more)


def told(response) -> tuple:
    """All of an answer that must be the same twice; how long to wait is drawn."""
    document = response.get_json()
    headers = sorted(name for name, _ in response.headers)
    if "retry_after_s" in document:
        document |= {"retry_after_s": "some"}
    secure = [value for name, value in response.headers if name.startswith(("X-", "Content-Sec", "Referrer"))]
    return response.status_code, response.mimetype, document, headers, secure


@pytest.mark.parametrize("case", CASES)
def test_the_answer_is_that_of_the_view(case, make_tasks, new_phone):
    client = create_app(make_tasks(en={}, de={})).test_client()
    phone = new_phone(client)
    past = told(answer(client, phone, **CASES[case]))
    with WithoutExpress(client.application):
        through = told(answer(client, phone, **CASES[case]))
    assert past == through


def test_both_are_counted_alike(make_tasks, new_phone):
    served = make_tasks(en={"cohort": 1, "over_selection": 1.0, "rounds": 9})
    task, client = served.first.service.task, create_app(served).test_client()
    phone = new_phone(client)

    def play() -> None:
        assignment = phone.check_in()
        frame = phone.frame(assignment, task.algorithm, size=task.config.spec.size)
        for _ in range(2):
            assert phone.report(assignment["round"], frame).status_code == 200
        assert phone.report(assignment["round"], frame[:-1]).status_code == 400
        assert answer(client, phone, data=b"[1]").status_code == 400

    def counted() -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        wanted = [line for line in lines if line.startswith(("kbdfl_check_ins_total", "kbdfl_reports_total"))]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in wanted)}

    play()
    once = counted()
    with WithoutExpress(client.application):
        play()
    assert len(once) == 5  # assigned, data; counted, duplicate, wire
    assert counted() == {name: 2 * value for name, value in once.items()}


def test_a_fault_of_the_server_is_a_problem_document_and_in_its_log(
    service, client, phone, monkeypatch, caplog
):
    def fails(*_, **__):
        raise RuntimeError("secret text")

    monkeypatch.setattr(service, "check_in", fails)
    response = answer(client, phone)
    assert (response.status_code, response.mimetype) == (500, "application/problem+json")
    assert "secret" not in response.text
    assert "Exception on device_api.check_in" in caplog.text


def plain(path="/v1/check-in", method="POST", kind=JSON, length=2):
    headers = {} if kind is None else {"Content-Type": kind}
    return Plain(method, path, headers, length, b"{}"[:length])


def test_only_ordinary_check_ins_are_answered_at_once(service):
    express = create_app(service).extensions["kbdfl.express"]
    taken = [plain(), plain("/v1/tasks/en-1/check-in"), plain(kind=None, length=0)]
    assert all(map(express.takes, taken))
    for request in [
        plain(method="GET"),
        plain("/v1/check-in/"),
        plain("/v1/tasks/a/b/check-in"),
        plain("/v1/rounds/0/report"),
        plain("/v1/check-in\n"),
        plain(kind="text/plain"),
        plain(length=5_000),
    ]:
        assert not express.takes(request)


@pytest.mark.parametrize("case", ["wait or a part", "no such task", "no JSON", "not signed", "too long ago"])
def test_the_answer_past_waitress_is_that_of_the_view(case, make_tasks, new_phone):
    app = create_app(make_tasks(en={}, de={}))
    phone, express, claims = new_phone(app.test_client()), app.extensions["kbdfl.express"], []
    through = told(answer(app.test_client(), phone, **CASES[case]))
    case = {"path": "/v1/check-in", "data": b"{}", "at": NOW, "headers": {}} | CASES[case]
    signature = sign_request(
        phone.key, method="POST", path=case["path"], body=case["data"], timestamp=case["at"]
    )
    headers = {"Content-Type": JSON} | signature | case["headers"]
    request = Plain("POST", case["path"], headers, len(case["data"]), case["data"])
    assert express.takes(request)
    reply = express.answer(request, claims.append)
    assert told(Response(reply.content, reply.status, list(reply.headers))) == through
    assert bool(claims) == (case["headers"] == {} and case["at"] == NOW and "xx" not in case["path"])


def test_headers_are_a_mapping_of_what_was_sent():
    headers = Headers({"HTTP_X_KBDFL_TIME": "1", "HTTP_HOST": "x", "PATH_INFO": "/", "CONTENT_LENGTH": "2"})
    assert dict(headers) == {"X-KBDFL-TIME": "1", "HOST": "x"}
    assert headers["x-kbdfl-time"] == "1"
    assert "Path-Info" not in headers
