"""A real coordinator on a tiny model, behind the real service and application, with phones that can sign."""

import base64
import json
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, FedAdam, Mode, Synchronous
from kbdfl.coordinator import Coordinator
from kbdfl.export.bundle import write_bundle
from kbdfl.identity import device_id, generate_key, public_key, sign_request
from kbdfl.model import CifgConfig, init_params
from kbdfl.rng import stream
from kbdfl.server.administration import Administration, TaskAdministration
from kbdfl.server.app import create_app
from kbdfl.server.service import Background, TaskService
from kbdfl.server.store import SqliteStore
from kbdfl.server.tasks import ServedTask, Tasks
from kbdfl.task import RoundRule, Task
from kbdfl.text import Vocabulary
from kbdfl.transform import Draws, Update, encode_chain
from kbdfl.wire import encode_report
from tests.server import cluster

WORDS = "the you i to and see sea seen seem later hello how are we be there tomorrow thanks on at home"
NOW = 1_800_000_000.0  # the wall clock of these tests
PATIENCE_S = 20.0


def make_task(
    vocabulary: Vocabulary,
    *,
    name: str = "test keyboard",
    hidden: int = 6,
    mode: Mode | None = None,
    algorithm: Algorithm | None = None,
    **rule,
) -> Task:
    rule = {"cohort": 2, "over_selection": 1.5, "min_reports": 1, "deadline_s": 30.0, "rounds": 3} | rule
    return Task(
        name=name,
        config=CifgConfig(vocab=len(vocabulary), embed=4, hidden=hidden),
        algorithm=algorithm or Algorithm(server=FedAdam(), mode=mode or Synchronous()),
        rule=RoundRule(**rule),
        vocabulary_sha256=vocabulary.sha256,
        seed=1,
    )


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Phone:
    """Speaks to a Flask test client as a phone speaks to the server; the addresses of its task begin with `base`."""

    client: object
    key: bytes = field(default_factory=generate_key)
    base: str = "/v1"

    @property
    def id(self) -> str:
        return device_id(public_key(self.key))

    def enrol(self) -> "Phone":
        body = {"public_key": base64.b64encode(public_key(self.key)).decode()}
        answer = self.client.post(f"{self.base}/enrol", json=body)
        assert answer.status_code == 200, answer.json
        return self

    def signed(self, method: str, path: str, body: bytes = b"", *, at: float = NOW, headers=None, **more):
        signature = sign_request(self.key, method=method, path=path, body=body, timestamp=at)
        headers = signature | (headers or {})
        return self.client.open(path, method=method, data=body, headers=headers, **more)

    def check_in(self, population: str | None = None) -> dict:
        """What is answered; one that belongs to a population works for the task that this names, from then on."""
        offer = b"" if population is None else json.dumps({"population": population}).encode()
        path = f"{self.base}/check-in" if population is None else "/v1/check-in"
        answer = self.signed("POST", path, offer, content_type="application/json")
        assert answer.status_code == 200, answer.json
        self.base = answer.json.get("base", self.base)
        return answer.json

    def frame(self, assignment: dict, algorithm: Algorithm, *, size: int, seed: int = 0, **changes) -> bytes:
        delta = 0.01 * stream(seed, self.id).standard_normal(size, np.float32)
        update = encode_chain(
            algorithm.transforms, delta, Draws(assignment["seed"], assignment["round_seed"])
        )
        return self.framed(assignment, update, **changes)

    def framed(self, assignment: dict, update: Update, **changes) -> bytes:
        """The report of an update that is encoded already."""
        fields = {
            "task": assignment["task"],
            "round": assignment["round"],
            "device": self.id,
            "model_sha256": assignment["model_sha256"],
            "spec_hash": assignment["spec"],
            "upload": assignment["upload"],
            "examples": 5,
            "tokens": 40,
            "train_loss": 3.5,
        }
        return encode_report(update, **(fields | changes))

    def report(self, number: int, frame: bytes, **more):
        more = {"content_type": "application/octet-stream"} | more
        return self.signed("POST", f"{self.base}/rounds/{number}/report", frame, **more)

    def take_part(
        self, service: TaskService, *, seed: int = 0, population: str | None = None
    ) -> tuple[dict, bytes]:
        """Check in and report; the assignment and the frame."""
        assignment = self.check_in(population)
        assert assignment["status"] == "assigned", assignment
        task = service.task
        frame = self.frame(assignment, task.algorithm, size=task.config.spec.size, seed=seed)
        answer = self.report(assignment["round"], frame)
        assert answer.status_code == 200, answer.json
        return assignment, frame


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.of_words(WORDS.split(), "the words of a test")


