"""/healthz, /readyz and /metrics, and what they must not say."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kbdfl.server.app import create_app


@pytest.fixture
def scrape():
    """The samples of /metrics: (name, labels as a sorted tuple) -> value."""

    def read(asked) -> dict[tuple, float]:
        answer = asked.get("/metrics")
        assert answer.status_code == 200
        assert answer.content_type.startswith("text/plain; version=")
        families = text_string_to_metric_families(answer.text)
        samples = [sample for family in families for sample in family.samples]
        assert {sample.labels.pop("task", "default") for sample in samples} == {"default"}
        return {(s.name, *sorted(s.labels.values())): s.value for s in samples}

    return read


def test_a_server_is_ready_once_it_has_started_until_it_closes(make_service, problem):
    service = make_service(start=False)
    client = create_app(service).test_client()
    assert client.get("/healthz").json == {"ok": True}
    assert problem(client.get("/readyz"))["status"] == 503
    service.start()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json) == (200, {"ready": True})
    service.close()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert client.get("/healthz").status_code == 200


def test_rounds_phones_and_what_was_measured_are_told(finished, scrape):
    _, client = finished
    samples = scrape(client)
    told = {
        ("kbdfl_ready",): 1,
        ("kbdfl_round",): 3,
        ("kbdfl_model_version",): 3,
        ("kbdfl_rounds_total", "committed"): 3,
        ("kbdfl_rounds_total", "abandoned"): 0,
        ("kbdfl_selected_phones_total", "counted"): 6,
        ("kbdfl_reports_total", "counted"): 6,
        ("kbdfl_check_ins_total", "assigned"): 6,
        ("kbdfl_phones", "enrolled"): 2,
        ("kbdfl_phones", "training"): 0,
        ("kbdfl_recall_round",): 2,
        ("kbdfl_request_seconds_count", "200", "device_api.report"): 6,
    }
    assert {name: samples.get(name) for name in told} == told
    assert samples["kbdfl_recall", "1"] == pytest.approx(0.3)
    assert samples["kbdfl_recall", "3"] == pytest.approx(0.6)
    assert samples["kbdfl_frame_bytes_total", "up"] > 0
    assert samples["process_resident_memory_bytes",] > 1 << 20


def test_each_round_is_counted_once_however_often_it_is_told(client, phone, play, new_phone, scrape):
    assert scrape(client)["kbdfl_rounds_total", "committed"] == 0
    other = new_phone(client)
    for seed in range(2):
        play(phone, seed)
        play(other, seed)
        samples = scrape(client)
        assert samples["kbdfl_rounds_total", "committed"] == seed + 1
        assert samples["kbdfl_selected_phones_total", "counted"] == 2 * (seed + 1)
        assert scrape(client)["kbdfl_rounds_total", "committed"] == seed + 1


def test_reports_are_counted_by_what_came_of_them(client, phone, play, scrape):
    assignment, frame = play(phone)
    number = assignment["round"]
    assert phone.report(number, frame).json["duplicate"]
    assert phone.report(number, frame[:-1]).status_code == 400
    assert phone.report(number, frame, content_type="text/plain").status_code == 415
    assert phone.report(number + 1, frame, at=0).status_code == 401
    assert client.post(f"/v1/rounds/{number}/report", data=b"").status_code == 415
    samples = scrape(client)
    told = {key[1]: value for key, value in samples.items() if key[0] == "kbdfl_reports_total"}
    assert told == {"counted": 1, "duplicate": 1, "wire": 1, "http_415": 2, "unauthorised": 1}


def test_bytes_at_the_socket_are_told_as_they_cross(service, client, scrape):
    service.traffic.add("someone", up=100, down=7)
    service.traffic.take()
    service.traffic.add("another", up=1)
    samples = scrape(client)
    assert samples["kbdfl_socket_bytes_total", "up"] == 101
    assert samples["kbdfl_socket_bytes_total", "down"] == 7


def test_no_device_no_address_and_no_text_is_in_a_label(client, phone, play, scrape):
    play(phone)
    client.get("/secret-words?and=more")
    client.open("/healthz", method="BREW")
    client.post("/v1/predict", json={"text": "a private message"})
    samples = scrape(client)
    assert ("kbdfl_request_seconds_count", "404", "none") in samples
    text = client.get("/metrics").text
    for absent in (phone.id, "secret", "private", "BREW"):
        assert absent not in text


def test_two_applications_count_apart(make_service, tmp_path, scrape):
    one, two = (create_app(make_service(folder=tmp_path / name)).test_client() for name in "ab")
    one.get("/healthz")
    key = ("kbdfl_request_seconds_count", "200", "monitoring.healthz")
    assert scrape(one)[key] == 1
    assert key not in scrape(two)
