"""Who may come in by default, and how often: on loopback everybody, elsewhere who has a token."""

import pytest

from kbdfl.cli.guard import Guard
from kbdfl.errors import ConfigError, TooMany


def guard(**changes):
    fields = {
        "enrolment": None,
        "admin_token_file": None,
        "limit_enrol": None,
        "limit_check_in": None,
        "limit_login": "10/minute",
        "trusted_proxy": None,
        "tls_certificate": None,
        "tls_key": None,
    }
    return Guard(**(fields | changes))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_on_loopback_everybody_may_enrol_as_often_as_they_like(host):
    assert guard().enrolment_on(host) == "open"
    rates = guard().rates_on(host)
    for _ in range(1_000):
        rates.check("enrol", "127.0.0.1")
        rates.check("check-in", "a")
    assert guard(enrolment="token").enrolment_on(host) == "token"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_elsewhere_a_token_is_needed_unless_open_is_asked_for(host):
    assert guard().enrolment_on(host) == "token"
    assert guard(enrolment="open").enrolment_on(host) == "open"


def test_behind_a_proxy_loopback_is_not_near():
    assert guard(trusted_proxy="127.0.0.1").enrolment_on("127.0.0.1") == "token"


@pytest.mark.parametrize("address", ["nowhere!", "proxy.example.org", "*", "", "127.0.0.1:80"])
def test_a_proxy_is_known_by_its_address(address):
    with pytest.raises(ConfigError, match="trusted_proxy must be an IP address, got"):
        guard(trusted_proxy=address)
    assert guard(trusted_proxy="::1").trusted_proxy == "::1"


@pytest.mark.parametrize(("kind", "most"), [("enrol", 60), ("check-in", 120), ("login", 10)])
def test_elsewhere_there_are_limits(kind, most):
    rates = guard().rates_on("0.0.0.0")
    for _ in range(most):
        rates.check(kind, "somebody")
    with pytest.raises(TooMany, match=f"at most {most} per 1 minute") as refused:
        rates.check(kind, "somebody")
    assert 1 <= refused.value.retry_after_s <= 60
    rates.check(kind, "somebody else")


@pytest.mark.parametrize("text", ["often", "", "60", "-1/minute", "1/fortnight"])
def test_what_is_no_rate_is_refused_in_one_line(text):
    with pytest.raises(ConfigError, match="must be none or a rate such as 60/minute"):
        guard(limit_login=text).rates_on("127.0.0.1")
