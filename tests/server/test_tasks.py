"""Several tasks on one server: each has its rounds, its state and its addresses, and a phone finds its own."""

import json

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from kbdfl.errors import ConfigError
from kbdfl.identity import sign_request
from kbdfl.server import audit_log
from kbdfl.server.app import create_app
from kbdfl.server.backup import back_up, restore
from kbdfl.server.credentials import Credentials
from kbdfl.server.serving import running
from kbdfl.server.tasks import ServedTask, Tasks, check_name
from kbdfl.server.traffic import CLAIM
from tests.server.conftest import NOW

ONE = {"cohort": 1, "over_selection": 1.0, "rounds": 20}


@pytest.fixture
def two(make_tasks):
    """Tasks en and de, each for the population of its name, with models of different shape; and a client."""
    tasks = make_tasks(en=ONE, de=ONE | {"hidden": 9})
    return tasks, create_app(tasks).test_client()


@pytest.fixture
def shared(make_tasks):
    """Three tasks, two of them for the same phones; and a client."""
    tasks = make_tasks(
        words=ONE | {"population": "en"}, emoji=ONE | {"population": "en", "hidden": 9}, de=ONE
    )
    return tasks, create_app(tasks).test_client()


def spec_of(tasks, name) -> str:
    return tasks.find(name).service.task.config.spec.hash


def test_each_population_works_for_its_own_task_and_moves_no_other(two, new_phone):
    tasks, client = two
    phone = new_phone(client)
    assignment, _ = phone.take_part(tasks.find("de").service, population="de")
    assert (assignment["task"], assignment["base"], assignment["spec"]) == (
        "de",
        "/v1/tasks/de",
        spec_of(tasks, "de"),
    )
    assert [(task.name, task.service.round) for task in tasks] == [("en", 0), ("de", 1)]
    phone.take_part(tasks.find("en").service, population="en")
    assert [task.service.round for task in tasks] == [1, 1]
    assert client.get("/v1/tasks").json == {
        "tasks": [
            {
                "name": name,
                "population": name,
                "base": f"/v1/tasks/{name}",
                "state": "open",
                "round": 1,
                "rounds": 20,
                "version": 1,
            }
            for name in ("en", "de")
        ]
    }


def test_what_names_no_task_is_about_the_first(two, new_phone):
    tasks, client = two
    assert client.get("/v1/status").json["task"] == "en"
    assert client.get("/v1/tasks/en/status").json["task"] == "en"
    assert client.get("/v1/tasks/de/status").json["task"] == "de"
    assignment, _ = new_phone(client).take_part(tasks.first.service)
    assert assignment["task"] == "en"
    assert "base" not in assignment


def test_a_server_of_one_task_has_the_longer_addresses_too(client, service, phone):
    assert client.get("/v1/tasks").json["tasks"][0] == {
        "name": "default",
        "population": "default",
        "base": "/v1",
        "state": "open",
        "round": 0,
        "rounds": 3,
        "version": 0,
    }
    phone.base = "/v1/tasks/default"
    phone.take_part(service)
    assert phone.check_in("default") == {"status": "wait", "retry_after_s": pytest.approx(1, abs=5)}


@pytest.mark.parametrize(
    "path", ["/v1/tasks/fr/status", "/tasks/fr/", "/v1/tasks/../status", "/v1/tasks/%2e%2e/status"]
)
def test_an_address_of_no_task_is_nowhere(two, problem, path):
    assert problem(two[1].get(path))["status"] == 404


@pytest.mark.parametrize(
    ("path", "population", "status", "detail"),
    [
        ("/v1/check-in", "fr", 404, "no task is for the population 'fr'; there are de, en"),
        ("/v1/tasks/en/check-in", "de", 404, "en is for the population 'en', not 'de'"),
        ("/v1/check-in", "../en", 400, "population must be a population's name"),
        ("/v1/check-in", 3, 400, "population must be a population's name"),
    ],
)
def test_a_population_that_nobody_serves_is_refused_in_one_line(
    two, new_phone, problem, path, population, status, detail
):
    offer = json.dumps({"population": population}).encode()
    answer = new_phone(two[1]).signed("POST", path, offer, content_type="application/json")
    assert answer.status_code == status
    assert detail in problem(answer)["detail"]


def test_a_report_at_another_tasks_address_is_refused(two, new_phone, problem):
    tasks, client = two
    phone = new_phone(client)
    assignment = phone.check_in("de")
    de = tasks.find("de").service.task
    frame = phone.frame(assignment, de.algorithm, size=de.config.spec.size)
    phone.base = "/v1/tasks/en"
    assert "this server's task is en, the report is for de" in problem(phone.report(0, frame))["detail"]
    phone.base = "/v1/tasks/de"
    assert phone.report(0, frame).status_code == 200
    assert [task.service.round for task in tasks] == [0, 1]


def test_a_signature_for_one_tasks_address_is_none_for_anothers(two, new_phone, problem):
    _, client = two
    phone = new_phone(client)
    path = "/v1/tasks/en/check-in"
    headers = sign_request(phone.key, method="POST", path=path, body=b"", timestamp=NOW)
    assert problem(client.post("/v1/tasks/de/check-in", headers=headers))["status"] == 401
    assert problem(client.post("/v1/check-in", headers=headers))["status"] == 401
    assert client.post(path, headers=headers).json["status"] == "assigned"


