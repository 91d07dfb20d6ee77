"""Phones of different speeds and hours on one virtual clock, in rounds of a cohort and asynchronously."""

import gc

import pytest

from kbdfl.algorithms import Algorithm, FedBuff
from kbdfl.device_sim import simulate, work
from kbdfl.device_sim.devices import DAY_S, Device
from kbdfl.device_sim.work import Received
from kbdfl.errors import DataError
from kbdfl.params import digest

UNEQUAL = {"speeds": "heavy-tailed", "availability": "nightly", "dropout": 0.2}


def asynchronous(concurrency=8, **mode):
    return Algorithm(mode=FedBuff(concurrency=concurrency, **mode))


@pytest.fixture
def hardware(monkeypatch):
    """Phones as a test wants them: `hardware(lambda name: Device(...))`."""

    def use(make):
        monkeypatch.setattr(simulate, "make_device", lambda seed, name, **_: make(name))

    return use


def test_equal_phones_that_are_always_there_keep_the_timetable_of_plain_rounds(play):
    """As it was before phones differed: to the last bit, for it follows from the draws and not from arithmetic."""
    rows, _ = play(rule={"rounds": 6, "deadline_s": 0.05, "min_reports": 1}, dropout=0.1)
    seen = [(row["reports"], row["tokens"], row["virtual_s"]) for row in rows]
    assert seen == [
        (1, 51, 0.05000000000000001),
        (4, 156, 0.09471400000000002),
        (4, 146, 0.14142800000000003),
        (3, 83, 0.19142800000000007),
        (3, 130, 0.24142800000000011),
        (1, 48, 0.2914280000000002),
    ]


@pytest.mark.parametrize(
    "algorithm", [Algorithm(), asynchronous(max_staleness=2)], ids=["synchronous", "fedbuff"]
)
def test_unequal_phones_end_in_the_same_bytes_whatever_the_workers(play, algorithm):
    ends = []
    for workers in (1, 3):
        rows, simulation = play(
            workers=workers,
            algorithm=algorithm,
            rule={"rounds": 12, "deadline_s": 3.0},
            **UNEQUAL,
        )
        for row in rows:
            row.pop("wall_s")
        ends.append((digest(simulation.coordinator.params), rows))
    assert ends[0] == ends[1]
    assert ends[0][1][-1]["version"] > 2


def test_a_synchronous_round_computes_no_report_that_does_not_count(play, monkeypatch):
    trained = []

    def train(*arguments, device, _train=work.train, **options):
        trained.append(device)
        return _train(*arguments, device=device, **options)

    monkeypatch.setattr(work, "train", train)
    rows, _ = play(workers=2, rule={"rounds": 8, "over_selection": 2.0}, **UNEQUAL)
    assert len(trained) == sum(row["reports"] for row in rows)


@pytest.mark.parametrize("algorithm", [Algorithm(), asynchronous()], ids=["synchronous", "fedbuff"])
def test_counted_reports_are_known_by_phone(play, algorithm):
    rows, simulation = play(algorithm=algorithm, rule={"rounds": 8}, speeds="tiers")
    assert sum(simulation.counted.values()) == sum(row["reports"] for row in rows) == 32
    assert set(simulation.counted) <= set(simulation._population.users)


def test_slow_phones_hold_up_synchronous_rounds_and_not_asynchronous_ones(play, hardware):
    """Of six phones that train, two are a hundred times slower, and a cohort waits for one of them at least."""
    hardware(lambda name: Device(bytes_per_s=1e6 if hash_of(name) % 3 else 1e4))
    waits = {"rounds": 20, "cohort": 4, "over_selection": 1.0}
    synchronous, _ = play(rule=waits)
    buffered, _ = play(rule=waits, algorithm=asynchronous(concurrency=4))
    assert sum(row["reports"] for row in buffered) == sum(row["reports"] for row in synchronous) == 80
    assert buffered[-1]["virtual_s"] < 0.5 * synchronous[-1]["virtual_s"]
    assert max(row["staleness"] for row in buffered) > 0


def test_one_asynchronous_phone_at_a_time_and_one_report_a_round_is_the_synchronous_run(play):
    one = {"rounds": 10, "cohort": 1, "over_selection": 1.0}
    rows, simulation = play(rule=one)
    buffered, other = play(rule=one, algorithm=asynchronous(concurrency=1))
    assert [row["virtual_s"] for row in buffered] == [row["virtual_s"] for row in rows]
    assert digest(other.coordinator.params) == digest(simulation.coordinator.params)


