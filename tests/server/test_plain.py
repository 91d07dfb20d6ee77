"""Plain requests mean what waitress reads in them; anything else is not plain."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

from kbdfl.server.plain import Reply, read

CHECK_IN = (
    b"POST /v1/check-in HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)


def by_waitress(data):
    parser, rest = HTTPRequestParser(Adjustments()), data
    while rest and not parser.completed:
        rest = rest[parser.received(rest) :]
    return parser, rest


def test_a_check_in_is_plain():
    request = read(CHECK_IN)
    assert (request.method, request.path, request.body) == ("POST", "/v1/check-in", b"{}")
    assert request.whole
    assert {name.lower(): value for name, value in request.headers.items()} == {
        "host": "x",
        "content-type": "application/json",
        "content-length": "2",
    }
    assert request.headers["CONTENT-TYPE"] == request.headers["content-type"]


def test_a_body_may_still_be_on_its_way():
    request = read(CHECK_IN[:-1])
    assert (request.length, request.body, request.whole) == (2, b"{", False)


@pytest.mark.parametrize(
    "data",
    {
        "a head that has not ended": CHECK_IN[:60],
        "nothing": b"",
        "more than one request": CHECK_IN + CHECK_IN,
        "more than its body": CHECK_IN + b" ",
        "an older HTTP": CHECK_IN.replace(b"1.1", b"1.0"),
        "a blank line first": b"\r\n" + CHECK_IN,
        "a query": CHECK_IN.replace(b"check-in", b"check-in?a=1"),
        "an escaped path": CHECK_IN.replace(b"check-in", b"check%2din"),
        "a path of two slashes": CHECK_IN.replace(b"/v1", b"//v1"),
        "a whole address": CHECK_IN.replace(b"/v1", b"http://x/v1"),
        "an end of the connection": CHECK_IN.replace(b"Host: x", b"Connection: close"),
        "chunks": CHECK_IN.replace(b"Host: x", b"Transfer-Encoding: chunked"),
        "an expectation": CHECK_IN.replace(b"Host: x", b"Expect: 100-continue"),
        "a field twice": CHECK_IN.replace(b"Host: x", b"content-length: 2"),
        "a folded line": CHECK_IN.replace(b"Host: x", b"Host: x\r\n y"),
        "a bare line feed": CHECK_IN.replace(b"Host: x\r\n", b"Host: x\n"),
        "a name with a space": CHECK_IN.replace(b"Host:", b"Host :"),
        "a name with an underscore": CHECK_IN.replace(b"Host", b"Content_Length"),
        "a negative length": CHECK_IN.replace(b": 2", b": -2"),
        "a length of another script": CHECK_IN.replace(b": 2", ": ²".encode()),
        "a long head": CHECK_IN.replace(b"Host: x", b"Host: " + b"x" * 5_000),
        "many fields": CHECK_IN.replace(b"Host: x", b"\r\n".join(b"A%d: x" % n for n in range(50))),
    }.values(),
)
def test_what_is_not_plain_is_left_to_waitress(data):
    assert read(data) is None


NAMES = st.sampled_from([f"X-{letter}" for letter in "ABCDEFGHIJ"] + ["Host", "accept", "Connection", "A_b"])
VALUES = st.one_of(
    st.sampled_from(["0", "x, y", 'a "b"', "c:d ", "keep-alive"]), st.text(" !~aé", max_size=3)
)


@given(
    method=st.sampled_from(["GET", "POST", "PUT"]),
    path=st.text("a.-_/", max_size=8).map(lambda text: "/v" + text),
    fields=st.lists(
        st.tuples(NAMES, st.sampled_from([": "] * 9 + [":"]), VALUES),
        max_size=3,
        unique_by=lambda field: field[0],
    ),
    length=st.sampled_from(["Content-Length: {}", "content-length: 0{}"]),
    body=st.binary(max_size=4),
)
def test_a_plain_request_means_the_same_to_waitress(method, path, fields, length, body):
    lines = [f"{method} {path} HTTP/1.1"] + [name + colon + value for name, colon, value in fields]
    lines += [length.format(len(body)), "", ""]
    data = "\r\n".join(lines).encode("latin-1", "replace") + body
    request = read(data)
    assume(request is not None and request.whole)
    parser, rest = by_waitress(data)
    assert parser.completed
    assert parser.error is None
    assert not rest
    assert not parser.connection_close
    assert (parser.command, parser.path, parser.query, parser.version) == (
        request.method,
        request.path,
        "",
        "1.1",
    )
    assert parser.get_body_stream().read() == request.body
    theirs = {name.replace("_", "-").lower(): value for name, value in parser.headers.items()}
    assert {name.lower(): value for name, value in request.headers.items()} == theirs


def test_a_reply_is_sent_as_http():
    reply = Reply(404, [("Content-Length", "2"), ("X-A", "b")], b"no")
    assert reply.encode(date="today", server="me") == (
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nX-A: b\r\nDate: today\r\nServer: me\r\n\r\nno"
    )