@pytest.fixture(scope="session")
def postgres_server():
    """The address of a PostgreSQL, which tests make databases in."""
    if why := cluster.missing():
        pytest.skip(why)
    with cluster.running() as url:
        yield url


@pytest.fixture
def postgres(postgres_server):
    """The address of an empty database."""
    with cluster.database(postgres_server) as url:
        yield url


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_service(tmp_path, vocabulary, clock):
    """Services over one folder, one after another; all are closed at the end."""
    services = []

    def make(*, folder=tmp_path / "run", background: Background | None = None, start: bool = True, **rule):
        task = make_task(vocabulary, **rule)
        store = SqliteStore(folder, task.config.spec)
        params = init_params(task.config, seed=1)
        coordinator = Coordinator(
            task, params, store=store, random=np.random.default_rng(1), privacy=task.central(store.books)
        )
        service = TaskService(coordinator, store, background=background, clock=clock, wall_clock=lambda: NOW)
        if start:
            service.start()
            services.append(service)
        return service

    yield make
    for service in services:
        service.close()


@pytest.fixture
def make_tasks(tmp_path, vocabulary, clock):
    """Several tasks in one folder: `make_tasks(en={"hidden": 8, "cohort": 1}, de={})`; closed at the end."""
    closing = ExitStack()

    def make(*, folder=tmp_path / "several", background: Background | None = None, **given) -> Tasks:
        folder.mkdir(parents=True, exist_ok=True)
        server = Administration(folder, wall_clock=lambda: NOW)
        closing.callback(server.close)
        served = []
        for name, of in given.items():
            rule = dict(of)
            population, begins = rule.pop("population", name), rule.pop("begins", "open")
            task = make_task(vocabulary, name=name, **rule)
            store = SqliteStore(folder / "tasks" / name, task.config.spec)
            params = init_params(task.config, seed=1)
            coordinator = Coordinator(task, params, store=store, random=np.random.default_rng(1))
            own = TaskAdministration(server, name=name, begins=begins)
            service = TaskService(
                coordinator,
                store,
                background=background,
                administration=own,
                clock=clock,
                wall_clock=lambda: NOW,
            )
            closing.callback(service.close)
            service.start()
            served.append(ServedTask(name, population, service))
        return Tasks(served, folder=folder)

    make.close = closing.close
    yield make
    closing.close()


@pytest.fixture
def background(vocabulary):
    """Background work after every round, and what it has done; recall rises with every measurement."""
    done = {"evaluate": [], "export": []}
    config = make_task(vocabulary).config

    def evaluate(params: np.ndarray) -> dict[str, float]:
        done["evaluate"].append(params)
        return {"recall_top1": 0.1 * len(done["evaluate"]), "recall_top3": 0.2 * len(done["evaluate"])}

    def export(params: np.ndarray, folder: Path, *, round: int, version: int) -> None:
        facts = {"rounds": version, "version": version, "data": "a test"}
        write_bundle(
            folder, params=params, config=config, vocabulary=vocabulary, precision="int8", facts=facts
        )
        done["export"].append(version)

    return Background(evaluate=evaluate, evaluate_every=1, export=export, export_every=1), done


@pytest.fixture
def service(make_service) -> TaskService:
    return make_service()


@pytest.fixture
def app(service):
    return create_app(service)


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def phone(client) -> Phone:
    return Phone(client).enrol()


@pytest.fixture
def new_phone():
    """Enrolled phones that speak through a client."""
    return lambda client, base="/v1": Phone(client, base=base).enrol()


@pytest.fixture
def play(service):
    """Play one phone's part in a round: check in, report something."""
    return lambda phone, seed=0: phone.take_part(service, seed=seed)


@pytest.fixture
def served(make_service, background):
    """A service with background work whose first bundle is out, and a client of it."""
    service = make_service(background=background[0])
    assert service.wait_settled(PATIENCE_S)
    return service, create_app(service).test_client()


@pytest.fixture
def finished(served, new_phone):
    """The same after all of its rounds."""
    service, client = served
    phones = [new_phone(client) for _ in range(2)]
    for number in range(3):
        for phone in phones:
            phone.take_part(service, seed=number)
        assert service.wait_settled(PATIENCE_S)
    return service, client


def problem(answer) -> dict:
    """The problem document of an answer, checked for its form."""
    assert answer.content_type == "application/problem+json"
    document = json.loads(answer.data)
    assert document.keys() == {"title", "status", "detail"}
    assert document["status"] == answer.status_code >= 400
    assert document["detail"]
    assert "\n" not in document["detail"]
    assert "Traceback" not in document["detail"]
    return document


@pytest.fixture(name="problem")
def problem_fixture():
    return problem


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, which asks nobody for anything by itself."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    playwright.expect.set_options(timeout=30_000)  # a page may wait for a busy machine
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()
