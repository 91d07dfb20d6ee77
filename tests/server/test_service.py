"""The task service: restarts between rounds, background work, and what anyone may read of a run."""

import json
import threading

import numpy as np
import pytest

from kbdfl.export.predictor import Predictor
from kbdfl.params import digest, load_checkpoint
from kbdfl.server.app import create_app
from kbdfl.server.bundles import replace_bundle
from kbdfl.server.service import Background
from kbdfl.server.worker import Worker

PATIENCE_S = 20.0


def test_a_restart_between_rounds_goes_on_where_the_last_one_ended(make_service, new_phone):
    service = make_service()
    client = create_app(service).test_client()
    phones = [new_phone(client) for _ in range(2)]
    for phone in phones:
        phone.take_part(service)
    phones[0].check_in()  # round 1 is in flight and is lost with the process
    params = service._coordinator.params.copy()
    service.close()

    again = make_service()
    np.testing.assert_array_equal(again._coordinator.params, params)
    assert (again.status()["round"], again.status()["version"]) == (1, 1)
    client = create_app(again).test_client()
    for phone in phones:  # enrolled before, not enrolled again
        phone.client = client
        phone.take_part(again)
    rows, _ = again.metrics(0)
    assert [(row["round"], row["status"]) for row in rows] == [(0, "committed"), (1, "committed")]


def test_a_restart_gives_the_same_model_as_no_restart(make_service, new_phone, tmp_path):
    keys = None
    results = []
    for folder, restart in ((tmp_path / "a", False), (tmp_path / "b", True)):
        service = make_service(folder=folder)
        client = create_app(service).test_client()
        phones = [new_phone(client) for _ in range(2)]
        if keys is None:
            keys = [phone.key for phone in phones]
        for phone, key in zip(phones, keys, strict=True):
            phone.key = key
            phone.enrol()
        for number in range(2):
            for phone in phones:
                phone.take_part(service, seed=number)
            if restart:
                service.close()
                service = make_service(folder=folder)
                for phone in phones:
                    phone.client = create_app(service).test_client()
        results.append(digest(service._coordinator.params))
    assert results[0] == results[1]


def test_closing_twice_is_harmless_and_leaves_the_metrics(make_service, new_phone):
    service = make_service()
    client = create_app(service).test_client()
    for _ in range(2):
        new_phone(client).take_part(service)
    service.close()
    service.close()
    (line,) = (service.folder / "metrics.jsonl").read_text().splitlines()
    assert list(json.loads(line)) == [
        "round", "status", "version", "reports", "dropped", "refused", "staleness", "tokens", "train_loss",
        "recall_top1", "recall_top3", "uplink_bytes", "downlink_bytes", "socket_up_bytes", "socket_down_bytes",
        "socket_devices", "wall_s", "virtual_s", "epsilon",
    ]  # fmt: skip


def test_every_committed_round_is_measured_and_exported(finished, background):
    _, client = finished
    _, done = background
    assert len(done["evaluate"]) == 3
    assert done["export"] == [0, 1, 2, 3]  # the first one before any round
    rows = client.get("/v1/metrics").json["rounds"]
    assert [row["recall_top1"] for row in rows] == pytest.approx([0.1, 0.2, 0.3])
    assert [row["recall_top3"] for row in rows] == pytest.approx([0.2, 0.4, 0.6])
    status = client.get("/v1/status").json
    assert (status["phase"], status["settled"], status["failures"]) == ("finished", True, {})
    assert (status["bundle"]["version"], status["bundle"]["precision"]) == (3, "int8")
    assert status["totals"]["committed"] == 3


def test_a_slow_measurement_holds_up_no_report(make_service, new_phone):
    gate, begun = threading.Event(), threading.Event()

    def evaluate(params):
        begun.set()
        assert gate.wait(PATIENCE_S)
        return {"recall_top1": 0.5, "recall_top3": 0.6}

    service = make_service(background=Background(evaluate=evaluate, evaluate_every=1))
    client = create_app(service).test_client()
    phones = [new_phone(client) for _ in range(2)]
    try:
        for _ in range(3):
            for phone in phones:
                phone.take_part(service)
            assert begun.wait(PATIENCE_S)
        status = service.status()
        assert (status["phase"], status["settled"]) == ("finished", False)
    finally:
        gate.set()
    assert service.wait_settled(PATIENCE_S)
    rows, _ = service.metrics(0)
    # the second round's order was replaced by the third's while the first was being measured
    assert [row["recall_top1"] for row in rows] == [0.5, None, 0.5]


def test_a_measurement_that_fails_is_said_and_stops_nothing(make_service, new_phone, caplog):
    def evaluate(params):
        raise ValueError("no held-out words")

    service = make_service(background=Background(evaluate=evaluate, evaluate_every=1))
    client = create_app(service).test_client()
    for _ in range(2):
        new_phone(client).take_part(service)
    assert service.wait_settled(PATIENCE_S)
    assert client.get("/v1/status").json["failures"] == {"evaluate": "ValueError: no held-out words"}
    assert "no held-out words" in caplog.text


def test_a_worker_finishes_what_was_ordered_when_asked_to():
    worker, done = Worker(), []
    worker.order("a", lambda: done.append("a"))
    worker.start()
    worker.order("b", lambda: done.append("b"))
    worker.close(finish=True)
    assert done == ["a", "b"]


def test_metrics_come_as_they_change(finished):
    _, client = finished
    answer = client.get("/v1/metrics?since=0").json
    assert len(answer["rounds"]) == 3
    assert client.get(f"/v1/metrics?since={answer['next']}").json == {"rounds": [], "next": answer["next"]}


