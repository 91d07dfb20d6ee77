"""Administration: nothing without credentials, nothing without a token, and what each act does."""

import re

import numpy as np
import pytest

from kbdfl.algorithms import FedBuff
from kbdfl.errors import ConfigError, DataError
from kbdfl.server import audit_log
from kbdfl.server.administration import PAUSE_S
from kbdfl.server.app import create_app
from kbdfl.server.credentials import Credentials, token_of
from kbdfl.server.serving import running

PASSWORD = "correct horse battery"


@pytest.fixture
def credentials(service):
    return Credentials(service.folder)


@pytest.fixture
def token(credentials):
    return credentials.new_token()


@pytest.fixture
def api(client, token):
    """Ask the API as an administrator."""

    def ask(method, path, **body):
        return client.open(
            f"/v1/admin/{path}",
            method=method,
            json=body or None,
            headers={"Authorization": f"Bearer {token}"},
        )

    return ask


@pytest.fixture
def log(service):
    return lambda: [entry["what"] for entry in audit_log.entries(service.administration.server.records)][::-1]


ADDRESSES = [
    ("GET", "/admin"),
    ("POST", "/admin/log-in"),
    ("POST", "/admin/task/stop"),
    ("GET", "/v1/admin/task"),
    ("POST", "/v1/admin/task/stop"),
    ("POST", "/v1/admin/tokens"),
    ("GET", "/v1/admin/tokens"),
    ("GET", "/v1/admin/audit-log"),
]


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
def test_without_an_administrator_there_are_no_such_addresses(client, problem, method, path):
    assert problem(client.open(path, method=method))["status"] == 404


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer x", "Basic x", "bearer é"])
def test_the_api_wants_the_token(client, token, problem, header, service, log):
    headers = {"Authorization": header} if header is not None else {}
    answer = client.post("/v1/admin/task/stop", headers=headers)
    assert problem(answer)["status"] == 401
    assert service.status()["state"] == "open"
    assert log() == ["round opened"]


def test_who_guesses_is_told_to_come_back_later(client, token, problem):
    answers = [client.get("/v1/admin/task", headers={"Authorization": "Bearer x"}) for _ in range(13)]
    refused = [answer.status_code for answer in answers].index(429)
    assert 10 <= refused <= 12  # as below
    assert {answer.status_code for answer in answers[:refused]} == {401}
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert "at most 10 per 1 minute logins are answered here" in problem(answers[-1])["detail"]


def test_a_new_token_ends_the_one_before(client, credentials, token):
    newer = credentials.new_token()
    status = {
        t: client.get("/v1/admin/task", headers={"Authorization": f"Bearer {t}"}).status_code
        for t in (token, newer)
    }
    assert status == {token: 401, newer: 200}


def test_an_operators_token_is_good_too(service, tmp_path):
    file = tmp_path / "token"
    file.write_text("an operator's secret\n")
    client = create_app(service, credentials=Credentials(service.folder, given=token_of(file))).test_client()
    headers = {"Authorization": "Bearer an operator's secret"}
    assert client.get("/v1/admin/task", headers=headers).status_code == 200
    assert client.get("/v1/admin/task", headers={"Authorization": "Bearer x"}).status_code == 401
    file.write_text("short")
    with pytest.raises(ConfigError, match="must hold one token of 12 characters"):
        token_of(file)


def test_hashes_are_kept_and_nobody_else_may_read_them(credentials, token):
    credentials.set_password(PASSWORD)
    text = credentials.path.read_text()
    assert token not in text
    assert PASSWORD not in text
    assert credentials.path.stat().st_mode & 0o777 == 0o600
    assert credentials.password_fits(PASSWORD)
    assert credentials.password_fits(token)
    assert not credentials.token_fits(PASSWORD)
    with pytest.raises(ConfigError, match="a password must have 12 to 1000 characters, got 5"):
        credentials.set_password("short")
    credentials.path.write_text("{")
    with pytest.raises(DataError, match=r"admin\.json is damaged"):
        _ = credentials.configured


