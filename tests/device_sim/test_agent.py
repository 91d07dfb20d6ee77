"""One phone against a real server, and against servers that are not there, lie or answer rubbish."""

import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule, Download, FedBuff
from kbdfl.codec.grid import Grid
from kbdfl.device_sim import agent
from kbdfl.device_sim.agent import Phone, ServerClient, wait_for_vocabulary
from kbdfl.device_sim.control import ControlStore
from kbdfl.device_sim.runtime import Budget
from kbdfl.device_sim.store import TypingLog
from kbdfl.device_sim.taken import Taken
from kbdfl.downlink import Held
from kbdfl.errors import KbdflError, ModelError, ServerUnavailable, WireError
from kbdfl.kernels.train import Workspace
from kbdfl.privacy import Parts, Privacy
from kbdfl.wire import decode_model, encode_model


@pytest.fixture
def log(texts):
    log = TypingLog()
    log.extend(texts.messages(texts.users()[0]))
    return log


@pytest.fixture
def new_phone(log):
    def make(url, **options):
        client = ServerClient(url)
        return Phone(client, log, wait_for_vocabulary(client), **options)

    return make


def cycle(phone, **options):
    return phone.cycle(workspace=Workspace(), **options)


@pytest.mark.parametrize(("options", "tier"), [({}, ""), ({"tier": "flagship"}, "flagship")])
def test_a_phone_states_its_tier_as_it_checks_in(served, new_phone, monkeypatch, options, tier):
    with served(cohort=2) as (service, url):
        stated = []

        def check_in(device, *, tier, again, _check_in=service.check_in):
            stated.append(tier)
            return _check_in(device, tier=tier, again=again)

        monkeypatch.setattr(service, "check_in", check_in)
        assert cycle(new_phone(url, **options)).outcome == "reported"
        assert stated == [tier]


def test_a_phone_reports_waits_and_is_told_the_end(served, new_phone):
    with served(cohort=2, over_selection=1.0, rounds=1) as (service, url):
        one, two = new_phone(url), new_phone(url)
        first = cycle(one)
        assert first.outcome == "reported"
        assert first.uplink_bytes > 1000
        assert first.downlink_bytes > 4 * service.task.config.spec.size
        waiting = cycle(one)
        assert waiting.outcome == "wait"
        assert 0 < waiting.retry_after_s < 1
        second = cycle(two)
        assert second.outcome == "reported"
        assert cycle(one).outcome == cycle(two).outcome == "finished"
        totals = service.status()["totals"]
        assert (totals["committed"], totals["reports"], totals["dropped"]) == (1, 2, 0)
        assert totals["uplink_bytes"] == first.uplink_bytes + second.uplink_bytes
        assert totals["downlink_bytes"] == first.downlink_bytes + second.downlink_bytes


def test_devices_have_keys_of_their_own(served, new_phone):
    with served() as (service, url):
        devices = {new_phone(url).device for _ in range(3)}
        assert len(devices) == 3
        assert service.status()["phones"]["enrolled"] == 3


def test_the_same_bytes_again_are_acknowledged_and_counted_once(served, new_phone):
    with served(cohort=2) as (service, url):
        phone = new_phone(url)
        sent = []
        signed = phone._client.signed

        def twice(key, method, path, **options):
            answer = signed(key, method, path, **options)
            if path.endswith("/report"):
                sent.append((json.loads(answer), json.loads(signed(key, method, path, **options))))
            return answer

        phone._client.signed = twice
        assert cycle(phone).outcome == "reported"
        assert sent == [({"accepted": True, "duplicate": False}, {"accepted": True, "duplicate": True})]
        assert service.status()["phones"]["reported"] == 1


def test_a_phone_that_vanished_stays_out_of_its_round(served, new_phone):
    with served(cohort=1, over_selection=2.0, rounds=2) as (service, url):
        gone, other = new_phone(url), new_phone(url)
        vanished = cycle(gone, drops=lambda _: True)
        assert vanished.outcome == "dropped"
        assert vanished.downlink_bytes > 0
        assert vanished.uplink_bytes == 0
        again = cycle(gone)
        assert (again.outcome, again.downlink_bytes) == ("wait", 0)
        assert again.retry_after_s > 0
        assert cycle(other).outcome == "reported"
        assert service.metrics(0)[0][0]["dropped"] == 1
        assert cycle(gone).outcome == "reported"  # the next round