def test_tasks_of_a_population_take_turns_and_a_phone_gets_the_part_that_it_has(shared, new_phone):
    tasks, client = shared
    phones = [new_phone(client) for _ in range(6)]
    given = []
    for phone in phones:
        first = phone.check_in("en")
        again = phone.check_in("en")
        assert again["task"] == first["task"]
        assert again["seed"] == first["seed"]
        given.append(first["task"])
        of = tasks.find(first["task"]).service.task
        assert phone.report(first["round"], phone.frame(first, of.algorithm, size=of.config.spec.size)).json[
            "accepted"
        ]
    assert given == ["words", "emoji"] * 3
    assert tasks.find("de").service.round == 0


def test_a_task_without_room_leaves_a_phone_to_the_other(shared, new_phone):
    _, client = shared
    phones = [new_phone(client) for _ in range(3)]
    answers = [phone.check_in("en") for phone in phones]
    assert [answer.get("task") for answer in answers] == ["words", "emoji", None]
    assert answers[2]["status"] == "wait"


def test_a_paused_task_is_passed_over_and_all_is_over_when_both_are(shared, new_phone):
    tasks, client = shared
    words, emoji = (tasks.find(name).service for name in ("words", "emoji"))
    words.become("paused", by="test")
    phone = new_phone(client)
    assert [phone.take_part(emoji, population="en")[0]["task"] for _ in range(2)] == ["emoji", "emoji"]
    emoji.become("stopped", by="test")
    assert phone.check_in("en")["status"] == "wait"  # the other may be resumed
    words.become("stopped", by="test")
    assert phone.check_in("en") == {"status": "finished"}
    assert new_phone(client).check_in("de")["status"] == "assigned"


def test_a_task_may_begin_paused_and_is_started(make_tasks, new_phone):
    tasks = make_tasks(en=ONE | {"begins": "paused"}, de=ONE)
    token = Credentials(tasks.folder).new_token()
    client = create_app(tasks).test_client()
    phone, bearer = new_phone(client), {"Authorization": f"Bearer {token}"}
    assert phone.check_in("en")["status"] == "wait"
    started = client.post("/v1/admin/tasks/en/start", headers=bearer)
    assert (started.json["state"], started.json["population"]) == ("open", "en")
    assert client.post("/v1/admin/tasks/en/start", headers=bearer).status_code == 409
    assert phone.check_in("en")["status"] == "assigned"
    client.post("/v1/admin/tasks/en/pause", headers=bearer)
    client.post("/v1/admin/tasks/en/resume", headers=bearer)
    told = [(entry["what"], entry["task"]) for entry in audit_log.entries(tasks.administration.records)][
        2::-1
    ]
    assert told == [("task started", "en"), ("task paused", "en"), ("task resumed", "en")]


def test_a_tasks_state_and_rounds_outlive_the_server(make_tasks, new_phone):
    given = {"en": ONE | {"begins": "paused"}, "de": ONE}
    tasks = make_tasks(**given)
    phone = new_phone(create_app(tasks).test_client())
    tasks.find("en").service.become("open", by="test")
    for _ in range(2):
        phone.take_part(tasks.find("en").service, population="en")
    phone.take_part(tasks.find("de").service, population="de")
    tasks.find("de").service.become("stopped", by="test")
    make_tasks.close()
    again = make_tasks(**given)
    assert [(task.state, task.service.round, task.service.version) for task in again] == [
        ("open", 2, 2),
        ("stopped", 1, 1),
    ]
    phone.client = create_app(again).test_client()
    phone.take_part(again.find("en").service, population="en")
    log = audit_log.entries(again.administration.records)
    opened = [(e["task"], e["round"]) for e in log if e["what"] == "round opened"][::-1]
    assert opened == [("en", 0), ("de", 0), ("en", 1), ("en", 2), ("de", 1), ("en", 3)]  # none of them twice


def test_rounds_and_reasons_are_told_task_by_task(two, new_phone):
    tasks, client = two
    bearer = {"Authorization": f"Bearer {Credentials(tasks.folder).new_token()}"}
    phone = new_phone(client)
    phone.check_in("de")
    assert phone.report(0, b"rubbish").status_code == 400
    phone.take_part(tasks.find("de").service, population="de")
    phone.take_part(tasks.find("en").service, population="en")

    def rounds(path):
        return [
            (r["task"], r["round"], r["reasons"]) for r in client.get(path, headers=bearer).json["rounds"]
        ]

    assert rounds("/v1/admin/tasks/de/rounds") == [("de", 0, {"not readable": 1})]
    assert rounds("/v1/admin/tasks/en/rounds") == rounds("/v1/admin/rounds") == [("en", 0, {})]
    assert [each["name"] for each in client.get("/v1/admin/tasks", headers=bearer).json["tasks"]] == [
        "en",
        "de",
    ]
    phone.take_part(tasks.find("de").service, population="de")
    back = client.post("/v1/admin/tasks/de/roll-back", json={"version": 1}, headers=bearer)
    assert (back.json["version"], back.json["round"]) == (3, 3)
    assert tasks.find("en").service.version == 1


