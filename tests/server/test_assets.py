"""What is compressed and kept by browsers: onnxruntime-web and the bundle at every precision."""

import gzip
import json
from functools import partial

import pytest

from kbdfl.errors import ModelError
from kbdfl.export.bundle import FILES, MANIFEST, load_bundle
from kbdfl.export.precision import PRECISIONS
from kbdfl.model import init_params
from kbdfl.server.assets import RUNTIME_TYPES, WebRuntime
from kbdfl.server.bundles import open_bundle, replace_bundle, write_precisions

ZIP = {"Accept-Encoding": "gzip, br"}
WASM = "ort-wasm-simd-threaded.wasm"


@pytest.fixture
def runtime(tmp_path, app):
    """A made-up onnxruntime-web 9.8.7, which `app` serves."""
    package = tmp_path / "node_modules" / "onnxruntime-web"
    (package / "dist").mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"version": "9.8.7"}))
    (package / "dist" / "secret.map").write_text("not served")
    for name in RUNTIME_TYPES:
        (package / "dist" / name).write_text(f"{name} " * 1000)
    app.config["WEB_RUNTIME"] = WebRuntime.find(package.parent)
    return package / "dist"


@pytest.fixture
def write(service, vocabulary):
    """Writes version `version` of the task's model at every precision."""

    def write_all(folder, *, version):
        config = service.task.config
        params, facts = init_params(config, seed=version), {"rounds": version, "version": version}
        write_precisions(folder, params=params, config=config, vocabulary=vocabulary, facts=facts)

    return write_all


@pytest.mark.parametrize("name", RUNTIME_TYPES)
def test_the_runtime_is_packed_typed_and_kept_for_good(client, runtime, name):
    address = f"/assets/ort/9.8.7/{name}"
    packed, plain = client.get(address, headers=ZIP), client.get(address)
    content = (runtime / name).read_bytes()
    assert (gzip.decompress(packed.data), plain.data) == (content, content)
    assert len(packed.data) < len(content) / 10
    assert (packed.headers["Content-Encoding"], plain.headers.get("Content-Encoding")) == ("gzip", None)
    assert packed.headers["ETag"] != plain.headers["ETag"]
    for answer in (packed, plain):
        assert answer.content_type == RUNTIME_TYPES[name]
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Vary"] == "Accept-Encoding"
    refused = client.get(address, headers={"Accept-Encoding": "gzip;q=0, *;q=0"})
    assert (refused.headers.get("Content-Encoding"), refused.data) == (None, content)
    again = client.get(address, headers=ZIP | {"If-None-Match": packed.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        f"9.8.6/{WASM}", "9.8.7/secret.map", "9.8.7/../package.json", "9.8.7/..%2fpackage.json",
        "9.8.7/%2e%2e/package.json", f"9.8.7//{WASM}", "9.8.7/dist/secret.map", "..%2f9.8.7/secret.map",
    ],
)  # fmt: skip
def test_nothing_else_of_the_package_is_served(client, runtime, problem, path):
    answer = client.get(f"/assets/ort/{path}")
    assert answer.status_code in (308, 404)
    assert b"not served" not in answer.data


def test_a_package_that_is_not_whole_is_not_served(client, app, runtime, problem):
    (runtime / WASM).unlink()
    assert WebRuntime.find(runtime.parents[1]) is None
    app.config["WEB_RUNTIME"] = None
    assert "npm ci" in problem(client.get(f"/assets/ort/9.8.7/{WASM}"))["detail"]


def test_the_keyboard_page_alone_may_compile_webassembly(client):
    policies = {path: client.get(path).headers["Content-Security-Policy"] for path in ("/keyboard", "/")}
    assert "script-src 'self' 'wasm-unsafe-eval'" in policies["/keyboard"]
    assert "unsafe-inline" not in policies["/keyboard"]
    assert "wasm" not in policies["/"]
    for policy in policies.values():
        assert "default-src 'self'" in policy
        assert "'unsafe-eval'" not in policy


def test_every_precision_of_the_bundle_is_served_under_its_name(service, client, runtime, write, problem):
    service.bundle = replace_bundle(service.folder / "model", partial(write, version=5))
    newest = client.get("/v1/models/latest").json
    assert (newest["version"], newest["rounds"]) == (5, 5)
    assert newest["runtime"] == "/assets/ort/9.8.7/ort.wasm.bundle.min.mjs"
    assert newest["precisions"] == client.get("/v1/status").json["bundle"]["precisions"]
    assert list(newest["precisions"]) == list(PRECISIONS)
    for precision, model in newest["precisions"].items():
        folder = service.folder / "model" / ("" if precision == "float32" else precision)
        assert load_bundle(folder).precision == precision
        for name in (*FILES, MANIFEST):
            packed = client.get(f"/v1/models/latest/{precision}/{name}", headers=ZIP)
            assert packed.headers.get("Content-Encoding") == (None if name == "model.onnx" else "gzip")
            assert packed.headers["Cache-Control"] == "no-cache"
            plain = client.get(f"/v1/models/latest/{precision}/{name}")
            assert plain.data == (folder / name).read_bytes()
            if precision == "float32":
                assert client.get(f"/v1/models/latest/{name}").data == plain.data
        manifest = client.get(f"/v1/models/latest/{precision}/manifest.json").json
        assert manifest["precision"] == precision
        assert manifest["files"]["model.onnx"] == model
    assert ", ".join(PRECISIONS) in problem(client.get("/v1/models/latest/int2/model.onnx"))["detail"]
    assert problem(client.get("/v1/models/latest/int8/..%2fmanifest.json"))["status"] == 404


def test_all_precisions_are_replaced_together_or_not_at_all(service, write):
    folder = service.folder / "model"
    replace_bundle(folder, partial(write, version=1))

    def damaged(path):
        write(path, version=2)
        (path / "int8" / "model.onnx").write_bytes(b"damaged")

    with pytest.raises(ModelError):
        replace_bundle(folder, damaged)
    kept = open_bundle(folder)
    assert (kept.version, list(kept.files)) == (1, list(PRECISIONS))
    replace_bundle(folder, partial(write, version=3))
    versions = {json.loads(path.read_bytes())["version"] for path in folder.rglob(MANIFEST)}
    assert versions == {3}


@pytest.mark.parametrize("count", [1, 5, 20])
def test_predict_gives_as_many_words_as_are_asked_for(served, count):
    answer = served[1].post("/v1/predict", json={"text": "see ", "count": count})
    assert len(answer.json["suggestions"]) == count


@pytest.mark.parametrize("count", [0, 21, 1.5, "3", True, None])
def test_predict_refuses_another_count(served, problem, count):
    answer = served[1].post("/v1/predict", json={"text": "see ", "count": count})
    assert "count" in problem(answer)["detail"]


def test_predict_refuses_half_a_character(served, problem):
    body = b'{"text": "\\ud83d"}'
    answer = served[1].post("/v1/predict", data=body, content_type="application/json")
    assert problem(answer)["status"] == 400
