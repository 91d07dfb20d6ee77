"""A session of secure aggregation behind the real application: its phases, who is told what, and a server that dies."""

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, FedAvg
from kbdfl.algorithms.secure import SecureAggregation
from kbdfl.assignment import Assignment
from kbdfl.device_sim.encoding import payload_of
from kbdfl.device_sim.joined import Joined
from kbdfl.device_sim.secure import ASKED, STEPS, Caution, SecurePart
from kbdfl.errors import ConfigError, Conflict, WireError
from kbdfl.params import digest, load_checkpoint
from kbdfl.privacy import Privacy
from kbdfl.secagg import Floors, messages
from kbdfl.secagg.payload import bits_for, unpack
from kbdfl.server.app import create_app
from kbdfl.server.audit_log import entries
from kbdfl.server.secure import SecureRoom
from tests.server.conftest import NOW

WAIT_S = 2.0
SECURE = Algorithm(
    upload="summable",
    update_clip_norm=1.0,
    weights="uniform",
    secure=SecureAggregation(on=True, devices=3, phase_deadline_s=WAIT_S),
)
RULE = {"algorithm": SECURE, "cohort": 4, "over_selection": 1.25, "min_reports": 3, "deadline_s": 30.0}


class Through:
    """What carries a part's messages to a Flask client, and says what came back."""

    def __init__(self, phone):
        self.phone, self.answers = phone, []

    def signed(self, key, method, path, *, body=b"", content_type=""):
        assert key == self.phone.key
        answer = self.phone.signed(method, path, body, content_type=content_type or None)
        self.answers.append(answer)
        if answer.status_code in (409, 410):
            raise Conflict(answer.json["detail"])
        if answer.status_code >= 400:
            raise WireError(answer.json["detail"])
        return answer.data


@pytest.fixture(autouse=True)
def no_ticker(monkeypatch):
    """Phases end when a test says so."""
    monkeypatch.setattr("kbdfl.server.service.TICK_S", 3_600.0)


@pytest.fixture
def take_part():
    """A phone checks in, and has a part in the session; None if it was told to wait."""

    def begin(phone, *, joined=None, floors=3, silent=None):
        told = phone.check_in()
        if told["status"] != "assigned":
            return None
        told.pop("status")
        assignment = Assignment.from_json(told)
        frame = phone.frame(told, SECURE, size=assignment.config.spec.size)
        return SecurePart(
            assignment, frame, Through(phone), key=phone.key, base=phone.base, silent=silent, clock=lambda: NOW,
            caution=Caution(Floors(devices=floors)), joined=Joined() if joined is None else joined,
        )  # fmt: skip

    return begin


@pytest.fixture
def secured(make_service, new_phone, take_part):
    """A service of a secure task, and parts of five phones, as many as are selected."""

    def begin(count=5, **rule):
        service = make_service(**RULE | rule)
        client = create_app(service).test_client()
        phones = [new_phone(client) for _ in range(count)]
        return service, phones, [take_part(phone) for phone in phones]

    return begin


def go_on(service, parts, times=1):
    """All parts do what they can, and the server's clock ticks; what came of the parts."""
    came = []
    for _ in range(times):
        came = [part.go_on()[0] for part in parts]
        service.tick()
    return came


def rows(service):
    return service.metrics(0)[0]


def test_a_round_is_a_session_and_ends_in_the_model_of_its_sum(secured):
    service, phones, parts = secured()
    before = digest(service._coordinator.params)
    assert go_on(service, parts, 4) == ["summing"] * 5
    assert (service.round, rows(service)) == (0, [])
    assert service.status()["phones"]["reported"] == 0  # nobody is counted before the sum
    assert go_on(service, parts) == ["reported"] * 5
    (row,) = rows(service)
    assert (row["status"], row["reports"], row["dropped"], row["version"]) == ("committed", 5, 0, 1)
    assert row["train_loss"] == pytest.approx(3.5, abs=0.01)
    assert row["tokens"] == 5 * 40
    assert row["uplink_bytes"] == sum(part.up_bytes for part in parts)
    assert digest(service._coordinator.params) != before
    assert phones[0].check_in()["round"] == 1


def test_phases_wait_for_those_who_are_missing_and_no_longer_than_their_deadline(secured, clock):
    service, _, parts = secured()
    parts[4]._silent, parts[3]._silent = "advertise", "confirm"
    go_on(service, parts)
    assert service.secure._session.phase == 0  # four of five have advertised
    clock.now += WAIT_S
    service.tick()
    assert service.secure._session.phase == 1
    go_on(service, parts, 2)
    assert service.secure._session.phase == 3  # all four took both steps, so nobody was waited for
    go_on(service, parts)
    assert service.secure._session.phase == 3
    clock.now += WAIT_S
    service.tick()
    assert go_on(service, parts) == ["reported"] * 3 + ["dropped"] * 2
    (row,) = rows(service)
    assert (row["status"], row["reports"], row["dropped"]) == ("committed", 4, 1)


