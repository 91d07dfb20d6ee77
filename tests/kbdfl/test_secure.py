"""A session's sum in a round: whoever survived is counted, the round is closed once, and the model says so."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, FedAvg
from kbdfl.algorithms.secure import SecureAggregation
from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator, Wait
from kbdfl.errors import ConfigError, Conflict, Forbidden
from kbdfl.model import CifgConfig, init_params
from kbdfl.rounds import MemoryStore
from kbdfl.secagg import Floors, Rule
from kbdfl.secagg.rehearsal import rehearse
from kbdfl.secure import count_sum, fewest, payload_of, session_bytes, statement, terms_of
from kbdfl.task import RoundRule, Task
from kbdfl.transform import Draws, encode_chain
from kbdfl.wire import encode_report
from tests.kbdfl.algorithms.test_secure import report_of

ALGORITHM = Algorithm(
    upload="summable",
    update_clip_norm=1.0,
    weights="uniform",
    server=FedAvg(),
    secure=SecureAggregation(on=True, devices=3, phase_deadline_s=2.0),
)
TASK = Task(
    name="t",
    config=CifgConfig(vocab=20, embed=4, hidden=6),
    algorithm=ALGORITHM,
    rule=RoundRule(cohort=4, over_selection=1.5, min_reports=3, deadline_s=30.0, rounds=3),
    vocabulary_sha256="ef" * 32,
    seed=1,
)


def begun(task=TASK, phones=6):
    """A coordinator, and the assignments of its phones."""
    coordinator = Coordinator(
        task, init_params(task.config, seed=1), store=MemoryStore(), random=np.random.default_rng(1)
    )
    assignments = {f"phone {i}": coordinator.check_in(f"phone {i}", 0.0) for i in range(phones)}
    assert all(isinstance(each, Assignment) for each in assignments.values())
    return coordinator, assignments


def words_of(assignment, number):
    size = TASK.config.spec.size
    delta = np.random.default_rng(number).standard_normal(size).astype(np.float32) / np.sqrt(size)
    update = encode_chain(ALGORITHM.transforms, delta, assignment.draws)
    return payload_of(TASK).of(report_of(update, examples=number + 1, tokens=10 * number, train_loss=2.0))


def summed(assignments, names):
    return sum(words_of(assignments[name], int(name[-1])) for name in names)


@pytest.mark.parametrize("survivors", [3, 4, 5, 6])
def test_all_survivors_count_and_close_the_round_with_the_model_of_their_mean(survivors):
    coordinator, assignments = begun()
    names = [f"phone {i}" for i in range(survivors)]
    total, assignment = summed(assignments, names), assignments["phone 0"]
    before = coordinator.params
    sent = {name: 100 + int(name[-1]) for name in names}
    result = count_sum(coordinator, total, sent, assignment=assignment, session=b"s" * 16, now=9.0)
    assert (result.status, result.reports, result.dropped) == ("committed", survivors, 6 - survivors)
    assert (result.version, coordinator.round) == (1, 1)
    assert result.examples == sum(range(1, survivors + 1))
    assert result.tokens == 10 * sum(range(survivors))
    assert result.train_loss == pytest.approx(2.0, rel=1e-4)
    assert result.uplink_bytes == sum(sent.values())
    delta, _ = payload_of(TASK).read(total, Draws(0, assignment.round_seed))
    mean = (delta.astype(float) / survivors).astype(np.float32)
    np.testing.assert_array_equal(coordinator.params, FedAvg().apply(before, mean, {}, round=0)[0])
    # Once only.
    with pytest.raises(Conflict, match="round 1 is open"):
        count_sum(coordinator, total, sent, assignment=assignment, session=b"s" * 16, now=9.0)


def test_fewer_than_the_round_needs_leave_the_model_as_it_was():
    coordinator, assignments = begun()
    before, names = coordinator.params, ["phone 0", "phone 1"]
    result = count_sum(
        coordinator, summed(assignments, names), dict.fromkeys(names, 1), assignment=assignments["phone 0"],
        session=b"s" * 16, now=9.0,
    )  # fmt: skip
    assert (result.status, coordinator.round) == ("abandoned", 1)
    np.testing.assert_array_equal(coordinator.params, before)


def test_a_full_round_that_could_not_be_kept_is_closed_by_the_next_tick(monkeypatch):
    coordinator, assignments = begun()
    names, save = ["phone 0", "phone 1", "phone 2"], coordinator._store.save

    def full(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr(coordinator._store, "save", full)
    with pytest.raises(OSError, match="full"):
        count_sum(
            coordinator, summed(assignments, names), dict.fromkeys(names, 1), assignment=assignments["phone 0"],
            session=b"s" * 16, now=9.0,
        )  # fmt: skip
    monkeypatch.setattr(coordinator._store, "save", save)
    result = coordinator.tick(10.0)
    assert (result.status, result.reports) == ("committed", 3)


def test_a_report_by_itself_is_refused_and_the_round_goes_on():
    coordinator, assignments = begun()
    assignment = assignments["phone 0"]
    update = encode_chain(ALGORITHM.transforms, np.zeros(TASK.config.spec.size, np.float32), assignment.draws)
    frame = encode_report(
        update, task="t", round=0, device="phone 0", model_sha256=assignment.model_sha256,
        spec_hash=assignment.coordinates.hash, upload="summable", examples=1, tokens=1, train_loss=1.0,
    )  # fmt: skip
    with pytest.raises(Forbidden, match="summed unseen"):
        coordinator.report("phone 0", frame, 1.0)
    assert (coordinator.reports, coordinator.round) == (0, 0)
    assert not isinstance(coordinator.check_in("phone 0", 2.0), Wait)


@pytest.mark.parametrize("devices", [8, 130])
def test_the_bytes_of_a_session_are_those_of_its_messages(devices):
    task = replace(TASK, rule=replace(TASK.rule, cohort=devices, over_selection=1.0))
    _, assignments = begun(task, 1)
    terms = terms_of(task, assignments["phone 0"], session=b"s" * 16, now=1_800_000_000.0)
    assert terms.devices == devices
    zeros = np.zeros(terms.words, np.int64)
    run = rehearse(
        terms, lambda _: zeros, devices=devices, floors=Floors(devices=devices), rule=Rule(devices=3)
    )
    up, down = session_bytes(task, devices=devices)
    assert {run.up_bytes(phone) for phone in range(devices)} == {up}
    sent = [sum(step[phone] for step in run.down.values()) for phone in range(devices)]
    # Terms name the round and the second; who is a neighbour of whom takes more or fewer bytes of a bitmap.
    assert all(abs(each - down) <= 4 + devices // 8 for each in sent)


def test_the_statement_says_what_nobody_could_read():
    assert fewest(TASK) == 3
    said = statement(TASK)
    assert "no single update was readable" in said
    assert "sums over at least 3 phones" in said
    assert said.endswith("no differential privacy is claimed.")
    assert "without masks" in statement(TASK, simulated=True)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"cohort": 2, "min_reports": 2}, "cohort must be >= secure devices = 3"),
        ({"deadline_s": 10.0}, "phase_deadline_s must be <"),
        ({"deadline_s": 4_000.0}, "deadline_s must be at most 3600"),
        ({"max_report_bytes": 10**6}, "max_report_bytes must be 0"),
        ({"cohort": 10_000, "over_selection": 2.0, "min_reports": 0}, "at most 16384"),
    ],
)
def test_rounds_that_no_session_fits_are_refused(rule, reason):
    with pytest.raises(ConfigError, match=reason):
        replace(TASK, rule=replace(TASK.rule, **rule))