def test_a_revoked_phone_is_refused_by_every_task(two, new_phone):
    tasks, client = two
    phone = new_phone(client)
    tasks.administration.revoke(phone.id, by="test")
    for name in ("en", "de"):
        assert phone.signed("POST", f"/v1/tasks/{name}/check-in").status_code == 403


def test_samples_name_their_task(two, new_phone):
    tasks, client = two
    phone = new_phone(client)
    phone.take_part(tasks.find("de").service, population="de")
    client.post("/v1/tasks/nowhere/rounds/0/report")
    text = client.get("/metrics").text
    families = list(text_string_to_metric_families(text))
    samples = {(s.name, *sorted(s.labels.values())): s.value for f in families for s in f.samples}
    assert text.count("# TYPE kbdfl_round gauge") == 1
    assert (samples["kbdfl_round", "de"], samples["kbdfl_round", "en"]) == (1, 0)
    assert samples["kbdfl_reports_total", "counted", "de"] == 1
    assert ("kbdfl_reports_total", "counted", "en") not in samples
    assert samples["kbdfl_check_ins_total", "assigned", "de"] == 1
    assert samples["kbdfl_reports_total", "none", "not_found"] == 1  # whatever name was asked for


def test_a_phones_bytes_are_counted_in_the_task_that_it_works_for(two, new_phone):
    tasks, client = two
    claimed = []

    def claim(device):
        claimed.append(device)
        tasks.traffic.add(device, up=100, down=10)

    phone = new_phone(client)
    offer = json.dumps({"population": "de"}).encode()
    more = {"content_type": "application/json", "environ_overrides": {CLAIM: claim}}
    assert phone.signed("POST", "/v1/check-in", offer, **more).status_code == 200
    phone.signed("GET", "/v1/tasks/de/models/0", environ_overrides={CLAIM: claim})
    phone.signed("GET", "/v1/tasks/en/models/0", environ_overrides={CLAIM: claim})
    assert claimed == [f"de/{phone.id}", f"de/{phone.id}", f"en/{phone.id}"]
    tasks.traffic.add("", up=7)
    assert tasks.find("de").service.traffic.take() == {phone.id: (200, 20)}
    assert tasks.find("en").service.traffic.take() == {phone.id: (100, 10), "": (7, 0)}


def test_a_backup_holds_every_task_and_goes_on_with_each(two, make_tasks, new_phone, tmp_path):
    tasks, client = two
    phone = new_phone(client)
    phone.take_part(tasks.find("de").service, population="de")
    phone.take_part(tasks.find("de").service, population="de")
    (tasks.folder / "config.toml").write_text("[tasks]\n")
    facts = back_up(tasks.folder, tmp_path / "backup.tar.gz").facts
    assert facts["tasks"] == {"de": {"round": 1, "version": 2}, "en": {"round": None, "version": None}}
    make_tasks.close()
    manifest = restore(tmp_path / "backup.tar.gz", tmp_path / "restored")
    assert {
        "config.toml",
        "server.sqlite3",
        "tasks/en/server.sqlite3",
        "tasks/de/checkpoints/000002.safetensors",
    } <= (manifest.files.keys())
    again = make_tasks(folder=tmp_path / "restored", en=ONE, de=ONE | {"hidden": 9})
    assert [task.service.round for task in again] == [0, 2]
    phone.client = create_app(again).test_client()
    phone.take_part(again.find("de").service, population="de")
    assert audit_log.verify(again.administration.records).entries > 3


@pytest.mark.parametrize("name", ["", "En", "a" * 41, "-a", "a-", "a/b", "..", ".", "a b", "a\n", "ä", 3])
def test_a_name_that_could_be_a_path_or_a_mistake_is_refused(name, service):
    with pytest.raises(ConfigError, match="must be called by 1 to 40 lowercase letters, digits and hyphens"):
        check_name("task", name)
    with pytest.raises(ConfigError):
        ServedTask("en", name, service)


def test_two_tasks_of_one_name_are_refused(service, tmp_path):
    with pytest.raises(ConfigError, match="tasks must have different names, got en, en"):
        Tasks([ServedTask("en", "a", service), ServedTask("en", "b", service)], folder=tmp_path)
    with pytest.raises(ConfigError, match="a server must have a task"):
        Tasks([], folder=tmp_path)


def test_bytes_at_a_socket_are_counted_by_task(two, new_phone):
    tasks, client = two
    phone, path = new_phone(client), "/v1/tasks/de/models/0"
    headers = sign_request(phone.key, method="GET", path=path, body=b"", timestamp=NOW)
    with running(create_app(tasks), traffic=tasks.traffic) as server:
        answer = urllib3.request("GET", server.url + path, headers=headers)
        assert answer.status == 200
    crossed = tasks.find("de").service.traffic.take()
    assert crossed.keys() == {phone.id}
    assert crossed[phone.id][1] > len(answer.data)
    assert tasks.first.service.traffic.total == (0, 0)