def test_a_phone_that_vanished_from_an_asynchronous_round_is_back_after_its_deadline(served, new_phone):
    """Such a round has no deadline of its own: were the phone out of it for good, nobody might be left."""
    mode = FedBuff(concurrency=2)
    with served(cohort=1, rounds=1, deadline_s=1.5, mode=mode) as (service, url):
        phone = new_phone(url)
        assert cycle(phone, drops=lambda _: True).outcome == "dropped"
        assert cycle(phone).outcome == "wait"
        time.sleep(1.6)
        assert cycle(phone).outcome == "reported"
        row = service.metrics(0)[0][0]
        assert (row["reports"], row["dropped"], row["staleness"]) == (1, 1, 0)


def test_a_phone_whose_base_became_too_old_is_late_and_begins_again(served, new_phone):
    mode = FedBuff(concurrency=2, max_staleness=0)
    with served(cohort=1, rounds=3, mode=mode) as (service, url):
        slow, fast = new_phone(url), new_phone(url)
        late = cycle(slow, drops=lambda _: cycle(fast) is None)
        assert late.outcome == "late"
        assert "staleness must be at most 0" in late.detail
        assert cycle(slow).outcome == "reported"
        rows, _ = service.metrics(0)
        assert [(row["reports"], row["refused"], row["dropped"]) for row in rows] == [(1, 0, 0), (1, 1, 1)]


def test_a_phone_without_the_memory_declines_and_is_left_alone_for_the_round(served, new_phone):
    with served() as (_, url):
        phone = new_phone(url, budget=Budget(memory_bytes=100_000))
        declined = cycle(phone)
        assert declined.outcome == "declined"
        assert "this phone allows 100000" in declined.detail
        assert cycle(phone).outcome == "wait"


def test_a_phone_that_diverges_declines(served, new_phone):
    with served(client=ClientRule(learning_rate=1e30, clip_norm=0.0, batch_size=1)) as (service, url):
        cycled = cycle(new_phone(url))
        assert cycled.outcome == "declined"
        assert "diverged" in cycled.detail
        assert service.status()["phones"]["reported"] == 0


def test_a_phone_with_nothing_to_learn_declines(served):
    with served() as (_, url):
        client = ServerClient(url)
        log = TypingLog()
        assert cycle(Phone(client, log, wait_for_vocabulary(client))).outcome == "declined"


def test_a_report_after_its_round_is_late_and_counts_nowhere(served, new_phone):
    with served(cohort=1, over_selection=2.0, rounds=3) as (service, url):
        slow, fast = new_phone(url), new_phone(url)
        late = cycle(slow, drops=lambda _: cycle(fast) is None)  # the other one ends the round meanwhile
        assert late.outcome == "late"
        assert late.detail
        row = service.metrics(0)[0][0]
        assert (row["reports"], row["dropped"]) == (1, 1)


def test_scaffold_over_http_keeps_the_mean_of_the_phones_control_variates(served, new_phone):
    rule = ClientRule(learning_rate=1.0, scaffold=2)
    with served(cohort=2, over_selection=1.0, rounds=3, client=rule) as (service, url):
        phones = [(new_phone(url, controls=store), store) for store in (ControlStore(), ControlStore())]
        rounds = [[cycle(phone) for phone, _ in phones] for _ in range(3)]
        assert {one.outcome for cycles in rounds for one in cycles} == {"reported"}
        model = rounds[0][0].downlink_bytes
        assert rounds[1][0].downlink_bytes == pytest.approx(2 * model, rel=0.01)  # c is as long
        mean = np.mean([store.kept.values for _, store in phones], axis=0)
        np.testing.assert_allclose(service._coordinator.control, mean, rtol=1e-4, atol=1e-7)
        saved = service._store.load()
        np.testing.assert_array_equal(saved.server_state["control"], service._coordinator.control)


