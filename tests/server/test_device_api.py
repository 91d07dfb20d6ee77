"""Enrolling, checking in, fetching the model and reporting, with every kind of bad input."""

import base64
import json

import numpy as np
import pytest

from kbdfl.assignment import Assignment
from kbdfl.identity import public_key, sign_request
from kbdfl.wire import decode_model

NOW = 1_800_000_000.0
BINARY = "application/octet-stream"


def make_phone(phone):
    return type(phone)(phone.client).enrol()


@pytest.fixture
def work(phone, service):
    """An assignment and a frame that answers it."""
    assignment = phone.check_in()
    frame = phone.frame(assignment, service.task.algorithm, size=service.task.config.spec.size)
    return assignment, frame


def counted(service) -> int:
    return service.status()["phones"]["reported"]


def test_enrolling_twice_gives_one_device(client, service, phone):
    again = client.post("/v1/enrol", json={"public_key": base64.b64encode(public_key(phone.key)).decode()})
    assert again.json == {"device": phone.id}
    assert service.status()["phones"]["enrolled"] == 1


@pytest.mark.parametrize("key", [None, 5, "not base64!", base64.b64encode(b"short").decode(), ""])
def test_enrol_refuses_what_is_no_key(client, service, problem, key):
    answer = client.post("/v1/enrol", json={"public_key": key})
    assert "public_key" in problem(answer)["detail"]
    assert service.status()["phones"]["enrolled"] == 0


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 413),  # over the limit of this small model
        (b"[" * 40_000, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", None, 415),
    ],
)
@pytest.mark.parametrize("path", ["/v1/enrol", "/v1/predict"])
def test_a_body_that_is_no_json_object_is_refused(client, problem, path, body, content_type, status):
    assert problem(client.post(path, data=body, content_type=content_type))["status"] == status


def test_check_in_gives_a_whole_assignment(phone, service):
    document = phone.check_in()
    assert document.pop("status") == "assigned"
    assignment = Assignment.from_json(document)
    assert assignment.config == service.task.config
    assert assignment.round == assignment.version == 0


def test_check_in_tells_a_phone_that_is_not_needed_when_to_come_back(phone):
    others = [make_phone(phone) for _ in range(3)]
    assert [other.check_in()["status"] for other in others] == ["assigned"] * 3
    answer = phone.check_in()
    assert answer["status"] == "wait"
    assert answer["retry_after_s"] > 0


@pytest.mark.parametrize(
    ("body", "tier"), [(b"", ""), (b"{}", ""), ('{"tier": "größer"}'.encode(), "größer")]
)
def test_a_phone_may_state_its_tier_as_it_checks_in(phone, service, monkeypatch, body, tier):
    stated = []

    def check_in(device, now, *, tier, again, _check_in=service._coordinator.check_in):
        stated.append(tier)
        return _check_in(device, now, tier=tier, again=again)

    monkeypatch.setattr(service._coordinator, "check_in", check_in)
    answer = phone.signed("POST", "/v1/check-in", body, content_type="application/json")
    assert answer.json["status"] == "assigned"
    assert stated == [tier]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "the body must be a JSON object, got list"),
        (b'{"tier": 3}', "tier must be at most 32 printable characters, got 3"),
        (b'{"tier": null}', "tier must be at most 32 printable characters, got None"),
        (b'{"tier": "a\\nb"}', "tier must be at most 32 printable characters, got 'a\\nb'"),
        (json.dumps({"tier": "x" * 33}).encode(), "tier must be at most 32 printable characters"),
    ],
)
def test_a_check_in_that_states_rubbish_is_refused(phone, problem, service, body, detail):
    answer = phone.signed("POST", "/v1/check-in", body, content_type="application/json")
    assert problem(answer)["status"] == 400
    assert detail in answer.json["detail"]
    assert service.status()["phones"]["training"] == 0


