"""What a finished run leaves on its server comes home whole, or is refused in one line."""

import hashlib
import json

import pytest

from kbdfl.device_sim.agent import ServerClient
from kbdfl.device_sim.fleet import Fleet
from kbdfl.device_sim.harvest import harvest, new_rows, progress_of, wait_settled
from kbdfl.device_sim.population import Population
from kbdfl.errors import KbdflError, ServerUnavailable
from kbdfl.export.bundle import load_bundle
from kbdfl.export.run import read_run
from kbdfl.run import RunConfig, RunFolder


@pytest.fixture
def finished(served, texts):
    """A server whose task is over."""
    with served(cohort=3, over_selection=1.0, rounds=4) as (service, url):
        client = ServerClient(url)
        fleet = Fleet(client, Population(texts), workers=2, seed=1)
        fleet.enrol()
        fleet.run()
        yield service, client


def test_a_harvest_is_a_whole_run_folder(finished, tmp_path):
    service, client = finished
    folder = RunFolder.create(tmp_path, "home", default="fleet")
    harvest(client, folder)
    names = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}
    assert names == {
        "config.toml",
        "metrics.jsonl",
        "tokenizer.json",
        "checkpoints/000004.safetensors",
        "model/model.onnx",
        "model/tokenizer.json",
        "model/manifest.json",
    }
    assert RunConfig.load(folder.path / "config.toml") == RunConfig.load(service.folder / "config.toml")
    rows = folder.rows()
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert rows[-1]["recall_top1"] == 0.25
    assert read_run(folder.path).params.tobytes() == service._coordinator.params.tobytes()
    assert load_bundle(folder.path / "model").manifest["version"] == 4


def test_rows_come_once_and_again_when_they_change(finished):
    _, client = finished
    wait_settled(client)
    rows, since = new_rows(client, 0)
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert new_rows(client, since) == ([], since)


def test_progress_is_the_servers(finished):
    _, client = finished
    wait_settled(client)
    progress = progress_of(client)
    assert (progress.round, progress.rounds, progress.settled) == (4, 4, True)


def test_a_server_that_never_settles_is_not_waited_for_for_ever(served):
    with (
        served() as (_, url),
        pytest.raises(ServerUnavailable, match="has not measured and exported its last round"),
    ):
        wait_settled(ServerClient(url), timeout_s=0)


class Liar:
    """A client whose server answers as the real one but for some paths."""

    def __init__(self, client, answers):
        self._client, self._answers, self.url = client, answers, client.url

    def get(self, path):
        answer = self._answers.get(path.partition("?")[0])
        if answer is None:
            return self._client.get(path)
        answer = answer(self._client.get(path)) if callable(answer) else answer
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def get_json(self, path):
        return json.loads(self.get(path))


def changed(**values):
    return lambda body: json.loads(body) | values


def row_with(**values):
    def change(body):
        document = json.loads(body)
        document["rounds"][1] |= values
        return document

    return change


def escaping(body):
    manifest = json.loads(body)
    manifest["files"]["../../escaped"] = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    return manifest


LIES = {
    "a status that is a list": {"/v1/status": []},
    "a status of nothing": {"/v1/status": {}},
    "settled in words": {"/v1/status": changed(settled="yes")},
    "rounds without a number": {"/v1/metrics": row_with(round="one")},
    "rounds without a loss": {"/v1/metrics": row_with(train_loss="low")},
    "rounds of true bytes": {"/v1/metrics": row_with(uplink_bytes=True)},
    "rounds that are none": {"/v1/metrics": changed(rounds=[1, 2])},
    "no rounds": {"/v1/metrics": changed(rounds=None)},
    "no next": {"/v1/metrics": changed(next=None)},
    "a configuration of bytes": {"/v1/config": b"\xff\xfe"},
    "a configuration that cannot run": {"/v1/config": b"[round]\ncohort = 0\n"},
    "another graph": {"/v1/models/latest/model.onnx": b"not the graph"},
    "other words": {"/v1/models/latest/tokenizer.json": b"{}"},
    "a manifest that is a list": {"/v1/models/latest/manifest.json": []},
    "a manifest without files": {"/v1/models/latest/manifest.json": changed(files={})},
    "a manifest that names a path": {"/v1/models/latest/manifest.json": escaping},
    "no checkpoint": {"/v1/checkpoint": b"nothing"},
    "a damaged checkpoint": {"/v1/checkpoint": lambda body: body[:-1] + bytes([body[-1] ^ 1])},
    "half a checkpoint": {"/v1/checkpoint": lambda body: body[: len(body) // 2]},
}


@pytest.mark.parametrize("name", LIES)
def test_what_is_not_as_promised_is_refused_in_one_line(finished, tmp_path, name):
    _, client = finished
    wait_settled(client)
    folder = RunFolder.create(tmp_path / "deep" / "runs", "home", default="fleet")
    with pytest.raises(KbdflError) as error:
        harvest(Liar(client, LIES[name]), folder)
    assert "\n" not in str(error.value)
    outside = {
        path.name for path in tmp_path.rglob("*") if path.is_file() and folder.path not in path.parents
    }
    assert "escaped" not in outside
    assert not list(folder.checkpoints.iterdir())