def test_what_reaches_the_server_of_one_phone_is_not_its_words(secured):
    service, _, parts = secured()
    sent = []
    for part in parts:
        carry = part._client.signed

        def watched(key, method, path, *, body=b"", carry=carry, **more):
            sent.append((path.rpartition("/")[2], body))
            return carry(key, method, path, body=body, **more)

        part._client.signed = watched
    go_on(service, parts, 5)
    assert rows(service)[0]["reports"] == 5
    masked = [messages.Masked.decode(body).words for step, body in sent if step == "mask"]
    size, bits = len(parts[0].words), bits_for(5, 127)
    given = np.array([part.words for part in parts]) % 2**bits
    seen = np.array([unpack(words, size, bits) for words in masked])
    # Masked words are uniform: they meet any given ones by chance, and look like none of the phones'.
    for words in seen:
        assert all((words == other).mean() < 0.2 for other in given)
    # And nothing else is sent, nor anything as long as a report beside the words.
    assert {step for step, body in sent if body} == set(STEPS)
    assert max(len(body) for _, body in sent) < size * bits / 8 + 1_000


@pytest.mark.parametrize("step", range(5))
def test_too_few_abandon_the_round_say_why_and_leave_the_model(secured, clock, step, new_phone):
    service, phones, parts = secured()
    before = digest(service._coordinator.params)
    for part in parts[2:]:
        part._silent = STEPS[step]
    for _ in range(6):
        clock.now += (
            30.0 - 4 * WAIT_S if service.secure._session and service.secure._session.phase == 0 else WAIT_S
        )
        go_on(service, parts[:2] if step == 0 else parts)
        if service.round:
            break
    (row,) = rows(service)
    assert (row["status"], row["reports"], row["version"]) == ("abandoned", 0, 0)
    assert digest(service._coordinator.params) == before
    ended = [
        each for each in entries(service.administration.server.records) if each["what"] == "round abandoned"
    ]
    assert ended[0]["reasons"]["too few phones for a sum"] == 1
    asked = phones[0].signed("GET", f"/v1/rounds/0/secure/{ASKED[-1]}")
    assert asked.status_code == 410
    assert "round 0 is over: " in asked.json["detail"]
    told = phones[0].check_in()
    assert (told["status"], told["round"]) == ("assigned", 1)


def test_a_phone_that_comes_late_is_told_that_the_round_has_gone_on(secured, clock):
    service, _, parts = secured()
    go_on(service, parts[:4])
    clock.now += WAIT_S
    service.tick()
    assert parts[4].go_on()[0] == "late"
    go_on(service, parts[:4], 4)
    assert rows(service)[0]["reports"] == 4


def test_messages_are_idempotent_and_others_in_their_place_are_refused(secured, problem):
    service, phones, parts = secured()
    phone, path = phones[0], "/v1/rounds/0/secure"
    assert phone.signed("GET", f"{path}/roster").status_code == 202
    terms = phone.signed("GET", f"{path}/terms")
    assert messages.Terms.decode(terms.data).devices == 5
    sent = {}
    for part in parts:
        carry = part._client.signed

        def watched(key, method, path, *, body=b"", content_type="", part=part, carry=carry):
            answer = carry(key, method, path, body=body, content_type=content_type)
            if method == "POST":
                sent[part, path.rpartition("/")[2]] = body
                again = part._client.phone.signed("POST", path, body, content_type="application/octet-stream")
                assert again.status_code == 204
            return answer

        part._client.signed = watched
    go_on(service, parts, 2)
    other = sent[parts[1], "share"]
    octets = {"content_type": "application/octet-stream"}
    refused = [
        (409, phone.signed("POST", f"{path}/share", other, **octets)),  # a second one, of another
        (400, phone.signed("POST", f"{path}/mask", b"x", **octets)),
        (413, phone.signed("POST", f"{path}/confirm", bytes(200), **octets)),
        (415, phone.signed("POST", f"{path}/mask", b"x", content_type="text/plain")),
        (409, phone.signed("POST", "/v1/rounds/5/secure/mask", sent[parts[0], "share"], **octets)),
        (409, phone.signed("GET", "/v1/rounds/5/secure/terms")),
        (410, phone.signed("GET", f"{path}/terms")),
        (404, phone.signed("GET", f"{path}/secrets")),
        (401, phone.client.get(f"{path}/inbox")),
    ]
    for status, answer in refused:
        assert (answer.status_code, problem(answer)["status"]) == (status, status), answer.json
    assert go_on(service, parts, 3) == ["reported"] * 5
    assert rows(service)[0]["reports"] == 5
    # What is over stays over, and counts nobody again.
    late = phone.signed("POST", f"{path}/unmask", sent[parts[0], "unmask"], **octets)
    assert late.status_code == 410