@pytest.mark.parametrize("partial", [True, False])
def test_a_phone_asked_for_partial_work_stays_within_the_rounds_time(served, new_phone, monkeypatch, partial):
    budgets, train = [], agent.train

    def spied(*arguments, budget, **options):
        budgets.append(budget)
        return train(*arguments, budget=budget, **options)

    monkeypatch.setattr(agent, "train", spied)
    with served(deadline_s=30.0, client=ClientRule(partial_work=partial)) as (_, url):
        assert cycle(new_phone(url)).outcome == "reported"
    (budget,) = budgets
    assert 0 < budget.time_s < 30 if partial else budget.time_s == 0


def test_a_late_report_leaves_the_control_variate_as_it_was(served, new_phone):
    rule = ClientRule(learning_rate=1.0, scaffold=2)
    with served(cohort=1, over_selection=2.0, rounds=3, client=rule) as (_, url):
        store = ControlStore()
        slow, fast = new_phone(url, controls=store), new_phone(url)
        assert cycle(slow, drops=lambda _: cycle(fast) is None).outcome == "late"
        assert store.kept is None
        assert cycle(slow).outcome == "reported"
        assert store.kept.round == 1


def test_a_task_without_scaffold_serves_no_control_variate(served, new_phone):
    with served() as (_, url):
        phone = new_phone(url)
        with pytest.raises(WireError, match="keeps no control variates"):
            phone._client.signed(phone._key, "GET", "/v1/models/0/control")


class Between:
    """WSGI middleware that alters every model on the way."""

    def __init__(self, app, alter):
        self.app, self.alter = app, alter

    def __call__(self, environ, start_response):
        if not (environ["PATH_INFO"].startswith("/v1/models/") and environ["PATH_INFO"][11:].isdigit()):
            return self.app(environ, start_response)
        started = []
        body = b"".join(self.app(environ, lambda *head: started.append(head)))
        status, headers = started[0][:2]
        body = self.alter(body)
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]


def flip(body):
    changed = bytearray(body)
    changed[-100] ^= 1
    return bytes(changed)


def poison(body):
    params, version, spec_hash = decode_model(body, max_bytes=len(body))
    return encode_model(params + np.float32(1e-6), version=version, spec_hash=spec_hash)


def another_version(body):
    params, version, spec_hash = decode_model(body, max_bytes=len(body))
    return encode_model(params, version=version + 1, spec_hash=spec_hash)


@pytest.mark.parametrize(
    ("alter", "error", "reason"),
    [
        (flip, WireError, "checksum"),
        (lambda body: body[:-1], WireError, "bytes"),
        (lambda body: b"", WireError, "frame"),
        (poison, ModelError, "sha256"),
        (another_version, WireError, "was assigned"),
    ],
    ids=["a bit flipped", "cut", "nothing", "another model in a sound frame", "another version"],
)
def test_a_model_altered_on_the_way_is_refused(served, new_phone, alter, error, reason):
    with served(wrap=lambda app: Between(app, alter)) as (service, url):
        phone = new_phone(url)
        with pytest.raises(error, match=reason):
            cycle(phone)
        assert service.status()["phones"]["reported"] == 0


# servers that are none


@pytest.fixture
def impostor():
    """A server that answers every request with the same status, headers and body; gives its address."""
    servers = []

    def start(body=b"", *, status=200, answers=None, **headers):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0]
                content = (answers or {}).get(path, body)
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def one_line(error):
    text = str(error.value)
    assert text
    assert "\n" not in text
    assert len(text) < 500
    return text


def test_nobody_listening_is_one_line(monkeypatch):
    monkeypatch.setattr(agent, "_RETRY", agent._RETRY.new(backoff_factor=0))
    with pytest.raises(ServerUnavailable, match="is `kbdfl serve` running there") as error:
        ServerClient("http://127.0.0.1:9").get("/healthz")
    one_line(error)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://x",
        "file:///etc/passwd",
        "http://",
        "http://[::1",
        "http://127.0.0.1:99999",
    ],
)
def test_addresses_that_are_none_are_refused(monkeypatch, url):
    monkeypatch.setattr(agent, "_RETRY", agent._RETRY.new(total=0))
    with pytest.raises(ServerUnavailable) as error:
        ServerClient(url).get("/healthz")
    one_line(error)