def test_check_in_says_when_all_rounds_are_over(phone, play, service):
    other = make_phone(phone)
    for _ in range(3):
        play(phone)
        play(other)
    assert phone.check_in() == {"status": "finished"}
    assert service.status()["phase"] == "finished"


def test_an_unsigned_request_is_refused(client, problem, work, service):
    for answer in (
        client.post("/v1/check-in"),
        client.get("/v1/models/0"),
        client.post("/v1/rounds/0/report", data=work[1], content_type=BINARY),
    ):
        assert problem(answer)["status"] == 401
    assert counted(service) == 0


def test_a_device_that_never_enrolled_is_refused(client, phone, problem):
    stranger = type(phone)(client)
    assert "not enrolled" in problem(stranger.signed("POST", "/v1/check-in"))["detail"]


@pytest.mark.parametrize("age_s", [301, -301, 1e9])
def test_a_stale_signature_is_refused(phone, problem, age_s):
    assert problem(phone.signed("POST", "/v1/check-in", at=NOW - age_s))["status"] == 401


def test_a_signature_does_not_carry_to_another_body_path_method_or_device(
    phone, client, problem, work, service
):
    assignment, frame = work
    path = f"/v1/rounds/{assignment['round']}/report"
    headers = sign_request(phone.key, method="POST", path=path, body=frame, timestamp=NOW)
    other = make_phone(phone)
    changed = [
        client.post(path, data=frame[:-1] + b"\0", headers=headers, content_type=BINARY),
        client.post("/v1/rounds/1/report", data=frame, headers=headers, content_type=BINARY),
        client.post("/v1/check-in", data=frame, headers=headers),
        client.post(path, data=frame, headers=headers | {"X-Kbdfl-Device": other.id}, content_type=BINARY),
        client.post(
            path, data=frame, headers=headers | {"X-Kbdfl-Signature": "00" * 64}, content_type=BINARY
        ),
        client.post(path, data=frame, headers=headers | {"X-Kbdfl-Signature": "é"}, content_type=BINARY),
    ]
    assert [problem(answer)["status"] for answer in changed] == [401] * 6
    assert counted(service) == 0


