"""Several server processes on one task in PostgreSQL. Here each is a service of its own on a folder of its own."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from kbdfl.algorithms.mode import FedBuff
from kbdfl.algorithms.robust import Median
from kbdfl.coordinator import Coordinator
from kbdfl.errors import ConfigError, Forbidden, ServerUnavailable
from kbdfl.identity import public_key, sign_request
from kbdfl.model import init_params
from kbdfl.params import digest
from kbdfl.server import audit_log
from kbdfl.server.app import create_app
from kbdfl.server.postgres.address import Address
from kbdfl.server.postgres.store import PostgresStore
from kbdfl.server.service import TaskService
from tests.server.conftest import NOW, make_task

BY = "a test"


@pytest.fixture
def server(tmp_path, vocabulary, postgres):
    """One more server of the same task; all are closed at the end."""
    services = []

    def begin(*, task=None, background=None, **rule):
        task = task or make_task(vocabulary, **rule)
        store = PostgresStore(
            tmp_path / f"server {len(services)}", task.config.spec, address=Address(postgres)
        )
        coordinator = Coordinator(
            task, init_params(task.config, seed=1), store=store, random=np.random.default_rng(1)
        )
        try:
            service = TaskService(coordinator, store, background=background, wall_clock=lambda: NOW)
        except BaseException:
            store.close()
            raise
        services.append(service)
        service.start()
        return service

    yield begin
    for service in services:
        service.close()


@pytest.fixture
def two(server, new_phone):
    """Two servers, clients of them, and three phones that enrolled at the first."""

    def begin(**rule):
        servers = [server(**rule) for _ in range(2)]
        clients = [create_app(each).test_client() for each in servers]
        return servers, clients, [new_phone(clients[0]) for _ in range(3)]

    return begin


def report(phone, service, assignment, *, seed=0):
    task = service.task
    frame = phone.frame(assignment, task.algorithm, size=task.config.spec.size, seed=seed)
    return phone.report(assignment["round"], frame), frame


def test_a_phone_may_go_to_another_server_at_each_step(two):
    servers, clients, phones = two()
    for phone in phones[:2]:
        phone.client = clients[0]
        assignment = phone.check_in()
        phone.client = clients[1]
        answer = phone.signed("GET", f"/v1/models/{assignment['version']}")
        assert answer.status_code == 200
        answer, _ = report(phone, servers[1], assignment)
        assert answer.json == {"accepted": True, "duplicate": False}
    for each in servers:
        status = each.status()
        assert (status["round"], status["version"], status["totals"]["reports"]) == (1, 1, 2)
    assert digest(servers[0]._coordinator.params) == digest(servers[1]._coordinator.params)


MODES = {"rounds of a cohort": {}, "asynchronous": {"mode": FedBuff(concurrency=3), "min_reports": 0}}


@pytest.mark.parametrize("rule", MODES.values(), ids=MODES)
def test_what_each_has_summed_adds_up_to_the_bits_of_one_server(two, make_service, rule):
    servers, clients, phones = two(**rule)
    alone = make_service(**rule)
    client = create_app(alone).test_client()
    for number in range(3):
        for at, phone in enumerate(phones[:2]):
            phone.client = clients[at]
            assignment = phone.check_in()
            assert assignment["round"] == number
            answer, _ = report(phone, servers[at], assignment, seed=number)
            assert answer.status_code == 200, answer.json
    for phone in phones[:2]:
        phone.client = client
        phone.enrol()
    for number in range(3):
        for phone in phones[:2]:
            phone.take_part(alone, seed=number)
    wanted = digest(alone._coordinator.params)
    for each in servers:
        each.tick()
        assert digest(each._coordinator.params) == wanted
        rows, _ = each.metrics(0)
        assert [row["reports"] for row in rows] == [2, 2, 2]
        assert [row["tokens"] for row in rows] == [80, 80, 80]


def test_what_was_acknowledged_at_one_server_is_known_at_another_and_after_it_is_gone(two, server):
    servers, clients, phones = two()
    assignment = phones[0].check_in()
    answer, frame = report(phones[0], servers[0], assignment)
    assert answer.json == {"accepted": True, "duplicate": False}
    phones[0].client = clients[1]
    assert phones[0].report(assignment["round"], frame).json == {"accepted": True, "duplicate": True}
    phones[1].client = clients[1]
    other = phones[1].check_in()
    servers[0]._turn._link.close()  # as if it were killed: its row of sums stays
    third = server()
    phones[1].client = create_app(third).test_client()
    answer, _ = report(phones[1], third, other)
    assert answer.status_code == 200
    (row,), _ = third.metrics(0)
    assert (row["reports"], row["status"]) == (2, "committed")


def test_a_round_closes_once_at_its_deadline(two):
    servers, clients, phones = two(deadline_s=0.4)
    assert report(phones[0], servers[0], phones[0].check_in())[0].status_code == 200
    phones[1].client = clients[1]
    phones[1].check_in()
    for each in servers:
        assert wait_for(lambda each=each: each.status()["round"] >= 1)
    (row,), _ = servers[0].metrics(0)
    assert (row["round"], row["status"], row["reports"], row["dropped"]) == (0, "committed", 1, 1)
    closed = servers[1].administration.closed_rounds()
    assert [entry["round"] for entry in closed] == [0]
    assert audit_log.verify(servers[0].administration.server.records).entries == 3


def test_a_request_that_came_to_one_server_is_not_new_to_another(two):
    servers, clients, phones = two()
    headers = sign_request(phones[0].key, method="POST", path="/v1/check-in", body=b"", timestamp=NOW)
    first = clients[0].post("/v1/check-in", headers=headers)
    assert first.json["status"] == "assigned"
    answer, _ = report(phones[0], servers[0], first.json)
    assert answer.status_code == 200
    report(phones[1], servers[0], phones[1].check_in())
    again = clients[1].post("/v1/check-in", headers=headers)  # a new round is open, and this is a replay
    assert (again.status_code, again.json["status"]) == (200, "wait")
    assert servers[1].phones()["training"] == 0
    other = clients[1].post("/v1/check-in", headers=headers, data=b"{}", content_type="application/json")
    assert other.status_code == 401  # signed over another body
    assert phones[0].signed("POST", "/v1/check-in").json["status"] == "assigned"


def test_revoking_enrolling_and_pausing_hold_at_once_everywhere(two, new_phone):
    servers, clients, phones = two()
    late = new_phone(clients[1])
    late.client = clients[0]
    assert late.check_in()["status"] == "assigned"
    servers[0].administration.server.revoke(late.id, by=BY)
    late.client = clients[1]
    assert late.signed("POST", "/v1/check-in").status_code == 403
    with pytest.raises(Forbidden):
        servers[1].administration.server.registry.enrol(public_key(late.key), NOW)
    servers[1].become("paused", by=BY)
    assert servers[0].administration.state == "paused"
    assert phones[0].check_in()["status"] == "wait"
    servers[0].become("open", by=BY)
    phones[0].client = clients[1]
    assert phones[0].check_in()["status"] == "assigned"


def test_a_version_that_is_gone_back_to_at_one_server_is_served_by_all(two):
    servers, clients, phones = two(rounds=9)
    for phone in phones[:2]:
        phone.take_part(servers[0])
    wanted = servers[0]._coordinator.params.copy()
    for phone in phones[:2]:
        phone.client = clients[1]
        phone.take_part(servers[1], seed=1)
    servers[1].roll_back(1, by=BY)
    assignment = phones[0].check_in()
    assert (assignment["round"], assignment["version"]) == (3, 3)
    servers[0].tick()
    assert servers[0].version == 3
    np.testing.assert_array_equal(servers[0]._coordinator.params, wanted)


def test_a_turn_that_is_lost_acknowledges_nothing_and_counts_once_later(two, monkeypatch):
    servers, clients, phones = two()
    assignment = phones[0].check_in()
    servers[0].become("paused", by=BY)  # which is kept at once, and the phone's part with it
    servers[0].become("open", by=BY)

    def broken(*_):
        raise ServerUnavailable("PostgreSQL: the connection was lost")

    with monkeypatch.context() as patch:
        patch.setattr(servers[0]._store, "keep_shared", broken)
        answer, frame = report(phones[0], servers[0], assignment)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert not servers[0].ready
    assert phones[0].report(assignment["round"], frame).json == {"accepted": True, "duplicate": False}
    assert servers[0].ready
    phones[1].client = clients[1]
    phones[1].take_part(servers[1])
    (row,), _ = servers[1].metrics(0)
    assert (row["reports"], row["status"]) == (2, "committed")


def test_a_robust_aggregate_is_refused_in_one_line(server, vocabulary):
    task = make_task(vocabulary, min_reports=2)
    algorithm = dataclasses.replace(task.algorithm, aggregate=Median())
    with pytest.raises(ConfigError, match="needs the updates one by one") as error:
        server(task=dataclasses.replace(task, algorithm=algorithm))
    assert "\n" not in str(error.value)


def wait_for(condition, *, timeout_s=20.0):
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_a_server_whose_connections_are_ended_goes_on_and_loses_nothing(two, postgres):
    import psycopg

    servers, clients, phones = two()
    assignment = phones[0].check_in()
    answer, frame = report(phones[0], servers[0], assignment)
    assert answer.status_code == 200
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kbdfl'"
    with psycopg.connect(postgres, autocommit=True) as connection:
        assert len(connection.execute(ended).fetchall()) >= 4
    again = clients[0].get("/v1/status")
    assert again.status_code in (200, 503)

    def known():
        answer = phones[0].report(assignment["round"], frame)
        return answer.status_code == 200 and answer.json == {"accepted": True, "duplicate": True}

    assert wait_for(known)
    assert wait_for(lambda: servers[0].ready and servers[1].ready)


def test_an_older_version_is_served_by_a_server_that_never_encoded_it(two):
    """Of an asynchronous task, whose phones may ask for what has been superseded since."""
    servers, clients, phones = two(mode=FedBuff(concurrency=3), min_reports=0, rounds=9, cohort=1)
    slow = phones[2].check_in()
    for number in range(2):
        phones[0].take_part(servers[0], seed=number)
    first = phones[1].check_in()
    assert first["version"] == 2
    phones[0].take_part(servers[0], seed=7)
    servers[1].tick()
    phones[1].client = clients[1]
    answer = phones[1].signed("GET", "/v1/models/2")
    assert answer.status_code == 200
    phones[1].client = clients[0]
    assert phones[1].signed("GET", "/v1/models/2").data == answer.data
    assert slow["version"] == 0


def test_many_threads_at_several_servers_are_each_counted_once(two, new_phone):
    servers, clients, _ = two(cohort=12, rounds=9, over_selection=1.0)
    crowd = [new_phone(clients[number % 2]) for number in range(12)]
    apps = [create_app(each) for each in servers]
    told = []

    def play(number, phone):
        phone.client = apps[number % 2].test_client()
        assignment = phone.check_in()
        phone.client = apps[(number + 1) % 2].test_client()
        told.append(report(phone, servers[0], assignment)[0].json)

    threads = [threading.Thread(target=play, args=each) for each in enumerate(crowd)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [{"accepted": True, "duplicate": False}] * 12
    for each in servers:
        (row,), _ = each.metrics(0)
        assert (row["reports"], row["status"]) == (12, "committed")


def test_a_dump_without_the_open_round_begins_it_anew(two, server, postgres):
    import psycopg

    servers, _, phones = two()
    phones[0].take_part(servers[0])
    for each in servers:
        each.close()
    with psycopg.connect(postgres, options="-c search_path=kbdfl_default") as connection:
        connection.execute("TRUNCATE turn, sums")
    third = server()
    for phone in phones[:2]:
        phone.client = create_app(third).test_client()
        phone.take_part(third)
    (row,), _ = third.metrics(0)
    assert (row["reports"], row["status"]) == (2, "committed")