def test_no_more_phones_train_at_once_than_the_rule_says(play, hardware, monkeypatch):
    hardware(lambda name: Device(bytes_per_s=1e3 * (1 + hash_of(name) % 50)))
    most, kept = [], []

    class Watched(simulate.Coordinator):
        def check_in(self, device, now, **stated):
            answer = super().check_in(device, now, **stated)
            most.append(self.device_states()["training"])
            kept.append(sum(type(each) is Received for each in gc.get_objects()))
            return answer

    monkeypatch.setattr(simulate, "Coordinator", Watched)
    rows, _ = play(rule={"rounds": 12}, algorithm=asynchronous(concurrency=7))
    assert max(most) == 7
    # Seven versions that phones train on, the current one, and the one that has just been computed by a worker.
    assert 2 < max(kept) <= 9
    assert len(rows) == 12


def test_a_phone_whose_window_closes_too_soon_never_reports(play, hardware):
    """All windows last ten milliseconds: nobody is done in time, and the next round begins a day later."""
    hardware(lambda name: Device(opens_s=3_600.0, free_s=0.01))
    rows, _ = play(rule={"rounds": 3, "deadline_s": 5.0, "min_reports": 1})
    assert [(row["status"], row["reports"], row["dropped"]) for row in rows] == [("abandoned", 0, 6)] * 3
    assert [row["virtual_s"] for row in rows] == pytest.approx([3_605 + day * DAY_S for day in range(3)])


def test_phones_that_become_free_join_a_round_that_is_open(play, hardware):
    """One opens every second; the round of six phones is full after the sixth, and four reports are enough."""
    order = iter(range(100))
    hardware(lambda name: Device(opens_s=10.0 + next(order), free_s=1_000.0))
    rows, _ = play(rule={"rounds": 1, "deadline_s": 20.0})
    assert (rows[0]["status"], rows[0]["reports"]) == ("committed", 4)
    assert 13 < rows[0]["virtual_s"] < 14


@pytest.mark.parametrize("algorithm", [Algorithm(), asynchronous()], ids=["synchronous", "fedbuff"])
def test_a_fleet_that_is_never_free_is_refused(play, hardware, algorithm):
    hardware(lambda name: Device(free_s=0.0))
    with pytest.raises(DataError, match="no phone could be selected in 7 days"):
        play(algorithm=algorithm)


def test_asynchronous_phones_that_are_all_too_slow_are_refused_and_not_asked_for_ever(play, hardware):
    hardware(lambda name: Device(bytes_per_s=1.0))
    with pytest.raises(DataError, match=r"no phone reported within its 20 s: \d+ tried in a row"):
        play(algorithm=asynchronous())


def test_an_asynchronous_phone_that_drops_out_gives_up_its_place_at_its_deadline(play):
    rows, _ = play(
        rule={"rounds": 10, "cohort": 2, "deadline_s": 5.0},
        algorithm=asynchronous(concurrency=2),
        dropout=0.5,
    )
    assert {row["status"] for row in rows} == {"committed"}
    assert sum(row["dropped"] for row in rows) > 3
    assert rows[-1]["virtual_s"] > 10.0


def test_a_report_that_is_too_stale_is_refused_and_its_phone_may_come_again(play, hardware):
    hardware(lambda name: Device(bytes_per_s=1e6 if hash_of(name) % 4 else 2e3))
    rows, _ = play(
        rule={"rounds": 150, "cohort": 2, "deadline_s": 100.0},
        algorithm=asynchronous(concurrency=12, max_staleness=1),
    )
    assert sum(row["refused"] for row in rows) > 0
    assert max(row["staleness"] for row in rows) <= 1
    assert {row["status"] for row in rows} == {"committed"}


def hash_of(name):
    """A number that is the same in every process."""
    return sum(name.encode())


@pytest.mark.parametrize(
    "algorithm", [Algorithm(), asynchronous(concurrency=20)], ids=["synchronous", "fedbuff"]
)
def test_few_frames_wait_however_large_the_cohort_is(play, monkeypatch, algorithm):
    waiting = []

    def pop(self, _pop=simulate.Flight.pop):
        job, done = _pop(self)
        waiting.append(len(self._frames))
        return job, done

    monkeypatch.setattr(simulate.Flight, "pop", pop)
    rule = {"rounds": 3, "cohort": 20, "over_selection": 1.0}
    play(workers=2, algorithm=algorithm, rule=rule, together=False)
    # A phone that begins later may arrive before those that are computed already.
    assert 2 * simulate._AHEAD - 1 <= max(waiting) <= 3 * simulate._AHEAD