def test_an_advert_of_another_device_is_refused(secured):
    _, phones, parts = secured()
    kept = {}

    def keep(key, method, path, *, body=b"", content_type=""):
        if method == "POST":
            kept["advert"] = body
            raise Conflict("kept")
        return Through(phones[1]).signed(key, method, path)

    parts[1]._client.signed = keep
    assert parts[1].go_on()[0] == "late"
    answer = phones[0].signed(
        "POST", "/v1/rounds/0/secure/advertise", kept["advert"], content_type="application/octet-stream"
    )
    assert answer.status_code == 400
    assert "must be of the device that sends it" in answer.json["detail"]


def test_a_phone_that_was_not_selected_has_no_session(secured, new_phone):
    _, phones, _ = secured()
    outsider = new_phone(phones[0].client)
    assert outsider.check_in()["status"] == "wait"
    answer = outsider.signed("GET", "/v1/rounds/0/secure/terms")
    assert answer.status_code == 409
    assert "was not selected" in answer.json["detail"]


def test_a_report_that_can_be_read_is_refused(secured):
    service, phones, parts = secured()
    frame = phones[0].frame(parts[0].assignment.to_json(), SECURE, size=parts[0].assignment.config.spec.size)
    answer = phones[0].report(0, frame)
    assert answer.status_code == 403
    assert "summed unseen" in answer.json["detail"]
    go_on(service, parts, 5)
    assert rows(service)[0]["status"] == "committed"


def test_a_task_whose_updates_are_not_summed_unseen_has_no_sessions(service, client, phone):
    phone.check_in()
    for answer in (
        phone.signed("GET", "/v1/rounds/0/secure/terms"),
        phone.signed("POST", "/v1/rounds/0/secure/mask", b"x", content_type="application/octet-stream"),
    ):
        assert answer.status_code == 409
        assert "not summed unseen" in answer.json["detail"]


@pytest.mark.parametrize("steps", range(5))
def test_a_server_that_dies_in_a_session_has_counted_nobody_and_begins_another_round(
    secured, make_service, take_part, tmp_path, steps
):
    """Killed after each step: phones go over to what is left, and their memory of the lost session stops nothing."""
    service, phones, parts = secured()
    joined = [part._device._seen for part in parts]
    go_on(service, parts, steps)
    before = digest(service._coordinator.params)
    folder = tmp_path / "killed"
    service._turn.journal.wait(service._turn.journal.changed())
    shutil.copytree(service.folder, folder)
    (folder / "server.lock").unlink()
    again = make_service(folder=folder, **RULE)
    client = create_app(again).test_client()
    (row,) = rows(again)
    assert (row["round"], row["status"], row["reports"], row["version"]) == (0, "abandoned", 0, 0)
    assert digest(again._coordinator.params) == before
    for phone in phones:
        phone.client = client
    assert [part.go_on()[0] for part in parts] == ["late"] * 5
    assert "the server was begun anew" in parts[0].go_on()[2]
    parts = [take_part(phone, joined=seen) for phone, seen in zip(phones, joined, strict=True)]
    assert {part.assignment.round for part in parts} == {1}
    assert go_on(again, parts, 5) == ["reported"] * 5
    assert [row["status"] for row in rows(again)] == ["abandoned", "committed"]


def test_a_server_that_dies_after_the_sum_has_kept_it(secured, make_service, tmp_path):
    service, _, parts = secured()
    go_on(service, parts, 5)
    folder = tmp_path / "killed"
    shutil.copytree(service.folder, folder)
    (folder / "server.lock").unlink()
    again = make_service(folder=folder, **RULE)
    np.testing.assert_array_equal(again._coordinator.params, service._coordinator.params)
    assert [row["reports"] for row in rows(again)] == [5]


def test_a_session_is_over_when_its_round_is(secured, take_part):
    service, phones, parts = secured(rounds=5)
    go_on(service, parts, 5)
    go_on(service, [take_part(phone) for phone in phones], 5)
    assert phones[0].check_in()["round"] == 2
    assert phones[0].signed("GET", "/v1/rounds/2/secure/terms").status_code == 200
    service.roll_back(1, by="admin")
    assert phones[0].signed("GET", "/v1/rounds/2/secure/terms").status_code == 410
    service.tick()
    assert [row["status"] for row in rows(service)] == ["committed", "committed", "abandoned"]
    assert phones[0].check_in()["round"] == 3


