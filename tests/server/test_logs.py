"""The log: a line a request when it is asked for, and none that quotes one."""

import json
import logging

import pytest

from kbdfl.server.logs import JsonLines


@pytest.fixture
def lines(caplog):
    """What was logged at info and above since, as JSON lines."""
    caplog.set_level(logging.INFO, "kbdfl")
    return lambda: [json.loads(JsonLines().format(record)) for record in caplog.records]


def test_a_request_is_a_line_of_facts(client, phone, lines, caplog):
    caplog.clear()
    phone.check_in()
    (line,) = lines()
    assert line["level"] == "info"
    assert (line["method"], line["endpoint"], line["status"]) == ("POST", "device_api.check_in", 200)
    assert line["outcome"] == "assigned"
    assert line["down_bytes"] > 0
    assert line["time"].endswith("+00:00")
    assert phone.id not in json.dumps(line)


def test_what_a_request_says_is_in_no_line(client, lines):
    client.post("/v1/predict", json={"text": "a private message"})
    client.get("/secret/words?and=more")
    client.open("/secret", method="BREW")
    text = json.dumps(lines())
    for absent in ("private", "secret", "more", "BREW"):
        assert absent not in text


def test_no_line_is_written_unless_it_is_asked_for(client, caplog):
    client.get("/healthz")
    assert caplog.records == []


def test_an_exception_is_named_and_placed_and_not_quoted():
    try:
        raise KeyError("a private word")
    except KeyError as error:
        caught = (type(error), error, error.__traceback__)
    record = logging.LogRecord("kbdfl", logging.ERROR, __file__, 1, "the job %s failed", ("export",), caught)
    line = json.loads(JsonLines().format(record))
    assert (line["message"], line["exception"]) == ("the job export failed", "KeyError")
    assert line["at"][-1].startswith("test_logs.py:")
    assert "private" not in json.dumps(line)
