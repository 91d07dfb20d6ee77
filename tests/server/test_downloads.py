"""Models on the way down: entity tags, caching, ranges, versions held, parts, and what of it is counted."""

import hashlib

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule, Download
from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator
from kbdfl.downlink import read_part, read_whole
from kbdfl.model import CifgConfig, init_params
from kbdfl.server.app import create_app
from kbdfl.server.service import TaskService
from kbdfl.server.store import SqliteStore
from kbdfl.task import RoundRule, Task
from kbdfl.wire import decode_model

MODEL = "/v1/models/0"
LIMIT = 1 << 20


def row(service):
    service.tick()
    return service.metrics(0)[0][-1]


def test_a_model_is_kept_for_good_and_has_the_tag_of_its_bytes(phone):
    phone.check_in()
    answer = phone.signed("GET", MODEL)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.get_etag() == (hashlib.sha256(answer.data).hexdigest(), False)


def test_a_phone_that_has_it_is_told_so_and_nothing_is_counted(phone, service, play, new_phone, client):
    phone.check_in()
    whole = phone.signed("GET", MODEL)
    again = phone.signed("GET", MODEL, headers={"If-None-Match": f'"{whole.get_etag()[0]}"'})
    assert (again.status_code, again.data) == (304, b"")
    for each in (phone, new_phone(client)):
        play(each)
    assert row(service)["downlink_bytes"] == len(whole.data)


@pytest.mark.parametrize(
    ("asked", "start", "stop"), [("100-", 100, None), ("7-99", 7, 100), ("-50", -50, None)]
)
def test_a_range_is_sent_and_counted_alone(phone, service, play, new_phone, client, asked, start, stop):
    phone.check_in()
    whole = phone.signed("GET", MODEL)
    headers = {"Range": f"bytes={asked}", "If-Range": f'"{whole.get_etag()[0]}"'}
    part = phone.signed("GET", MODEL, headers=headers)
    assert part.status_code == 206
    assert part.data == whole.data[start:stop]
    assert part.get_etag() == whole.get_etag()
    for each in (phone, new_phone(client)):
        play(each)
    assert row(service)["downlink_bytes"] == len(whole.data) + len(part.data)


def test_a_range_of_another_body_is_answered_by_all_of_this_one(phone):
    phone.check_in()
    whole = phone.signed("GET", MODEL)
    other = phone.signed("GET", MODEL, headers={"Range": "bytes=100-", "If-Range": '"another"'})
    assert (other.status_code, other.data) == (200, whole.data)


def test_a_range_that_is_not_there_is_refused(phone, problem):
    phone.check_in()
    answer = phone.signed("GET", MODEL, headers={"Range": f"bytes={LIMIT}-"})
    assert problem(answer)["status"] == 416


@pytest.fixture
def small_task(tmp_path, vocabulary, clock):
    """A service whose phones get what `client` and `download` say of a small model."""
    services = []

    def make(client=None, download=None):
        config = CifgConfig(vocab=len(vocabulary), embed=4, hidden=6)
        task = Task(
            name="downloads",
            config=config,
            algorithm=Algorithm(client=client or ClientRule(), download=download or Download("grid")),
            rule=RoundRule(cohort=1, over_selection=1.0, rounds=10),
            vocabulary_sha256=vocabulary.sha256,
            seed=1,
        )
        store = SqliteStore(tmp_path / "small", config.spec)
        coordinator = Coordinator(
            task, init_params(config, seed=1), store=store, random=np.random.default_rng(1)
        )
        service = TaskService(coordinator, store, clock=clock, wall_clock=lambda: 1_800_000_000.0)
        service.start()
        services.append(service)
        return service, create_app(service).test_client(), coordinator

    yield make
    for service in services:
        service.close()


def test_a_phone_that_holds_a_version_gets_the_difference_from_it(small_task, new_phone):
    service, client, coordinator = small_task()
    phone, size = new_phone(client), coordinator.params.size
    held = None
    for version in range(3):
        phone.check_in()
        whole = phone.signed("GET", f"/v1/models/{version}")
        fresh = read_whole(whole.data, size=size, held=None, max_bytes=LIMIT)
        if held is not None:
            difference = phone.signed("GET", f"/v1/models/{version}/from/{version - 1}")
            now = read_whole(difference.data, size=size, held=held, max_bytes=LIMIT)
            np.testing.assert_array_equal(now.grid.levels, fresh.grid.levels)
            assert difference.get_etag() != whole.get_etag()
            assert len(difference.data) < len(whole.data)
        np.testing.assert_array_equal(fresh.grid.values, coordinator.published)
        held = fresh
        phone.take_part(service, seed=version)


def test_who_holds_a_version_that_is_gone_or_never_was_gets_the_whole_model(small_task, new_phone):
    service, client, _ = small_task(download=Download("grid", kept_versions=1))
    phone = new_phone(client)
    phone.take_part(service)
    phone.check_in()
    whole = phone.signed("GET", "/v1/models/1").data
    for held in (0, 1, 7, 2**60):
        assert phone.signed("GET", f"/v1/models/1/from/{held}").data == whole


def test_the_phones_of_a_round_get_its_words_rows(small_task, new_phone, problem):
    service, client, coordinator = small_task(client=ClientRule(report_words=6, partial_model=True))
    phone = new_phone(client)
    assignment = Assignment.from_json({k: v for k, v in phone.check_in().items() if k != "status"})
    part = phone.signed("GET", "/v1/rounds/0/model")
    values, version = read_part(part.data, assignment.coordinates, max_bytes=LIMIT)
    assert version == 0
    np.testing.assert_array_equal(values, assignment.coordinates.take(coordinator.published))
    assert problem(phone.signed("GET", "/v1/rounds/1/model"))["status"] == 404
    service.tick()
    assert len(values) < coordinator.params.size


def test_a_task_of_whole_models_serves_no_part(small_task, new_phone, problem):
    _, client, _ = small_task()
    phone = new_phone(client)
    phone.check_in()
    assert "no part" in problem(phone.signed("GET", "/v1/rounds/0/model"))["detail"]


def test_without_a_grid_a_held_version_makes_no_difference(small_task, new_phone):
    service, client, coordinator = small_task(download=Download())
    phone = new_phone(client)
    phone.take_part(service)
    phone.check_in()
    answer = phone.signed("GET", "/v1/models/1/from/0")
    assert answer.data == phone.signed("GET", "/v1/models/1").data
    params, version, _ = decode_model(answer.data, max_bytes=LIMIT)
    assert version == 1
    np.testing.assert_array_equal(params, coordinator.params)