RUBBISH = {
    "html": b"<html><body>It works!</body></html>",
    "nothing": b"",
    "half of JSON": b'{"device": ',
    "not UTF-8": b'{"device": "\xff"}',
    "a list": [],
    "null": None,
    "deep": b"[" * 100_000,
    "someone else": {"device": "0" * 16},
    "a long number": b"[" + b"9" * 10_000 + b"]",
}


@pytest.mark.parametrize("name", RUBBISH)
def test_a_server_that_enrols_with_rubbish_is_one_line(impostor, log, vocabulary, name):
    client = ServerClient(impostor(RUBBISH[name]))
    with pytest.raises(KbdflError) as error:
        Phone(client, log, vocabulary)
    one_line(error)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"\xff\xfe", b""])
def test_a_vocabulary_that_is_none_is_one_line(impostor, body):
    with pytest.raises(KbdflError) as error:
        wait_for_vocabulary(ServerClient(impostor(body)), timeout_s=0)
    one_line(error)


def test_a_vocabulary_that_does_not_come_is_one_line(impostor):
    with pytest.raises(ServerUnavailable, match="has no vocabulary to give") as error:
        wait_for_vocabulary(ServerClient(impostor(b"no", status=404)), timeout_s=0)
    one_line(error)


def whole(assignment, **changes):
    document = assignment.to_json() | {"status": "assigned"} | changes
    return {name: value for name, value in document.items() if value is not ...}


CHECK_INS = {
    "a list": lambda a: [],
    "no status": lambda a: {"hello": "you"},
    "unknown status": lambda a: {"status": "explode"},
    "a status that is none": lambda a: {"status": ["assigned"]},
    "wait, but not how long": lambda a: {"status": "wait"},
    "wait for ever": lambda a: {"status": "wait", "retry_after_s": 1e12},
    "wait for nan": lambda a: {"status": "wait", "retry_after_s": float("nan")},
    "wait for words": lambda a: {"status": "wait", "retry_after_s": "soon"},
    "wait for a list": lambda a: {"status": "wait", "retry_after_s": [1]},
    "wait backwards": lambda a: {"status": "wait", "retry_after_s": -1},
    "an empty assignment": lambda a: {"status": "assigned"},
    "a field too many": lambda a: whole(a, more=1),
    "a field missing": lambda a: whole(a, seed=...),
    "a round in words": lambda a: whole(a, round="three"),
    "a shape of another kind": lambda a: whole(a, config=[1, 2, 3]),
    "an impossible shape": lambda a: whole(a, config={"vocab": 1, "embed": 0, "hidden": 0}),
    "a shape without end": lambda a: whole(a, config={"vocab": 10**30, "embed": 10**30, "hidden": 10**30}),
    "an impossible client": lambda a: whole(a, client=a.to_json()["client"] | {"epochs": 0}),
    "an unknown upload": lambda a: whole(a, upload="carrier pigeon"),
    "a negative clip": lambda a: whole(a, update_clip_norm=-1.0),
    "a negative round": lambda a: whole(a, round=-1),
    "a task without a name": lambda a: whole(a, task=""),
}


@pytest.mark.parametrize("name", CHECK_INS)
def test_a_check_in_answered_with_rubbish_is_one_line(impostor, log, vocabulary, params, assignment, name):
    """The model itself is sound, so whatever is odd about the assignment is what stops the phone."""
    model = encode_model(params, version=assignment.version, spec_hash=assignment.spec)
    answers = {"/v1/check-in": CHECK_INS[name](assignment), f"/v1/models/{assignment.version}": model}
    client = ServerClient(impostor(answers=answers))
    client.enrol = lambda public_key, token: "ann"
    with pytest.raises(KbdflError) as error:
        cycle(Phone(client, log, vocabulary))
    one_line(error)


