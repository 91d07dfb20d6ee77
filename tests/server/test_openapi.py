"""The OpenAPI document says all that can be asked and what is answered; what is really answered is held against it."""

import copy
import io
import re

import pytest
import schemathesis
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks
from werkzeug.wrappers import Request

from kbdfl.algorithms import Algorithm
from kbdfl.algorithms.secure import SecureAggregation
from kbdfl.identity import Signer, generate_key, public_key
from kbdfl.secagg import Device, Floors, Terms
from kbdfl.server.app import create_app
from kbdfl.server.credentials import Credentials
from kbdfl.server.openapi import document
from kbdfl.server.operations import OPERATIONS
from kbdfl.server.sessions import Sessions

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
FOR_PEOPLE = {"pages", "static"}  # the run's pages and what they load
PASSWORD = "correct horse battery"
EXAMPLES = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def asked(app):
    """Route, and method in small letters, of all that programs may ask."""
    for rule in app.url_map.iter_rules():
        if rule.endpoint.split(".")[0] not in FOR_PEOPLE:
            for method in rule.methods - {"HEAD", "OPTIONS"}:
                yield rule, method.lower()


def address(rule) -> str:
    """A route as OpenAPI writes it."""
    return re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule.rule)


def strict(app) -> dict:
    """The document, where no answer may say more than is written."""
    described = copy.deepcopy(document(app))
    for schema in described["components"]["schemas"].values():
        schema["additionalProperties"] = False
    return described


def test_no_route_is_missing_in_the_document_and_none_is_made_up(app):
    missing = {rule.endpoint for rule, _ in asked(app)} - OPERATIONS.keys()
    assert missing == set(), "write it into server/operations.py"
    described = {(path, method) for path, of in document(app)["paths"].items() for method in of}
    assert described == {(address(rule), method) for rule, method in asked(app)}
    assert OPERATIONS.keys() == {rule.endpoint for rule, _ in asked(app)}


def test_the_document_is_served_and_valid_and_every_operation_has_a_text(app, client):
    answer = client.get("/v1/openapi.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert answer.json == document(app)
    assert list(OpenAPIV31SpecValidator(answer.json).iter_errors()) == []
    known = client.get("/v1/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert known.status_code == 304
    operations = [operation for of in answer.json["paths"].values() for operation in of.values()]
    assert all(operation["summary"] for operation in operations)
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names)) > 30


def test_who_must_show_what_stands_in_the_document(app):
    paths = document(app)["paths"]
    signed = [{"device": [], "time": [], "nonce": [], "signature": []}]
    assert paths["/v1/check-in"]["post"]["security"] == signed
    assert paths["/v1/admin/tokens"]["post"]["security"] == [{"token": []}]
    assert paths["/v1/status"]["get"]["security"] == []


@pytest.fixture
def checked():
    """A client that holds each answer against the document, and what it saw succeed, as (address, method)."""

    def make(app):
        schema, succeeded = schemathesis.openapi.from_dict(strict(app)), set()

        class Client(FlaskClient):
            def open(self, path, *, method="GET", **more):
                rule, _ = app.url_map.bind("").match(path.partition("?")[0], method, return_rule=True)
                answer = super().open(path, method=method, **more)
                schema[address(rule)][method].validate_response(answer)
                if answer.status_code < 400:
                    succeeded.add((address(rule), method.lower()))
                return answer

        return Client(app, app.response_class), succeeded

    return make


@pytest.mark.parametrize("task", ["", "/tasks/default"])
def test_whatever_succeeds_answers_as_it_is_written(make_service, background, new_phone, checked, task):
    service = make_service(background=background[0], rounds=9)
    (service.folder / "config.toml").write_text("seed = 1")
    token, _ = Credentials(service.folder).new_token(), Credentials(service.folder).set_password(PASSWORD)
    app = create_app(service)
    client, succeeded = checked(app)

    base, about, forms = f"/v1{task}", f"/v1/admin{task or '/task'}", f"/admin{task}"
    one, two, three = (new_phone(client, base=base) for _ in range(3))
    assignment = one.check_in()
    assert one.check_in("default") == assignment | {"base": "/v1"}
    one.base, version = base, assignment["version"]
    whole = one.signed("GET", f"{base}/models/{version}")
    for path in (f"{base}/models/{version}", f"{base}/models/{version}/from/0"):
        for header in ({"Range": "bytes=5-"}, {"If-None-Match": whole.headers["ETag"]}, {"Range": "bytes=x"}):
            one.signed("GET", path, headers=header)
    one.signed("GET", f"{base}/models/{version}/control")
    one.signed("GET", f"{base}/rounds/0/model")
    _, frame = one.take_part(service)
    one.report(0, frame)
    one.report(3, frame)
    two.take_part(service)
    two.check_in()
    three.check_in()
    for seed in (1, 2):
        one.take_part(service, seed=seed)
        two.take_part(service, seed=seed)
    assert service.wait_settled(20)

    for path in ("status", "metrics?since=0", "metrics/0/traffic", "config", "checkpoint", "models/latest"):
        client.get(f"{base}/{path}")
    for name in ("model.onnx", "manifest.json", "tokenizer.json", "int8/model.onnx", "no"):
        client.get(f"{base}/models/latest/{name}")
    client.post(f"{base}/predict", json={"text": "see you "})
    for path in ("/healthz", "/readyz", "/metrics", "/v1/openapi.json", "/v1/tasks"):
        client.get(path)

    bearer = {"headers": {"Authorization": f"Bearer {token}"}}
    client.get(about)
    for path in (about, f"/v1/admin{task}/rounds", f"/v1/admin{task}/rounds?before=2"):
        client.get(path, **bearer)
    for path in ("tasks", "audit-log"):
        client.get(f"/v1/admin/{path}", **bearer)
    for act in ("pause", "pause", "start"):
        client.post(f"{about}/{act}", **bearer)
    client.post("/v1/admin/tokens", json={"count": 2}, **bearer)
    client.post(f"/v1/admin/devices/{three.id}/revoke", **bearer)
    client.post(f"{about}/roll-back", json={"version": 2}, **bearer)

    def form(path, **fields):
        shown = client.get(forms).text
        (form_token, *_) = re.findall(r'name="form_token" value="([0-9a-f]+)"', shown)
        return client.post(path, data={"form_token": form_token} | fields)

    form(f"{forms}/log-in", password="wrong")
    form(f"{forms}/log-in", password=PASSWORD)
    form(f"/admin{task or '/task'}/stop")
    form("/admin/tokens", count="2")
    form("/admin/revoke", device=two.id)
    form("/admin/revoke", device="nobody")
    assert two.signed("POST", f"{base}/check-in").status_code == 403
    assert one.check_in() == {"status": "finished"}
    form(f"/admin{task or '/task'}/resume")
    form(f"/admin{task or '/task'}/roll-back", version=str(service.kept_versions()[0]))
    form("/admin/log-out")

    wanted = {path for path in document(app)["paths"] if ("{task}" in path) == bool(task)}
    wanted = {
        path
        for path in wanted
        if not path.endswith(("/control", "/{number}/model")) and "/secure/" not in path
    }  # other tasks have these
    assert {path for path, _ in succeeded} >= wanted
    assert len(wanted) > 20