@pytest.mark.parametrize("since", ["-1", "x", "1.5", "", "9" * 30, "²"])
def test_metrics_refuse_a_since_that_is_no_number(client, problem, since):
    assert "since" in problem(client.get("/v1/metrics", query_string={"since": since}))["detail"]


def test_the_bundle_is_served_with_its_hashes_and_runs(finished, tmp_path):
    _, client = finished
    manifest = client.get("/v1/models/latest/manifest.json")
    for name, facts in manifest.json["files"].items():
        answer = client.get(f"/v1/models/latest/{name}")
        assert answer.headers["ETag"] == f'"{facts["sha256"]}"'
        assert len(answer.data) == facts["bytes"]
        again = client.get(f"/v1/models/latest/{name}", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
        (tmp_path / name).write_bytes(answer.data)
    (tmp_path / "manifest.json").write_bytes(manifest.data)
    here = [s.word for s in Predictor(tmp_path).suggest("see you ")]
    answer = client.post("/v1/predict", json={"text": "see you "})
    assert [s["word"] for s in answer.json["suggestions"]] == here
    assert answer.json["version"] == 3


@pytest.mark.parametrize("name", ["nothing.json", "..%2fconfig.toml", "..", "%2e%2e%2fserver.sqlite3"])
def test_only_the_files_of_a_bundle_are_served(served, problem, name):
    assert problem(served[1].get(f"/v1/models/latest/{name}"))["status"] == 404


def test_predict_completes_the_word_that_is_being_typed(served):
    _, client = served
    words = [s["word"] for s in client.post("/v1/predict", json={"text": "i se"}).json["suggestions"]]
    assert set(words) <= {"see", "sea", "seen", "seem"}
    assert len(words) == 3


@pytest.mark.parametrize("body", [{}, {"text": 5}, {"text": None}, {"text": ["a"]}])
def test_predict_refuses_what_is_no_text(served, problem, body):
    assert problem(served[1].post("/v1/predict", json=body))["status"] == 400


def test_predict_refuses_a_document(served, problem):
    assert problem(served[1].post("/v1/predict", json={"text": "a" * 2001}))["status"] == 413


@pytest.mark.parametrize("text", ["", " ", "\x00", "🙂", "e\u0301", "\u202e", "'", "…", "a" * 2000])
def test_predict_answers_any_text(served, text):
    assert served[1].post("/v1/predict", json={"text": text}).status_code == 200


def test_no_text_reaches_the_log(served, caplog):
    caplog.set_level(0)
    served[1].post("/v1/predict", json={"text": "my secret plan"})
    served[1].post("/v1/predict", json={"text": "my secret plan" * 1000})
    assert "secret" not in caplog.text


def test_before_the_first_export_the_keyboard_is_told_so(client, problem):
    assert problem(client.post("/v1/predict", json={"text": "hello"}))["status"] == 404
    assert problem(client.get("/v1/models/latest/model.onnx"))["status"] == 404


def test_a_bundle_is_found_again_after_a_restart(finished, make_service, background):
    service, _ = finished
    service.close()
    again = make_service(background=background[0])
    assert again.wait_settled(PATIENCE_S)
    assert again.bundle.version == 3
    assert background[1]["export"] == [0, 1, 2, 3]  # and not exported again


def test_a_damaged_bundle_is_exported_again_at_the_start(finished, make_service, background, caplog):
    service, _ = finished
    service.close()
    (service.folder / "model" / "model.onnx").write_bytes(b"damaged")
    again = make_service(background=background[0])
    assert again.wait_settled(PATIENCE_S)
    assert (again.bundle.version, background[1]["export"][-2:]) == (3, [3, 3])
    assert "not usable" in caplog.text


def test_a_bundle_that_cannot_be_loaded_does_not_replace_one_that_can(finished):
    service, client = finished
    before = client.get("/v1/models/latest/model.onnx").data

    def write_rubbish(folder):
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")

    with pytest.raises(Exception, match="manifest"):
        replace_bundle(service.folder / "model", write_rubbish)
    assert client.get("/v1/models/latest/model.onnx").data == before
    assert Predictor(service.folder / "model").suggest("see ")


def test_the_newest_checkpoint_is_served(finished, tmp_path):
    service, client = finished
    answer = client.get("/v1/checkpoint")
    path = tmp_path / "served.safetensors"
    path.write_bytes(answer.data)
    params, _, facts = load_checkpoint(path)
    np.testing.assert_array_equal(params, service._coordinator.params)
    assert facts["version"] == 3
    assert "000003.safetensors" in answer.headers["Content-Disposition"]


def test_before_a_round_is_closed_there_is_no_checkpoint(client, problem):
    assert problem(client.get("/v1/checkpoint"))["status"] == 404


def test_the_configuration_is_served_as_it_stands(client, service, problem):
    assert problem(client.get("/v1/config"))["status"] == 404
    (service.folder / "config.toml").write_text("[run]\nseed = 1\n")
    answer = client.get("/v1/config")
    assert (answer.text, answer.mimetype) == ("[run]\nseed = 1\n", "application/toml")


def test_every_answer_carries_the_security_headers(client, phone):
    for answer in (client.get("/"), client.get("/v1/status"), client.get("/no"), client.post("/v1/check-in")):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script" not in policy  # no exception for scripts
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_plotly_is_served_from_the_installed_package_and_packed(client):
    address = next(part for part in client.get("/").text.split('"') if part.startswith("/assets/plotly"))
    packed = client.get(address, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "immutable" in packed.headers["Cache-Control"]
    plain = client.get(address, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert b"plotly.js" in plain.data[:200]
    assert len(packed.data) < len(plain.data) / 2


def test_health_is_cheap_to_ask(client):
    assert client.get("/healthz").json == {"ok": True}