def test_phones_check_in_while_a_sum_is_computed(secured, new_phone):
    service, phones, parts = secured()
    go_on(service, parts, 4)
    for part in parts:
        part.go_on()
    session = service.secure._session.server
    begun, checked_in, close = threading.Event(), threading.Event(), session.close

    def slow():
        begun.set()
        assert checked_in.wait(60)
        return close()

    session.close = slow
    ticking = threading.Thread(target=service.tick)
    ticking.start()
    assert begun.wait(60)
    # Neither who is in the session nor who is not waits for it.
    assert new_phone(phones[0].client).check_in()["status"] == "wait"
    assert phones[0].check_in()["round"] == 0
    assert phones[0].signed("GET", "/v1/rounds/0/secure/quorum").status_code == 410
    assert service.status()["round"] == 0
    checked_in.set()
    ticking.join()
    assert rows(service)[0]["status"] == "committed"


def test_the_status_says_whether_updates_are_summed_unseen(secured, service, tmp_path):
    assert service.status()["secure"] is None
    private, _, _ = secured(count=0, folder=tmp_path / "other")
    said = private.status()["secure"]
    assert (said["fewest"], said["noised"]) == (3, False)
    assert "sums over at least 3 phones" in said["sentence"]


# noise that phones add

NOISED = replace(
    SECURE,
    upload="rotate-shared+fixed",
    server=FedAvg(),
    privacy=Privacy("skellam", noise_multiplier=0.5, delta=1e-6, separation=2),
)


@pytest.fixture
def noised(make_service, new_phone):
    """A service of a task whose phones add noise, its application's client, and what gives parts to phones."""

    def begin(**more):
        service = make_service(**RULE | {"algorithm": NOISED, "rounds": 4} | more)
        client = create_app(service).test_client()

        def part_of(phone):
            told = phone.check_in()
            if told.pop("status") != "assigned":
                return None
            assignment = Assignment.from_json(told)
            delta = np.ones(assignment.config.spec.size, np.float32)
            update = payload_of(assignment).encode(delta, assignment.draws)
            frame = phone.framed(told, update)
            return SecurePart(
                assignment, frame, Through(phone), key=phone.key, base=phone.base, clock=lambda: NOW,
                caution=Caution(Floors(devices=3)), joined=Joined(),
            )  # fmt: skip

        return service, [new_phone(client) for _ in range(5)], part_of

    return begin


def test_a_round_of_noised_words_is_booked_and_ends_in_their_sum_with_no_other_noise(noised):
    service, phones, part_of = noised()
    parts = [part_of(phone) for phone in phones]
    before, assignment = service._coordinator.params, parts[0].assignment
    assert go_on(service, parts, 4) == ["summing"] * 5
    assert service.privacy["releases"] == 0
    assert go_on(service, parts) == ["reported"] * 5
    (row,) = rows(service)
    assert (row["status"], row["reports"], row["train_loss"]) == ("committed", 5, None)
    total = sum(part.words for part in parts)
    summed, _ = payload_of(assignment).read(total, assignment.draws)
    mean = (summed.astype(float) / 4).astype(np.float32)  # the cohort, not the five that there were
    np.testing.assert_array_equal(service._coordinator.params, FedAvg().apply(before, mean, {}, round=0)[0])
    said, status = service.privacy, service.status()
    assert (said["releases"], row["epsilon"]) == (1, said["epsilon"])
    assert "added by the devices, a share each" in said["sentence"]
    assert status["secure"] == {"fewest": 3, "noised": True, "sentence": None}
    assert [part_of(phone) for phone in phones] == [None] * 5  # not in two releases in a row
    assert load_checkpoint(service.checkpoint())[2]["privacy"] == said["sentence"]


def test_a_noised_sum_whose_model_was_lost_stays_paid_for(noised, monkeypatch, tmp_path, make_service):
    service, phones, part_of = noised()
    parts = [part_of(phone) for phone in phones]
    go_on(service, parts, 4)

    def full(*arguments, **more):
        raise OSError("no space left")

    monkeypatch.setattr(service._store, "save", full)
    for part in parts:
        part.go_on()
    service.secure.advance()
    with pytest.raises(OSError, match="no space left"):
        service.tick()
    assert service.privacy["releases"] == 1
    folder = tmp_path / "killed"
    shutil.copytree(service.folder, folder)
    (folder / "server.lock").unlink()
    again = make_service(folder=folder, **RULE | {"algorithm": NOISED, "rounds": 4})
    (row,) = rows(again)
    assert (row["status"], row["version"], again.privacy["releases"]) == ("abandoned", 0, 1)
    # Where it did not die it tries again with the very same sum, and pays nothing more.
    monkeypatch.undo()
    service.tick()
    assert (rows(service)[0]["status"], service.privacy["releases"]) == ("committed", 1)


def test_several_processes_cannot_serve_sessions(secured):
    service, _, _ = secured(count=0)
    with pytest.raises(ConfigError, match="one process"):
        SecureRoom(service._coordinator, object(), service.administration, wall_clock=lambda: NOW)