def test_a_paused_task_selects_nobody_and_counts_what_is_on_its_way(phone, new_phone, service, api, log):
    assignment = phone.check_in()
    size = service.task.config.spec.size
    assert api("POST", "task/pause").json["state"] == "paused"
    answer = new_phone(phone.client).signed("POST", "/v1/check-in")
    assert answer.json == {"status": "wait", "retry_after_s": PAUSE_S}
    assert answer.headers["Retry-After"] == "30"
    frame = phone.frame(assignment, service.task.algorithm, size=size)
    assert phone.report(0, frame).json == {"accepted": True, "duplicate": False}
    assert api("POST", "task/pause").status_code == 409
    assert api("POST", "task/resume").json["state"] == "open"
    assert new_phone(phone.client).check_in()["status"] == "assigned"
    assert log() == ["round opened", "task paused", "task resumed"]


def test_a_stopped_task_says_that_all_is_over_and_a_restart_does_not_forget_it(
    make_service, service, api, new_phone
):
    assert api("POST", "task/stop").json["state"] == "stopped"
    service.close()
    again = make_service()
    phone = new_phone(create_app(again).test_client())
    assert phone.check_in() == {"status": "finished"}
    assert again.status()["state"] == "stopped"
    again.become("open", by="a test")
    assert phone.check_in()["status"] == "assigned"


def test_a_roll_back_abandons_the_round_and_goes_on_from_the_version_chosen(make_service, new_phone, problem):
    service = make_service(rounds=9)
    client = create_app(service).test_client()
    headers = {"Authorization": f"Bearer {Credentials(service.folder).new_token()}"}

    def roll_back(version):
        return client.post("/v1/admin/task/roll-back", json={"version": version}, headers=headers)

    phones = [new_phone(client) for _ in range(2)]
    for number in range(2):
        for phone in phones:
            phone.take_part(service, seed=number)
    wanted, state = service._store.model(1)
    assert not np.array_equal(wanted, service._coordinator.params)
    late = phones[0].frame(
        phones[0].check_in(), service.task.algorithm, size=service.task.config.spec.size, seed=7
    )
    assert problem(roll_back(2))["detail"] == "versions [1] are kept, not 2"
    assert problem(roll_back("1"))["detail"] == "version must be a whole number, got '1'"

    assert roll_back(1).json["version"] == 3
    np.testing.assert_array_equal(service._coordinator.params, wanted)
    for name, array in service._coordinator._server_state.items():
        np.testing.assert_array_equal(array, state[name])
    assert problem(phones[0].report(2, late))["status"] == 409
    rows, _ = service.metrics(0)
    assert [(row["status"], row["version"]) for row in rows] == [
        ("committed", 1),
        ("committed", 2),
        ("abandoned", 3),
    ]
    told = audit_log.entries(service.administration.server.records)[2::-1]
    assert [entry["what"] for entry in told] == ["roll back", "round abandoned", "round opened"]
    assert (told[0]["to"], told[0]["before"]) == (1, 2)

    for phone in phones:
        phone.take_part(service, seed=9)
    assert service.version == 4
    service.close()
    assert make_service(rounds=9).version == 4


@pytest.mark.parametrize("mode", [FedBuff(concurrency=4, max_staleness=3)])
def test_after_a_roll_back_nothing_counts_that_began_from_what_was_rolled_back(
    make_service, new_phone, problem, mode
):
    service = make_service(rounds=9, min_reports=0, mode=mode)
    client = create_app(service).test_client()
    one, two, slow = (new_phone(client) for _ in range(3))
    for number in range(2):
        one.take_part(service, seed=number)
        two.take_part(service, seed=number)
    assignment = slow.check_in()
    service.roll_back(1, by="a test")
    late = slow.frame(assignment, service.task.algorithm, size=service.task.config.spec.size)
    assert problem(slow.report(2, late))["status"] == 409
    assert slow.check_in()["version"] == 3


