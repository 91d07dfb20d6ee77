"""Check-ins and reports past Flask are answered, refused and counted as Flask's own view does it."""

import json

import pytest

from kbdfl.identity import sign_request
from kbdfl.server.app import create_app
from kbdfl.server.express import Express, is_check_in
from tests.server.conftest import NOW

JSON = "application/json"


class Plain:
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
    with Plain(client.application):
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
    with Plain(client.application):
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


def test_only_check_ins_are_answered_at_once():
    assert is_check_in("POST", "/v1/check-in")
    assert is_check_in("POST", "/v1/tasks/en-1/check-in")
    for method, path in [
        ("GET", "/v1/check-in"),
        ("POST", "/v1/check-in/"),
        ("POST", "/v1/tasks/a/b/check-in"),
        ("POST", "/v1/rounds/0/report"),
        ("POST", "/v1/check-in\n"),
    ]:
        assert not is_check_in(method, path)