def test_the_model_is_what_the_coordinator_holds_and_counts_as_downlink(phone, work, service):
    answer = phone.signed("GET", "/v1/models/0")
    params, version, spec_hash = decode_model(answer.data, max_bytes=len(answer.data))
    np.testing.assert_array_equal(params, service._coordinator.params)
    assert (version, spec_hash) == (0, service.task.config.spec.hash)
    assert "immutable" in answer.headers["Cache-Control"]
    again = phone.signed("GET", "/v1/models/0", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert service._coordinator._now.downlink_bytes == len(answer.data)


def test_only_the_current_version_is_served(phone, play, problem):
    play(phone)
    play(make_phone(phone))
    assert problem(phone.signed("GET", "/v1/models/0"))["status"] == 410
    assert problem(phone.signed("GET", "/v1/models/7"))["status"] == 404
    assert phone.signed("GET", "/v1/models/1").status_code == 200


def test_a_round_commits_when_its_cohort_has_reported(phone, play, service):
    play(phone)
    assert service.metrics(0) == ([], 0)
    _, frame = play(make_phone(phone))
    (row,), _ = service.metrics(0)
    assert (row["status"], row["reports"], row["version"], row["train_loss"]) == ("committed", 2, 1, 3.5)
    assert row["uplink_bytes"] == 2 * len(frame)


def test_the_same_report_again_is_acknowledged_and_not_counted(phone, play, service):
    assignment, frame = play(phone)
    again = phone.report(assignment["round"], frame)
    assert again.json == {"accepted": True, "duplicate": True}
    assert counted(service) == 1
    play(make_phone(phone))
    late = phone.report(assignment["round"], frame)  # its round has been closed in the meantime
    assert late.json == {"accepted": True, "duplicate": True}
    assert service.status()["totals"]["reports"] == 2


def test_a_second_different_report_is_refused(phone, play, service, problem):
    assignment, _ = play(phone)
    other = phone.frame(assignment, service.task.algorithm, size=service.task.config.spec.size, seed=9)
    assert problem(phone.report(assignment["round"], other))["status"] == 409
    assert counted(service) == 1


def test_a_report_for_another_round_is_refused(phone, service, problem, work):
    assignment, frame = work
    size = service.task.config.spec.size
    elsewhere = phone.frame(assignment, service.task.algorithm, size=size, round=5)
    for number, body in ((0, elsewhere), (5, elsewhere), (5, frame)):
        assert "round" in problem(phone.report(number, body))["detail"]
    assert counted(service) == 0


def test_a_report_of_a_phone_that_was_not_selected_is_refused(phone, service, problem, work):
    assignment, _ = work
    other = make_phone(phone)
    frame = other.frame(assignment, service.task.algorithm, size=service.task.config.spec.size)
    assert problem(other.report(0, frame))["status"] == 409


def test_a_report_on_another_model_or_in_another_name_is_refused(phone, service, problem, work):
    assignment, _ = work
    size = service.task.config.spec.size
    for changes in (
        {"model_sha256": "0" * 64},
        {"device": "0" * 16},
        {"task": "other"},
        {"upload": "float32"},
    ):
        frame = phone.frame(assignment, service.task.algorithm, size=size, **changes)
        problem(phone.report(0, frame))
    assert counted(service) == 0


def test_a_truncated_or_altered_frame_is_refused(phone, problem, work, service):
    _, frame = work
    for cut in (0, 1, 20, len(frame) // 2, len(frame) - 1):
        assert problem(phone.report(0, frame[:cut]))["status"] == 400
    for place in range(0, len(frame), 17):
        altered = bytearray(frame)
        altered[place] ^= 0x10
        assert problem(phone.report(0, bytes(altered)))["status"] in (400, 413)
    assert counted(service) == 0
    assert phone.report(0, frame).json == {"accepted": True, "duplicate": False}


def test_a_body_over_the_limit_is_refused(phone, problem, service, work):
    answer = phone.report(0, bytes(service.task.max_report_bytes + 1))
    assert problem(answer)["status"] == 413
    assert str(service.task.max_report_bytes) in answer.json["detail"]


def test_a_report_of_another_content_type_is_refused(phone, problem, work):
    assert problem(phone.report(0, work[1], content_type="application/json"))["status"] == 415


def test_a_round_ends_at_its_deadline_with_the_reports_it_has(phone, play, service, clock):
    make_phone(phone).check_in()
    play(phone)
    clock.now += 31
    service.tick()
    (row,), _ = service.metrics(0)
    assert (row["status"], row["reports"], row["dropped"], row["wall_s"]) == ("committed", 1, 1, 31)


def test_a_round_without_reports_is_abandoned_and_leaves_the_model(phone, service, clock, work, problem):
    before = service._coordinator.params.copy()
    clock.now += 31
    service.tick()
    (row,), _ = service.metrics(0)
    assert (row["status"], row["version"], row["train_loss"]) == ("abandoned", 0, None)
    np.testing.assert_array_equal(service._coordinator.params, before)
    assert problem(phone.report(0, work[1]))["status"] == 409


def test_unknown_addresses_and_methods_are_problem_documents(client, problem):
    assert problem(client.get("/v1/nothing"))["status"] == 404
    assert problem(client.get("/v1/rounds/x/report"))["status"] == 404
    answer = client.get("/v1/enrol")
    assert problem(answer)["status"] == 405
    assert "POST" in answer.headers["Allow"]


def test_a_fault_of_the_server_says_nothing_about_itself(
    service, client, phone, problem, monkeypatch, caplog
):
    def fail(device, *, tier, again):
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(service, "check_in", fail)
    answer = phone.signed("POST", "/v1/check-in")
    assert problem(answer)["status"] == 500
    assert b"secret" not in answer.data
    assert "a secret detail" in caplog.text  # the log has it