def test_tokens_let_devices_in_and_revoked_devices_are_refused(phone, service, api, log, problem):
    made = api("POST", "tokens", count=3).json["tokens"]
    assert len(set(made)) == 3
    assert api("GET", "task").json["devices"] == {"enrolled": 1, "revoked": 0, "unused_tokens": 3}
    assert problem(api("POST", "tokens", count=0))["status"] == 400
    assert problem(api("POST", "tokens", count="1"))["status"] == 400
    assert api("POST", f"devices/{phone.id}/revoke").json == {"device": phone.id, "revoked": True}
    for answer in (phone.signed("POST", "/v1/check-in"), phone.signed("GET", "/v1/models/0")):
        assert "was revoked" in problem(answer)["detail"]
        assert answer.status_code == 403
    assert problem(api("POST", "devices/nobody/revoke"))["status"] == 404
    assert log() == ["round opened", "tokens made", "device revoked"]


def test_rounds_are_listed_with_the_reasons_for_refusals(phone, play, new_phone, service, api):
    assignment, _ = play(phone)
    other = phone.frame(assignment, service.task.algorithm, size=service.task.config.spec.size, seed=9)
    phone.report(0, other)
    phone.report(0, b"rubbish")
    play(new_phone(phone.client))
    (row,) = api("GET", "rounds").json["rounds"]
    assert (row["what"], row["round"], row["reports"]) == ("round committed", 0, 2)
    assert row["reasons"] == {"late, not selected or a second one": 1, "not readable": 1}
    assert api("GET", "rounds?before=0").json == {"rounds": []}
    entries = api("GET", "audit-log").json["entries"]
    assert [entry["what"] for entry in entries] == ["round opened", "round committed", "round opened"]
    assert api("GET", "audit-log?before=2").json["entries"] == entries[2:]
    assert api("GET", "audit-log?before=-1").status_code == 400
    assert audit_log.verify(service.administration.server.records).entries == 3


def test_what_a_killed_server_could_not_write_down_is_written_by_the_next(
    make_service, phone, play, new_phone, service, monkeypatch
):
    other = new_phone(phone.client)
    monkeypatch.setattr(service.administration, "write_down", lambda: None)
    play(phone)
    play(other)
    service.close()
    again = make_service()
    entries = audit_log.entries(again.administration.server.records)[::-1]
    assert [(entry["what"], entry["round"]) for entry in entries] == [
        ("round opened", 0),
        ("round committed", 0),
        ("round opened", 1),
    ]
    assert audit_log.verify(again.administration.server.records).entries == 3


def form_token(page) -> str:
    return re.search(r'name="form_token" value="([0-9a-f]{64})"', page.text)[1]


@pytest.fixture
def logged_in(client, credentials):
    """A browser that an administrator has logged in with, and a way to send its forms."""
    credentials.set_password(PASSWORD)
    page = client.get("/admin")
    assert "Log in" in page.text
    answer = client.post("/admin/log-in", data={"password": PASSWORD, "form_token": form_token(page)})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin")
    token = form_token(client.get("/admin"))
    return lambda path, **fields: client.post(f"/admin/{path}", data={"form_token": token} | fields)


def test_a_session_cookie_is_for_this_site_and_no_script(client, credentials, service):
    credentials.set_password(PASSWORD)
    secure = create_app(service, secure_cookies=True).test_client()
    page = secure.get("/admin")
    answer = secure.post("/admin/log-in", data={"password": PASSWORD, "form_token": form_token(page)})
    cookie = answer.headers["Set-Cookie"]
    for attribute in ("HttpOnly", "SameSite=Strict", "Secure", "Path=/admin"):
        assert attribute in cookie
    page = client.get("/admin")
    assert "Secure" not in page.headers["Set-Cookie"]
    assert page.headers["Cache-Control"] == "no-store"
    policy = page.headers["Content-Security-Policy"]
    assert policy.count("form-action") == 1
    assert "form-action 'self'" in policy
    assert "frame-ancestors 'none'" in policy


