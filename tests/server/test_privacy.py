"""A task with privacy behind the real application: its ledger before its models, its end, and servers that die."""

import errno
import re
import shutil
import sqlite3
import time
from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import PRESETS
from kbdfl.cli.serve_plan import Plan, PlannedTask
from kbdfl.cli.serve_tasks import started
from kbdfl.errors import ConfigError, DataError
from kbdfl.export.bundle import write_bundle
from kbdfl.export.run import read_run
from kbdfl.params import digest, load_checkpoint
from kbdfl.privacy import Parts, so_far, statement
from kbdfl.privacy.ledger import account_of
from kbdfl.run import RunConfig, Settings
from kbdfl.server import audit_log
from kbdfl.server.app import create_app
from kbdfl.server.backup import back_up, restore
from kbdfl.server.credentials import Credentials
from kbdfl.server.postgres.store import PostgresStore
from kbdfl.server.service import Background
from kbdfl.server.serving import running
from kbdfl.server.store import SqliteStore
from kbdfl.task import RoundRule
from kbdfl.transform import Draws, encode_chain
from kbdfl.wire import encode_report
from tests.server.conftest import Phone

NOISE = {"noise_multiplier": 40.0, "delta": 1e-6, "epsilon": 0.0, "separation": 2}
MECHANISMS = {"dp-fedavg": {}, "dp-banded": {"bands": 2}, "dp-ftrl": {"restart": 2}}


def private(preset="dp-fedavg", **privacy):
    """One of the presets, at tiny scale and without a budget unless one is given."""
    algorithm = PRESETS[preset]
    terms = replace(algorithm.privacy, **NOISE | MECHANISMS[preset] | privacy)
    return replace(algorithm, upload="float32", privacy=terms)


def rule(preset="dp-fedavg", **privacy):
    return {"algorithm": private(preset, **privacy), "min_reports": 0, "over_selection": 1.0, "rounds": 8}


def budget_of(releases, preset="dp-fedavg", **more):
    """The epsilon after so many releases of a task."""
    terms, task = private(preset, **more).privacy, {"rounds": 8, "cohort": 2}
    return terms.claim(terms.rho(releases, **task), draws=1_000 * releases)


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(autouse=True)
def no_ticker(monkeypatch):
    """Rounds end when a test says so."""
    monkeypatch.setattr("kbdfl.server.service.TICK_S", 3_600.0)


@pytest.fixture
def begin(make_service, new_phone):
    """A service, and phones that have enrolled there."""

    def begin(count=4, **options):
        service = make_service(**options)
        client = create_app(service).test_client()
        return service, [new_phone(client) for _ in range(count)]

    return begin


@pytest.fixture
def crash(make_service, tmp_path):
    """A second server on what a first one would leave if it were killed now; phones go over to it."""
    made = []

    def again(service, phones, **options):
        folder = tmp_path / f"crashed {len(made)}"
        assert service.wait_settled(20.0)  # or metrics.jsonl might be renamed while it is copied
        shutil.copytree(service.folder, folder)
        (folder / "server.lock").unlink()
        made.append(make_service(folder=folder, **options))
        client = create_app(made[-1]).test_client()
        for phone in phones:
            phone.client = client
        return made[-1]

    return again


def play(service, phones):
    """A round of two phones."""
    for phone in phones:
        phone.take_part(service)


def ledger(service):
    return service._store.books.rows()


def statuses(service):
    return [row["status"] for row in service.metrics(0)[0]]


def log_of(service, *what):
    entries = audit_log.entries(service.administration.server.records)
    return [entry for entry in reversed(entries) if entry["what"] in what]


