"""Phones that sum up unseen over real HTTP, a third of them lost on the way; and phones that insist on it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule
from kbdfl.algorithms.secure import SecureAggregation
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim.agent import Phone, ServerClient, wait_for_vocabulary
from kbdfl.device_sim.encoding import payload_of
from kbdfl.device_sim.fleet import Fleet
from kbdfl.device_sim.joined import Joined
from kbdfl.device_sim.population import Population
from kbdfl.device_sim.runtime import Declined, prepare, train
from kbdfl.device_sim.secure import STEPS, Caution
from kbdfl.device_sim.store import TypingLog
from kbdfl.errors import ConfigError, DataError
from kbdfl.kernels.train import Workspace
from kbdfl.privacy import Privacy
from kbdfl.rounds import MemoryStore
from kbdfl.secagg import Floors
from kbdfl.secagg.graph import quorum_of
from kbdfl.secure import count_sum
from kbdfl.server import service as service_room
from kbdfl.wire import decode_report

WAIT_S = 3.0


def secure(devices):
    return Algorithm(
        client=ClientRule(batch_size=4, learning_rate=1.0),
        upload="summable",
        update_clip_norm=1.0,
        weights="uniform",
        secure=SecureAggregation(on=True, devices=devices, phase_deadline_s=WAIT_S),
    )


@pytest.fixture
def log(texts):
    log = TypingLog()
    log.extend(texts.messages(texts.users()[0]))
    return log


@pytest.fixture
def ahead(monkeypatch):
    """A clock that a test puts forward, and a ticker that leaves all ticks to the test."""
    monkeypatch.setattr(service_room, "TICK_S", 3_600.0)
    return SimpleNamespace(by_s=0.0)


def play(service, phones, silent, ahead):
    """Phones go on until none is at work; each as (outcome, words), which nobody but this test has seen."""
    workspace, came, words = Workspace(), {}, {}
    while len(came) < len(phones):
        for number, phone in enumerate(phones):
            if number not in came:
                cycle = phone.cycle(workspace=workspace, silent=lambda number=number: silent.get(number))
                if phone._part is not None:
                    words[number] = phone._part.words
                if cycle.outcome != "summing":
                    came[number] = cycle.outcome
                elif number not in words:
                    raise AssertionError(cycle)
        service.tick()
        ahead.by_s += WAIT_S  # those who are silent are not waited for
        service.tick()
    return came, words


def test_a_round_of_forty_over_http_is_the_offline_sum_to_the_bit(served, log, ahead):
    devices, gone = 40, 13
    enough = quorum_of(devices, 0.2)
    silent = {3 * lost: STEPS[lost % len(STEPS)] for lost in range(gone)}
    rule = {"cohort": devices - gone, "over_selection": devices / (devices - gone), "min_reports": enough}
    clock = lambda: 1_000.0 + ahead.by_s  # noqa: E731  on a busy machine a pass takes longer than a phase
    with served(algorithm=secure(enough), deadline_s=600.0, clock=clock, **rule) as (service, url):
        client = ServerClient(url)
        vocabulary, caution = wait_for_vocabulary(client), Caution(Floors(devices=enough), required=True)
        phones = [Phone(client, log, vocabulary, caution=caution) for _ in range(devices)]
        task, initial = service.task, service._coordinator.params
        came, words = play(service, phones, silent, ahead)
        (row,) = service.metrics(0)[0]
        params = service._coordinator.params
    assert [came[number] for number in sorted(silent)] == ["dropped"] * gone
    # Whoever gave words is in the sum, also if it fell silent then.
    summed = [number for number in range(devices) if silent.get(number, "unmask") in ("confirm", "unmask")]
    assert sum(outcome == "reported" for outcome in came.values()) == devices - gone
    assert (row["status"], row["reports"]) == ("committed", len(summed))
    assert row["dropped"] == devices - len(summed)
    assert row["train_loss"] > 0
    assert row["tokens"] > 0

    offline = Coordinator(task, initial, store=MemoryStore(), random=np.random.default_rng(1))
    names = [phones[number].device for number in summed]
    assignments = [offline.check_in(phone.device, 0.0) for phone in phones]
    total = sum(words[number] for number in summed)
    count_sum(offline, total, dict.fromkeys(names, 1), assignment=assignments[0], session=b"s" * 16, now=1.0)
    np.testing.assert_array_equal(offline.params, params)
    assert not np.array_equal(params, initial)


def test_a_phone_that_requires_it_gives_a_plain_task_nothing(served, log):
    with served(cohort=1) as (service, url):
        client = ServerClient(url)
        phone = Phone(client, log, wait_for_vocabulary(client), caution=Caution(required=True))
        cycle = phone.cycle(workspace=Workspace())
        assert (cycle.outcome, cycle.uplink_bytes, cycle.downlink_bytes) == ("declined", 0, 0)
        assert "could be read one by one" in cycle.detail
        assert phone.cycle(workspace=Workspace()).outcome == "wait"
        assert service.status()["phones"]["reported"] == 0


def test_a_phone_whose_floor_is_higher_joins_no_session(served, log):
    rule = {"cohort": 4, "over_selection": 1.0, "min_reports": 3}
    with served(algorithm=secure(3), **rule) as (service, url):
        client = ServerClient(url)
        phone = Phone(client, log, wait_for_vocabulary(client))  # 32, unless it is said
        cycle = phone.cycle(workspace=Workspace())
        assert (cycle.outcome, cycle.uplink_bytes) == ("declined", 0)
        assert "at least 32 devices must take part" in cycle.detail
        assert service.secure._session.answered["advertise"] == set()


def test_a_fleet_sums_up_and_loses_phones_at_any_step(served, texts):
    rule = {
        "cohort": 12,
        "over_selection": 1.5,
        "min_reports": 9,
        "rounds": 1,
        "pace_s": 0.1,
        "deadline_s": 90.0,
    }
    fast = replace(secure(9), secure=SecureAggregation(on=True, devices=9, phase_deadline_s=2.0))
    with served(algorithm=fast, **rule) as (service, url):
        caution = Caution(Floors(devices=9), required=True)
        fleet = Fleet(ServerClient(url), Population(texts), workers=2, seed=1, dropout=0.2, caution=caution)
        fleet.enrol()
        fleet.run()
        rows = service.metrics(0)[0]
    assert len(rows) == 1
    committed = [row for row in rows if row["status"] == "committed"]
    assert len(committed) == service._coordinator.version
    assert all(9 <= row["reports"] <= 18 for row in committed)
    assert fleet.outcomes["dropped"] > 0
    assert fleet.outcomes["summing"] > fleet.outcomes["reported"] > 0
    assert fleet.session_s > 0
    assert fleet.uplink_bytes >= sum(row["uplink_bytes"] for row in committed)


# noise that phones add


def asked(assignment, **changes):
    fields = {"secure": True, "upload": "summable", "update_clip_norm": 1.0, "noise_multiplier": 0.8}
    return replace(assignment, **fields | {"noise_survivors": 14} | changes)


@pytest.mark.parametrize(
    ("caution", "changes", "said"),
    [
        (Caution(), {"noise_survivors": 15}, "made for 15 honest phones .* may have 14"),
        (Caution(Floors(devices=40)), {"noise_survivors": 18}, "made for 18 honest phones .* may have 17"),
        (Caution(), {"noise_survivors": 0}, "made for 0 honest phones"),
        (Caution(), {"secure": False}, "hides it in a sum alone"),
        (Caution(noise=0.9), {}, "noise of 0.8 clip norms, and this one wants 0.9"),
        (Caution(noise=0.9), {"noise_multiplier": 0.0}, "noise of 0 clip norms"),
        (Caution(), {"noise_multiplier": float("nan")}, "noise of nan"),
        (Caution(), {"noise_multiplier": float("inf")}, "noise of inf"),
        (Caution(), {"noise_multiplier": -1.0}, "noise of -1"),
    ],
)
def test_a_phone_declines_noise_that_would_not_be_enough(assignment, caution, changes, said):
    with pytest.raises(Declined, match=said):
        caution.check(asked(assignment, **changes))


def test_a_phone_accepts_noise_that_its_own_floors_make_enough(assignment):
    Caution(noise=0.8).check(asked(assignment))
    Caution(Floors(devices=40)).check(asked(assignment, noise_survivors=17))
    Caution().check(assignment)  # a task without noise, which it does not insist on


def test_a_noise_floor_that_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="noise floor must be >= 0 and finite"):
        Caution(noise=float("nan"))


def test_what_training_ends_in_has_noise_on_it_and_no_count_beside_it(assignment, params, log, vocabulary):
    wanted = asked(assignment, upload="rotate-shared+fixed:15", noise_multiplier=40.0)
    run = prepare(wanted, log.sentences(vocabulary))
    reports = [
        decode_report(train(wanted, params, run, device="d"), max_bytes=wanted.max_report_bytes)
        for _ in range(2)
    ]
    payload = payload_of(wanted)
    words = [payload.of(report) for report in reports]
    shares = payload.shares
    assert [len(each) for each in words] == [shares.size] * 2
    assert max(np.abs(each).max() for each in words) <= payload.levels + payload.noise_bound
    # The same training twice: what differs is the noise of two phones, and next to nothing is left of anything else.
    assert (words[0] - words[1]).var() == pytest.approx(2 * shares.each(40.0), rel=0.5)
    assert words[0].var() > 100 * shares.steps**2 / shares.size


def test_phones_that_noise_their_sum_over_http_are_booked_and_counted_once(served, texts):
    rule = {
        "cohort": 9,
        "over_selection": 1.4,
        "min_reports": 9,
        "rounds": 1,
        "pace_s": 0.1,
        "deadline_s": 90.0,
    }
    private = replace(secure(9), privacy=Privacy("skellam", noise_multiplier=0.5, delta=1e-6, separation=2))
    with served(algorithm=private, **rule) as (service, url):
        caution = Caution(Floors(devices=9), required=True, noise=0.5)
        fleet = Fleet(ServerClient(url), Population(texts), workers=2, seed=1, caution=caution)
        fleet.enrol()
        fleet.run()
        rows, said = service.metrics(0)[0], service.privacy
        parts = service._store.books.participations()
    (row,) = rows
    assert (row["status"], row["train_loss"], row["epsilon"]) == ("committed", None, said["epsilon"])
    assert said["releases"] == 1
    assert 9 <= row["reports"] == len(parts) <= 13
    assert all(part.count == 1 for part in parts.values())
    assert "added by the devices, a share each" in said["sentence"]


# what a phone remembers


def test_what_a_phone_joined_outlives_a_restart_and_ends_after_a_while(tmp_path):
    now = SimpleNamespace(s=1_000.0)
    path = tmp_path / "joined"
    joined = Joined(path=path, kept_s=100.0, clock=lambda: now.s)
    joined.add(b"one")
    now.s += 60
    joined.add(b"two")
    again = Joined(path=path, kept_s=100.0, clock=lambda: now.s)
    assert set(again) == {b"one", b"two"}
    now.s += 60
    later = Joined(path=path, kept_s=100.0, clock=lambda: now.s)
    assert set(later) == {b"two"}
    assert b"one" not in later
    later.discard(b"two")
    assert len(Joined(path=path, kept_s=100.0, clock=lambda: now.s)) == 0
    assert set(joined) == {b"one", b"two"}


def test_a_memory_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path):
    path = tmp_path / "joined"
    path.write_text("nonsense\n")
    with pytest.raises(DataError, match="sessions that a phone joined"):
        Joined(path=path)


def test_an_entry_is_on_the_disk_before_the_phone_goes_on(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(path.read_text()))
    path = tmp_path / "joined"
    Joined(path=path, clock=lambda: 5.0).add(b"\x01")
    assert synced[0] == "01 5.000\n"
