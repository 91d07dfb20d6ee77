"""FedBuff behind the device API: phones a few versions behind fetch, report and are told when it is too late."""

import pytest

from kbdfl.algorithms import FedBuff
from kbdfl.server.app import create_app
from kbdfl.server.service import KEPT_VERSIONS
from kbdfl.wire import decode_model


@pytest.fixture
def asynchronous(make_service, new_phone):
    """A service of rounds of one report, its client and a way to enrol phones."""

    def make(**mode):
        mode = FedBuff(**({"concurrency": 4, "max_staleness": 5} | mode))
        service = make_service(mode=mode, cohort=1, min_reports=0, rounds=20)
        client = create_app(service).test_client()
        return service, lambda: new_phone(client)

    return make


def frame(phone, service, assignment, **changes):
    task = service.task
    return phone.frame(assignment, task.algorithm, size=task.config.spec.size, **changes)


def test_a_phone_fetches_the_version_it_was_assigned_though_newer_ones_are_out(asynchronous):
    service, enrol = asynchronous()
    slow, quick = enrol(), enrol()
    assignment = slow.check_in()
    params = service._coordinator.params.copy()
    for seed in range(KEPT_VERSIONS - 1):
        quick.take_part(service, seed=seed)
    assert service.version == KEPT_VERSIONS - 1
    answer = slow.signed("GET", f"/v1/models/{assignment['version']}")
    fetched, version, _ = decode_model(answer.data, max_bytes=len(answer.data))
    assert (version, fetched.tobytes()) == (0, params.tobytes())
    answer = slow.report(assignment["round"], frame(slow, service, assignment))
    assert answer.json == {"accepted": True, "duplicate": False}
    row = service.metrics(0)[0][-1]
    assert (row["reports"], row["dropped"], row["staleness"]) == (1, 0, KEPT_VERSIONS - 1)


def test_a_version_that_is_no_longer_kept_is_gone_and_a_check_in_gives_a_newer_one(asynchronous, problem):
    service, enrol = asynchronous()
    slow, quick = enrol(), enrol()
    slow.check_in()
    for seed in range(KEPT_VERSIONS):
        quick.take_part(service, seed=seed)
    assert problem(slow.signed("GET", "/v1/models/0"))["status"] == 410
    assert len(service._bodies) <= KEPT_VERSIONS
    slow.take_part(service)
    row = service.metrics(0)[0][-1]
    assert (row["reports"], row["dropped"], row["staleness"]) == (1, 0, 0)


def test_too_stale_a_report_is_a_conflict_and_its_phone_may_begin_again(asynchronous, problem):
    service, enrol = asynchronous(max_staleness=1)
    slow, quick = enrol(), enrol()
    assignment = slow.check_in()
    for seed in range(2):
        quick.take_part(service, seed=seed)
    answer = problem(slow.report(0, frame(slow, service, assignment)))
    assert (answer["status"], answer["detail"]) == (
        409,
        "staleness must be at most 1, the report began 2 versions ago",
    )
    slow.take_part(service)
    row = service.metrics(0)[0][-1]
    assert (row["refused"], row["dropped"], row["reports"]) == (1, 1, 1)


def test_the_same_bytes_again_some_rounds_later_are_acknowledged_and_counted_once(asynchronous):
    service, enrol = asynchronous()
    once, other = enrol(), enrol()
    assignment, sent = once.take_part(service)
    for seed in range(3):
        other.take_part(service, seed=seed)
        assert once.report(assignment["round"], sent).json == {"accepted": True, "duplicate": True}
    assert service.status()["totals"]["reports"] == 4


def test_the_address_must_name_the_reports_own_round(asynchronous, problem):
    service, enrol = asynchronous()
    slow, quick = enrol(), enrol()
    assignment = slow.check_in()
    quick.take_part(service)
    late = frame(slow, service, assignment)
    detail = problem(slow.report(service.status()["round"], late))["detail"]
    assert detail == "the address names round 1, the report round 0"
    assert slow.report(0, late).status_code == 200


def test_a_slot_is_free_again_after_its_deadline(asynchronous, clock):
    service, enrol = asynchronous(concurrency=1)
    gone, other = enrol(), enrol()
    gone.check_in()
    assert other.check_in()["status"] == "wait"
    clock.now += 31
    service.tick()
    assert service.status()["phones"]["training"] == 0
    other.take_part(service)
    assert service.metrics(0)[0][-1]["dropped"] == 1


def test_the_status_says_how_many_phones_may_be_at_work(asynchronous, make_service, tmp_path):
    service, _ = asynchronous()
    assert service.status()["rule"]["concurrency"] == 4
    assert make_service(folder=tmp_path / "synchronous").status()["rule"]["concurrency"] is None