@pytest.mark.parametrize("preset", MECHANISMS)
def test_a_round_over_http_is_a_row_of_the_ledger_before_it_is_a_model(begin, preset, monkeypatch):
    service, phones = begin(**rule(preset))
    store, seen = service._store, []
    save = store.save
    monkeypatch.setattr(
        store, "save", lambda *of, **more: (seen.append(len(ledger(service))), save(*of, **more))
    )
    pairs = phones[:2], phones[2:]
    for number in range(4):
        play(service, pairs[number % 2])
    assert seen == [1, 2, 3, 4]
    rows = ledger(service)
    assert [row.round for row in rows] == [0, 1, 2, 3]
    metrics, _ = service.metrics(0)
    assert [row["epsilon"] for row in metrics] == [row.epsilon for row in rows]
    assert store.books.participations() == {
        phone.id: Parts(2, 2 + at // 2) for at, phone in enumerate(phones)
    }
    # What a checkpoint says, and what the pages say, is what the ledger says.
    _, _, facts = load_checkpoint(service.checkpoint())
    status = phones[0].client.get("/v1/status").json["privacy"]
    assert facts["privacy"] == status["sentence"] == statement(rows[-1])
    assert (status["releases"], status["epsilon"], status["rho"]) == (4, rows[-1].epsilon, rows[-1].rho)
    assert (status["budget_epsilon"], status["spent"], status["delta"]) == (None, False, 1e-6)


def test_before_the_first_release_nothing_is_spent(begin):
    service, phones = begin(**rule(epsilon=5.0, noise_multiplier=1.0))
    status = phones[0].client.get("/v1/status").json["privacy"]
    assert (status["epsilon"], status["rho"], status["releases"], status["budget_epsilon"]) == (0, 0, 0, 5)
    assert "for the 0 models published" in status["sentence"]
    assert status["sentence"] == so_far(service._coordinator.privacy.ledger)
    metrics = phones[0].client.get("/metrics").text
    assert 'kbdfl_privacy_epsilon{task="default"} 0.0' in metrics
    assert 'kbdfl_privacy_budget_epsilon{task="default"} 5.0' in metrics


def test_a_task_without_privacy_says_nothing_of_it(client):
    assert client.get("/v1/status").json["privacy"] is None
    assert "kbdfl_privacy" not in client.get("/metrics").text


def test_devices_wait_for_their_time_and_for_good_once_their_parts_are_used_up(begin, crash):
    options = rule(participations=1)
    service, phones = begin(count=6, **options)
    for each in (service, crash(service, (), **options)):  # the same before and after a kill
        assert each.round == 0
    play(service, phones[:2])
    assert [phone.check_in()["status"] for phone in phones[:2]] == ["wait", "wait"]
    again = crash(service, phones, **options)
    assert [phone.check_in()["status"] for phone in phones[:2]] == ["wait", "wait"]
    play(again, phones[2:4])
    play(again, phones[4:])
    third = crash(again, phones, **options)
    assert {phone.check_in()["status"] for phone in phones} == {"wait"}
    assert [row.devices for row in ledger(third)] == [2, 2, 2]


@pytest.mark.parametrize("preset", MECHANISMS)
def test_a_server_killed_between_ledger_and_model_spends_the_budget_and_draws_no_second_noise(
    begin, crash, preset, monkeypatch, caplog
):
    options = rule(preset)
    service, phones = begin(**options)
    play(service, phones[:2])
    before = digest(service._coordinator.params)
    phones[2].take_part(service)
    assignment = phones[3].check_in()
    service._turn.journal.wait(
        service._turn.journal.changed()
    )  # its sum is on the disk, and must not be used again
    frame = phones[3].frame(assignment, service.task.algorithm, size=service.task.config.spec.size)

    def killed(*_, **__):
        raise Killed

    monkeypatch.setattr(service._store, "save", killed)
    with pytest.raises(Killed):
        phones[3].report(assignment["round"], frame)
    assert [row.round for row in ledger(service)] == [0, 1]
    again = crash(service, phones, **options)
    assert "its release was booked, and its model was lost" in caplog.text
    assert statuses(again) == ["committed", "abandoned"]
    assert [row.round for row in ledger(again)] == [0, 1]  # spent, and not spent again
    assert (again.round, digest(again._coordinator.params)) == (2, before)
    (said,) = log_of(again, "release lost")
    assert (said["round"], said["releases"], said["epsilon"]) == (1, 2, ledger(again)[1].epsilon)
    assert log_of(again, "round abandoned")[-1]["round"] == 1
    assert again._coordinator.reports == 0  # nothing of round 1 comes back
    # Its devices are barred as if it had been published, those of the round before are not.
    answer = phones[3].report(assignment["round"], frame)
    assert answer.status_code == 409
    assert [phone.check_in()["status"] for phone in phones] == ["assigned", "assigned", "wait", "wait"]
    play(again, phones[:2])
    assert [row.round for row in ledger(again)] == [0, 1, 2]
    # Killed again, it knows that round 2 is closed.
    third = crash(again, phones, **options)
    assert statuses(third) == ["committed", "abandoned", "committed"]
    assert digest(third._coordinator.params) == digest(again._coordinator.params)


def test_a_server_killed_before_the_row_is_kept_has_spent_nothing(begin, crash, monkeypatch):
    options = rule()
    service, phones = begin(**options)
    phones[0].take_part(service)
    assignment = phones[1].check_in()
    frame = phones[1].frame(assignment, service.task.algorithm, size=service.task.config.spec.size)

    class Dying:
        """A connection that is killed in the middle of the ledger's transaction."""

        def __init__(self, database):
            self._database = database

        def __enter__(self):
            return self._database.__enter__()

        def __exit__(self, *_):
            self._database.rollback()
            raise Killed

        def __getattr__(self, name):
            return getattr(self._database, name)

    service._turn.journal.wait(service._turn.journal.changed())
    books = service._store.books
    monkeypatch.setattr(books, "_database", Dying(books._database))
    with pytest.raises(Killed):
        phones[1].report(0, frame)
    monkeypatch.undo()
    again = crash(service, phones, **options)
    assert (ledger(again), again._store.books.participations()) == ([], {})
    assert again._coordinator.reports == 1
    assert phones[1].report(0, frame).status_code == 200
    assert [row.round for row in ledger(again)] == [0]
    assert statuses(again) == ["committed"]


def test_a_row_that_the_disk_refuses_releases_nothing_until_it_is_kept(begin, monkeypatch):
    service, phones = begin(**rule())
    phones[0].take_part(service)
    assignment = phones[1].check_in()
    frame = phones[1].frame(assignment, service.task.algorithm, size=service.task.config.spec.size)
    books, before = service._store.books, digest(service._coordinator.params)
    book = books.book

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(books, "book", full)
    assert phones[1].report(0, frame).status_code == 503
    assert (service.round, digest(service._coordinator.params), ledger(service)) == (0, before, [])
    monkeypatch.setattr(books, "book", book)
    service.tick()
    assert phones[1].report(0, frame).json == {"accepted": True, "duplicate": True}
    assert (len(ledger(service)), statuses(service)) == (1, ["committed"])


def test_a_model_that_the_disk_refuses_is_the_same_model_later_and_nobody_joins_it(begin, monkeypatch):
    """With a third phone that was selected too: its update is in no sum, so it is not counted."""
    service, phones = begin(**rule() | {"over_selection": 1.5})
    parts = [phone.check_in() for phone in phones[:3]]
    frames = [
        phone.frame(part, service.task.algorithm, size=service.task.config.spec.size, seed=at)
        for at, (phone, part) in enumerate(zip(phones, parts, strict=False))
    ]
    save, tried = service._store.save, []

    def full(result, params, *_, **__):
        tried.append(digest(params))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(service._store, "save", full)
    phones[0].report(0, frames[0])
    assert phones[1].report(0, frames[1]).status_code == 503
    late = phones[2].report(0, frames[2])
    assert (late.status_code, "is being closed" in late.json["detail"]) == (409, True)
    assert phones[1].report(0, frames[1]).status_code == 200  # it is known already
    monkeypatch.setattr(service._store, "save", save)
    service.tick()
    assert tried == [digest(service._coordinator.params)]
    (row,) = ledger(service)
    assert row.devices == service.metrics(0)[0][0]["reports"] == 2
    assert phones[2].id not in service._store.books.participations()


def test_a_task_stops_when_its_budget_is_spent_and_says_so_everywhere(begin, crash):
    budget = 1.0001 * budget_of(3, separation=1)
    options = rule(epsilon=budget, separation=1)
    service, phones = begin(**options)
    pairs = phones[:2], phones[2:]
    for number in range(3):
        assert service.status()["phase"] == "open"
        play(service, pairs[number % 2])
    again = crash(service, phones, **options)
    for each in (service, again):
        status = each.status()
        assert (status["phase"], status["round"], status["rounds"]) == ("finished", 3, 8)
        assert status["privacy"]["spent"] is True
        assert status["privacy"]["epsilon"] <= budget
        assert len(ledger(each)) == 3
        (entry,) = log_of(each, "privacy budget spent")  # once, whoever asks
        assert (entry["round"], entry["releases"], entry["budget_epsilon"]) == (2, 3, budget)
        client = create_app(each).test_client()
        assert client.get("/v1/tasks").json["tasks"][0]["state"] == "finished"
        assert (
            f'kbdfl_privacy_epsilon{{task="default"}} {status["privacy"]["epsilon"]}'
            in client.get("/metrics").text
        )
    assert {phone.check_in()["status"] for phone in phones} == {"finished"}
    again.tick()
    assert len(ledger(again)) == 3


def test_a_budget_that_a_lost_release_has_spent_is_spent(begin, crash, monkeypatch):
    options = rule(epsilon=1.0001 * budget_of(1, separation=1), separation=1)
    service, phones = begin(**options)
    phones[0].take_part(service)
    assignment = phones[1].check_in()
    frame = phones[1].frame(assignment, service.task.algorithm, size=service.task.config.spec.size)

    service._turn.journal.wait(service._turn.journal.changed())

    def killed(*_, **__):
        raise Killed

    monkeypatch.setattr(service._store, "save", killed)
    with pytest.raises(Killed):
        phones[1].report(0, frame)
    again = crash(service, phones, **options)
    assert (again.status()["phase"], statuses(again), again.version) == ("finished", ["abandoned"], 0)
    assert phones[2].check_in()["status"] == "finished"
    assert len(log_of(again, "privacy budget spent")) == 1
    for path in again.folder.glob("in-flight-*.bin"):
        again._turn.journal.wait(again._turn.journal.newest)
        assert phones[0].id.encode() not in path.read_bytes()


def test_the_admin_page_says_why_a_task_has_stopped(begin):
    service, phones = begin(**rule(epsilon=1.0001 * budget_of(1, separation=1), separation=1))
    credentials = Credentials(service.folder)
    credentials.set_password("a password of a test")
    client = create_app(service, credentials=credentials).test_client()
    page = client.get("/admin").text
    form = re.search('name="form_token" value="([^"]+)"', page)[1]
    client.post("/admin/log-in", data={"password": "a password of a test", "form_token": form})
    assert "may be selected" in client.get("/admin").text
    play(service, phones[:2])
    page = client.get("/admin").text
    assert "its privacy budget is spent" in page
    assert "may be selected" not in page
    assert "privacy budget spent" in page  # the entry of the audit log
    assert 'data-phase="finished"' in page
    headers = {"Authorization": f"Bearer {credentials.new_token()}"}
    task = client.get("/v1/admin/task", headers=headers).json
    assert (task["finished"], task["privacy"]["spent"]) == (True, True)


def test_a_rollback_gives_nothing_back(begin):
    service, phones = begin(**rule())
    play(service, phones[:2])
    play(service, phones[2:])
    service.roll_back(1, by="admin")
    assert len(ledger(service)) == 2
    assert service.status()["privacy"]["releases"] == 2
    assert [phone.check_in()["status"] for phone in phones] == ["assigned", "assigned", "wait", "wait"]
    play(service, phones[:2])
    assert [row.round for row in ledger(service)] == [0, 1, 3]


@pytest.mark.parametrize("preset", ["dp-banded", "dp-ftrl"])
def test_a_stream_that_a_kill_cut_off_begins_anew_and_costs_what_the_rows_say(begin, crash, preset):
    options = rule(preset)
    service, phones = begin(**options)
    pairs = phones[:2], phones[2:]
    for number in range(2):
        play(service, pairs[number % 2])
    stream = service._coordinator.privacy._stream
    again = crash(service, phones, **options)
    fresh = again._coordinator.privacy._stream
    if preset == "dp-banded":
        assert (len(stream._sums), len(fresh._sums)) == (1, 0)
    else:
        assert (stream._leaves, fresh._leaves) == (2, 0)
    for number in range(2):
        play(again, pairs[number % 2])
    rows = ledger(again)
    # The bound for one stream of four releases covers two streams of two: see tests/privacy/test_streams.py.
    account = account_of(rows[-1])
    assert [row.rho for row in rows] == [account.rho(number + 1) for number in range(4)]
    assert rows[1].rho <= rows[-1].rho <= 2 * rows[1].rho


def test_a_bundle_says_what_the_ledger_says(begin, vocabulary):
    def export(params, folder, *, round, version):
        facts = {"version": version, "privacy": so_far(made[0]._coordinator.privacy.ledger)}
        config = made[0].task.config
        write_bundle(
            folder, params=params, config=config, vocabulary=vocabulary, precision="int8", facts=facts
        )

    made = []
    service, phones = begin(**rule(), background=Background(export=export, export_every=1))
    made.append(service)
    play(service, phones[:2])
    assert service.wait_settled(20.0)
    manifest = phones[0].client.get("/v1/models/latest/manifest.json").json
    assert manifest["privacy"] == statement(ledger(service)[-1])


def test_a_backup_keeps_the_ledger_and_a_restored_server_keeps_to_it(begin, make_service, tmp_path):
    service, phones = begin(**rule())
    (service.folder / "config.toml").write_text("")
    play(service, phones[:2])
    back_up(service.folder, tmp_path / "kept.tar.gz")
    restore(tmp_path / "kept.tar.gz", tmp_path / "restored")
    again = make_service(folder=tmp_path / "restored", **rule())
    assert ledger(again) == ledger(service)
    assert again._store.books.participations() == service._store.books.participations()
    client = create_app(again).test_client()
    for phone in phones:
        phone.client = client
    assert [phone.check_in()["status"] for phone in phones] == ["wait", "wait", "assigned", "assigned"]


def test_a_backup_between_ledger_and_model_is_a_release_that_was_lost(
    begin, make_service, tmp_path, monkeypatch
):
    service, phones = begin(**rule())
    (service.folder / "config.toml").write_text("")
    save = service._store.save

    def meanwhile(*of, **more):
        back_up(service.folder, tmp_path / "kept.tar.gz")
        save(*of, **more)

    monkeypatch.setattr(service._store, "save", meanwhile)
    play(service, phones[:2])
    restore(tmp_path / "kept.tar.gz", tmp_path / "restored")
    again = make_service(folder=tmp_path / "restored", **rule())
    assert (len(ledger(again)), statuses(again), again.version) == (1, ["abandoned"], 0)


@pytest.fixture
def reopen():
    """What a server asks first of a folder that was served: its ledger, under the promise of some options."""

    def books_of(service, **options):
        service.close()
        task = replace(service.task, algorithm=private(**options))
        store = SqliteStore(service.folder, task.config.spec)
        try:
            return task.central(store.books).ledger
        finally:
            store.close()

    return books_of


def test_a_ledger_that_was_changed_is_not_served(begin, reopen):
    service, phones = begin(**rule())
    play(service, phones[:2])
    play(service, phones[2:])
    assert len(reopen(service)) == 2
    with sqlite3.connect(service.folder / "server.sqlite3") as database:
        database.execute("DELETE FROM privacy_ledger WHERE number = 0")
    with pytest.raises(DataError, match="the ledger was altered: row 0"):
        reopen(service)


def test_a_ledger_of_another_promise_is_not_served(begin, reopen):
    service, phones = begin(**rule())
    play(service, phones[:2])
    with pytest.raises(ConfigError, match="the ledger is of another promise"):
        reopen(service, noise_multiplier=20.0)


def test_a_ledger_in_postgresql_is_refused_in_one_line():
    with pytest.raises(ConfigError, match="privacy must be none in PostgreSQL"):
        PostgresStore.books.fget(None)


def test_older_folders_get_the_tables_of_the_ledger(begin, make_service):
    service, _ = begin()
    service.close()
    with sqlite3.connect(service.folder / "server.sqlite3") as database:
        database.executescript("DROP TABLE privacy_parts; DROP TABLE privacy_ledger")
    assert ledger(make_service(folder=service.folder)) == []


def test_noise_of_a_released_model_is_that_of_the_promise(begin):
    """A phone that reports zeros would read nothing but noise: its standard deviation is the stated one."""
    service, phones = begin(**rule(noise_multiplier=3.0))
    before = service._coordinator.params.copy()
    for phone in phones[:2]:
        assignment = phone.check_in()
        zeros = np.zeros(service.task.config.spec.size, np.float32)
        update = encode_chain(
            service.task.algorithm.transforms, zeros, Draws(assignment["seed"], assignment["round_seed"])
        )
        frame = encode_report(
            update, task=assignment["task"], round=0, device=phone.id, model_sha256=assignment["model_sha256"],
            spec_hash=assignment["spec"], upload="float32", examples=1, tokens=1, train_loss=1.0,
        )  # fmt: skip
        assert phone.report(0, frame).status_code == 200
    noise = service._coordinator.params - before
    assert noise.std() == pytest.approx(3.0 / 2, rel=0.35)


@pytest.fixture
def planned(tmp_path):
    """`kbdfl serve` of a task with privacy, as far as its command goes; one after another in one folder."""
    config = RunConfig(
        settings=Settings(preset="tiny", devices=20),
        algorithm=private(epsilon=1.0001 * budget_of(3, separation=1), separation=1),
        rule=RoundRule(cohort=2, over_selection=1.0, rounds=8),
    )
    folder = tmp_path / "served"
    plan = Plan(folder, (PlannedTask(config, folder),))
    return lambda: started(plan, evaluate=False, export_every=1)


class Today(Phone):
    """Signs by the real clock, as the command's server reads it."""

    def signed(self, *of, **more):
        return super().signed(*of, at=time.time(), **more)


def test_the_command_keeps_the_ledger_and_every_bundle_and_export_says_what_it_says(planned):
    spent = []
    for rounds in (2, 1):  # the second process goes on
        with planned() as tasks:
            service = tasks.first.service
            assert len(ledger(service)) == len(spent)
            client = create_app(tasks).test_client()
            for _ in range(rounds):
                play(service, [Today(client).enrol() for _ in range(2)])
            assert service.wait_settled(30.0)
            spent = ledger(service)
            manifest = client.get("/v1/models/latest/manifest.json").json
            assert manifest["privacy"] == statement(spent[-1])
            assert read_run(service.folder).facts["privacy"] == manifest["privacy"]
    assert len(spent) == 3
    with planned() as tasks:
        assert tasks.first.service.status()["phase"] == "finished"
        assert tasks.first.state == "finished"
        assert len(log_of(tasks.first.service, "privacy budget spent")) == 1


@pytest.fixture
def expect(browser):
    """Playwright's, which asks a page again until it is so."""
    return pytest.importorskip("playwright.sync_api").expect


@pytest.mark.browser
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desktop", "phone"])
def test_the_dashboard_shows_what_is_spent_and_the_sentence(begin, browser, expect, size):
    service, phones = begin(**rule(epsilon=1.0001 * budget_of(2, separation=1), separation=1))
    play(service, phones[:2])
    with running(create_app(service)) as server:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        page, complaints = context.new_page(), []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("#privacy:not([hidden])")
        assert page.text_content("#sentence") == statement(ledger(service)[-1])
        assert page.text_content("#epsilon") == f"{ledger(service)[-1].epsilon:.3g}"
        expect(page.locator("#chart-epsilon .legendtext")).to_have_text(["spent", "budget"])
        play(service, phones[2:])
        expect(page.locator("#phase-text")).to_contain_text("privacy budget is spent")
        assert page.text_content("#sentence") == statement(ledger(service)[-1])
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert complaints == []
        context.close()


@pytest.mark.browser
def test_the_dashboard_of_a_task_without_privacy_is_silent_about_it(service, browser, expect):
    with running(create_app(service)) as server:
        page = browser.new_page()
        page.goto(server.url)
        expect(page.locator("#phase")).to_have_text("learning")
        expect(page.locator("#privacy")).to_be_hidden()
        page.close()