def test_an_assignment_of_endless_epochs_is_declined_at_once(impostor, log, vocabulary, params, assignment):
    model = encode_model(params, version=assignment.version, spec_hash=assignment.spec)
    endless = whole(assignment, client=assignment.to_json()["client"] | {"epochs": 10**12})
    answers = {"/v1/check-in": endless, f"/v1/models/{assignment.version}": model}
    client = ServerClient(impostor(answers=answers))
    client.enrol = lambda public_key, token: "ann"
    started = time.monotonic()
    assert cycle(Phone(client, log, vocabulary)).outcome == "declined"
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, {"detail": "the frame is damaged"}, "refused .400.: the frame is damaged"),
        (401, {"detail": "not enrolled"}, "refused .401.: not enrolled"),
        (404, b"<html>nothing here</html>", "refused .404.: Not Found"),
        (409, {"detail": "round 4 is open"}, "round 4 is open"),
        (410, {"detail": "gone"}, "gone"),
        (500, ["no", "problem"], "refused .500.: Internal Server Error"),
        (418, b"[" * 5000, "refused .418."),
    ],
)
def test_a_refusal_is_told_with_the_servers_reason(impostor, status, body, reason):
    with pytest.raises(KbdflError, match=reason) as error:
        ServerClient(impostor(body, status=status)).get("/v1/status")
    one_line(error)


def test_a_busy_server_is_asked_again_and_then_unavailable(impostor, monkeypatch):
    monkeypatch.setattr(agent, "_RETRY", agent._RETRY.new(backoff_factor=0))
    with pytest.raises(ServerUnavailable, match="full"):
        ServerClient(impostor({"detail": "full"}, status=503)).get("/v1/status")


def test_json_larger_than_a_mebibyte_is_read_whole(impostor):
    """The rounds of a long run are: about 350 bytes each."""
    rows = [{"round": number, "padding": "x" * 300} for number in range(5_000)]
    assert ServerClient(impostor({"rounds": rows})).get_json("/v1/metrics") == {"rounds": rows}


def test_a_body_of_json_without_end_is_refused(impostor, monkeypatch):
    monkeypatch.setattr(agent, "_MAX_JSON_BYTES", 10)
    with pytest.raises(ServerUnavailable, match="must be at most 10 bytes"):
        ServerClient(impostor({"a": "long answer"})).get_json("/v1/status")


def breaking_off(app, *, after, times):
    """The application behind a network that breaks off a model's body `after` bytes, `times` times; what was asked."""
    asked = []

    def broken(environ, start_response):
        if not environ["PATH_INFO"].startswith("/v1/models/") or "tokenizer" in environ["PATH_INFO"]:
            return app(environ, start_response)
        asked.append((environ.get("HTTP_RANGE"), environ.get("HTTP_IF_RANGE")))
        body = b"".join(app(environ, start_response))
        return [body[:after] if len(asked) <= times else body]

    return broken, asked


def test_a_download_that_breaks_off_goes_on_where_it_was(served, new_phone):
    spied = []

    def wrap(app):
        broken, asked = breaking_off(app, after=700, times=2)
        spied.append(asked)
        return broken

    with served(cohort=1, over_selection=1.0, rounds=1, wrap=wrap) as (service, url):
        whole = len(service.model(0).content)
        done = cycle(new_phone(url))
        assert (done.outcome, done.downlink_bytes) == ("reported", whole)
        ((none, _), (first, tag), (second, same_tag)) = spied[0]
        assert (none, first, second) == (None, "bytes=700-", "bytes=1400-")
        assert tag == same_tag
        assert tag.strip('"')


def test_a_download_that_always_breaks_off_is_given_up(served, new_phone):
    with served(wrap=lambda app: breaking_off(app, after=10, times=99)[0]) as (_, url):
        phone = new_phone(url)
        with pytest.raises(ServerUnavailable, match="/v1/models/0 broke off 5 times in a row"):
            cycle(phone)