def test_a_wrong_password_is_refused_and_after_ten_nobody_is_heard(client, credentials):
    credentials.set_password(PASSWORD)
    token = form_token(client.get("/admin"))
    data = {"password": "wrong", "form_token": token}
    answers = [client.post("/admin/log-in", data=data) for _ in range(13)]
    refused = [answer.status_code for answer in answers].index(429)
    assert 10 <= refused <= 12  # a minute of the clock may end meanwhile, which lets one or two more in
    assert {answer.status_code for answer in answers[:refused]} == {403}
    assert "that is not the password" in answers[0].text
    assert "Retry-After" in answers[-1].headers
    assert client.post("/admin/log-in", data=data | {"password": PASSWORD}).status_code == 429


@pytest.mark.parametrize("path", ["log-out", "task/stop", "task/roll-back", "tokens", "revoke", "log-in"])
def test_a_form_of_another_site_does_nothing(client, logged_in, service, path):
    for token in ("", "0" * 64, "é"):
        answer = client.post(f"/admin/{path}", data={"form_token": token, "password": PASSWORD, "count": "1"})
        assert answer.status_code == 403
        assert "the form is not of this session" in answer.text
    assert client.post(f"/admin/{path}").status_code == 403
    assert service.status()["state"] == "open"
    assert service.administration.server.registry.counts()["unused_tokens"] == 0
    assert "Log out" in client.get("/admin").text


def test_the_page_does_what_the_api_does(logged_in, client, service, phone, log):
    assert logged_in("task/pause").status_code == 303
    assert "Resume" in client.get("/admin").text
    assert logged_in("task/resume").status_code == 303
    made = logged_in("tokens", count="2")
    assert len(re.findall("^[0-9a-f]{32}$|>[0-9a-f]{32}$|^[0-9a-f]{32}<", made.text, re.MULTILINE)) == 2
    assert logged_in("revoke", device=phone.id).status_code == 303
    assert service.administration.server.registry.revoked(phone.id)
    for path, fields, wrong in (
        ("tokens", {"count": "x"}, "count must be a whole number"),
        ("task/roll-back", {"version": "7"}, "versions [] are kept, not 7"),
        ("revoke", {"device": ""}, "a device&#39;s id is needed"),
    ):
        answer = logged_in(path, **fields)
        assert answer.status_code in (400, 404)
        assert wrong in answer.text
    shown = re.sub("<[^>]+>", " ", client.get("/admin").text.split("<h2>Audit log</h2>")[1])
    assert "device revoked" in shown
    assert "round opened" not in shown
    assert logged_in("log-out").status_code == 303
    assert "Log in" in client.get("/admin").text
    assert logged_in("task/stop").status_code == 403
    assert log() == [
        "round opened",
        "logged in",
        "task paused",
        "task resumed",
        "tokens made",
        "device revoked",
    ]


def test_another_password_ends_all_sessions(logged_in, client, credentials):
    credentials.set_password("another long password")
    assert logged_in("task/stop").status_code == 403
    assert "Log in" in client.get("/admin").text


def test_the_page_shows_rounds_and_the_log(logged_in, client, phone, play, new_phone):
    play(phone)
    phone.report(0, b"rubbish")
    play(new_phone(client))
    text = client.get("/admin").text
    rounds, log = text.split("<h2>Audit log</h2>")
    assert "1 not readable" in rounds
    assert "committed" in rounds
    assert "logged in" in log
    assert "committed" not in log
    assert "<script" not in text.replace("<script src", "")


@pytest.mark.parametrize("size", [(1280, 900), (360, 780)], ids=["desktop", "phone"])
def test_an_administrator_works_in_a_browser(served, browser, size):
    service, _ = served
    Credentials(service.folder).set_password(PASSWORD)
    with running(create_app(service), max_body_bytes=service.task.max_report_bytes) as server:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        page, complaints = context.new_page(), []
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.set_default_timeout(30_000)
        page.goto(f"{server.url}/admin")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Resume").wait_for()
        assert service.status()["state"] == "paused"
        page.get_by_role("button", name="Stop").click()  # the box is not ticked
        assert service.status()["state"] == "paused"
        page.get_by_label("New tokens").fill("3")
        page.get_by_role("button", name="Make").click()
        assert len(page.locator(".tokens").inner_text().split()) == 3
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("button", name="Log in").wait_for()
        assert complaints == []
        context.close()