@pytest.mark.parametrize("task", ["", "/tasks/default"])
def test_a_session_of_secure_aggregation_answers_as_it_is_written(make_service, new_phone, checked, task):
    secure = SecureAggregation(on=True, devices=3, phase_deadline_s=2.0)
    algorithm = Algorithm(upload="summable", update_clip_norm=1.0, weights="uniform", secure=secure)
    service = make_service(algorithm=algorithm, cohort=3, over_selection=1.0, min_reports=3)
    client, succeeded = checked(create_app(service))
    phone = new_phone(client, base=f"/v1{task}")
    assert phone.check_in()["secure"] is True
    path, octets = f"/v1{task}/rounds/0/secure", {"content_type": "application/octet-stream"}
    terms = Terms.decode(phone.signed("GET", f"{path}/terms").data)
    assert phone.signed("GET", f"{path}/roster").status_code == 202
    asked = {"task": terms.task, "round": 0, "model_sha256": terms.model_sha256, "words": terms.words}
    device = Device(phone.key, seen=set(), floors=Floors(devices=3))
    advert = device.join(terms, **asked, now=service.wall_clock()).encode()
    assert phone.signed("POST", f"{path}/advertise", advert, **octets).status_code == 204
    assert phone.signed("POST", f"{path}/share", advert, **octets).status_code == 400
    template = f"/v1{'/tasks/{task}' if task else ''}/rounds/{{number}}/secure"
    assert succeeded >= {(f"{template}/{{what}}", "get"), (f"{template}/{{step}}", "post")}


class Known:
    """An application in front of which every second request is signed, or shows an administrator's token."""

    def __init__(self, app, signer: Signer, token: str, now: float) -> None:
        self._app, self._signer, self._token, self._now = app, signer, token, now
        self._count = 0

    def __call__(self, environ, start_response):
        self._count += 1
        asked = Request(environ)
        if self._count % 2 and not {"\r", "\n"} & set(asked.path):  # a signature covers lines
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(body)
            shown = self._signer.sign(method=asked.method, path=asked.path, body=body, timestamp=self._now)
            shown["Authorization"] = f"Bearer {self._token}"
            environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in shown.items()}
        return self._app(environ, start_response)


@pytest.fixture
def operations_of(served, new_phone, monkeypatch):
    """The operations of an endpoint, on a service after a round and with a bundle, in front of which `Known` stands."""
    service, client = served
    for phone in (new_phone(client), new_phone(client)):
        phone.take_part(service)
    (service.folder / "config.toml").write_text("seed = 1")
    token = Credentials(service.folder).new_token()
    app = create_app(service)
    key = generate_key()
    service.administration.server.registry.enrol(public_key(key), 0.0)
    monkeypatch.setattr(Sessions, "form_fits", lambda *_: True)  # as if each form came from its page
    monkeypatch.setattr(Sessions, "has", lambda *_: True)
    schema = schemathesis.openapi.from_dict(strict(app))
    known = Known(app, Signer(key), token, service.wall_clock())

    def find(endpoint):
        rules = [(rule, method) for rule, method in asked(app) if rule.endpoint == endpoint]
        return [schema[address(rule)][method.upper()] for rule, method in rules], known

    return find


@pytest.mark.parametrize("endpoint", OPERATIONS)
def test_whatever_is_sent_is_answered_as_it_is_written(operations_of, endpoint):
    operations, app = operations_of(endpoint)
    for operation in operations:
        anything = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        if operation.path_parameters or operation.query or operation.headers or operation.body:
            anything |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

        @settings(EXAMPLES, max_examples=8 if "{task}" in operation.path else 20)
        @given(case=anything)
        def holds(case):
            if len(str(case.path_parameters.get("task", ""))) % 4:
                case.path_parameters["task"] = "default"
            for name, value in case.path_parameters.items():
                if isinstance(value, int) and value % 4:  # rounds and versions that there may be
                    case.path_parameters[name] = value % 4 - 1
            answer = case.call(app=app)
            assert answer.status_code < 500 or answer.status_code == 503
            case.validate_response(answer, checks=CHECKS)

        holds()