def test_a_body_that_changed_on_the_way_is_fetched_anew(served, new_phone):
    """Another tag at the second attempt: what came before is thrown away."""

    def wrap(app):
        broken, _ = breaking_off(app, after=700, times=1)

        def changing(environ, start_response):
            if environ.get("HTTP_IF_RANGE"):
                environ["HTTP_IF_RANGE"] = '"it was another"'
            return broken(environ, start_response)

        return changing

    with served(wrap=wrap) as (_, url):
        assert cycle(new_phone(url)).outcome == "reported"


def test_a_phone_that_holds_another_model_under_the_same_version_fetches_it_anew(served, new_phone):
    """As after a server's folder was put back: the difference it is sent begins from what it does not hold."""
    algorithm = Algorithm(client=ClientRule(batch_size=4, learning_rate=1.0), download=Download("grid"))
    with served(algorithm=algorithm, cohort=1, over_selection=1.0, rounds=5) as (_, url):
        phone = new_phone(url)
        assert cycle(phone).outcome == "reported"
        work = phone._works.at("/v1")
        task, held = work.held
        levels = held.grid.levels.copy()
        levels[:5] = 3 - levels[:5] // 2
        work.held = task, Held(held.version, Grid(levels, held.grid.exponents))
        with pytest.raises(ModelError, match="sha256"):
            cycle(phone)
        assert work.held is None
        assert cycle(phone).outcome == "reported"


def test_a_part_of_another_body_or_place_is_refused(served, new_phone):
    def wrap(app):
        broken, _ = breaking_off(app, after=700, times=1)

        def lying(environ, start_response):
            def start(status, headers, *more):
                if status.startswith("206"):
                    headers = [(k, "bytes 0-9/10" if k == "Content-Range" else v) for k, v in headers]
                return start_response(status, headers, *more)

            return broken(environ, start)

        return lying

    with served(wrap=wrap) as (_, url):
        phone = new_phone(url)
        with pytest.raises(WireError, match="another range or body than asked for"):
            cycle(phone)


def test_a_phone_declines_a_part_that_privacy_does_not_allow(impostor, log, vocabulary, params, assignment):
    """A server that forgot the phone asks it again, two versions later, where one part in five was promised."""
    taken = Taken(kept={assignment.task: Parts(1, assignment.version - 2)})
    promised = replace(assignment, separation=5, participations=9)
    model = encode_model(params, version=promised.version, spec_hash=promised.spec)
    answers = {"/v1/check-in": whole(promised), f"/v1/models/{promised.version}": model}
    client = ServerClient(impostor(answers=answers))
    client.enrol = lambda public_key, token: "ann"
    declined = cycle(Phone(client, log, vocabulary, taken=taken))
    assert declined.outcome == "declined"
    assert "one part in 5 versions" in declined.detail
    assert taken.kept[assignment.task].count == 1


def test_a_phone_refuses_a_server_that_forgot_its_part_though_it_was_started_again(served, log, tmp_path):
    """Promised is one part, over HTTP: a server that lost its books asks for another, and gets nothing."""
    algorithm = Algorithm(
        client=ClientRule(learning_rate=1.0),
        upload="float32",
        update_clip_norm=1.0,
        weights="uniform",
        privacy=Privacy("gaussian", noise_multiplier=1.0, participations=1),
    )
    with served(cohort=1, over_selection=1.0, rounds=3, algorithm=algorithm) as (service, url):
        client, kept = ServerClient(url), tmp_path / "phones" / "ann.json"
        words = wait_for_vocabulary(client)
        assert cycle(Phone(client, log, words, taken=Taken(path=kept))).outcome == "reported"
        # The same person's phone, whose key the server does not know, so that it may count it again.
        again = Phone(client, log, words, taken=Taken(path=kept))
        declined = cycle(again)
        assert (declined.outcome, declined.uplink_bytes) == ("declined", 0)
        assert "at most 1 part, and this phone has 1 part, " in declined.detail
        assert service.status()["totals"]["reports"] == 1
        assert (
            cycle(Phone(client, log, words)).outcome == "wait"
        )  # the place is that phone's until the deadline
