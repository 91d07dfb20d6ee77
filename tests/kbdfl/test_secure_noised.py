"""Sums with the phones' noise on them, in a round: booked before they are a model, once, and never noised again."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, FedAvg
from kbdfl.algorithms.aggregate import RunningSum
from kbdfl.algorithms.secure import SecureAggregation
from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator, Finished, Wait
from kbdfl.errors import ConfigError, Conflict
from kbdfl.model import CifgConfig, init_params
from kbdfl.privacy import Account, Central, MemoryBooks, Privacy, statement
from kbdfl.privacy.ledger import account_of
from kbdfl.privacy.statement import facts
from kbdfl.rounds import MemoryStore
from kbdfl.run import RunConfig, Settings
from kbdfl.secure import count_sum, fewest, payload_of, terms_of
from kbdfl.secure import statement as said_of
from kbdfl.task import RoundRule, Task
from kbdfl.transform import Draws

PRIVACY = Privacy("skellam", noise_multiplier=0.7, delta=1e-6, separation=2)
ALGORITHM = Algorithm(
    upload="rotate-shared+fixed",
    update_clip_norm=1.0,
    weights="uniform",
    server=FedAvg(),
    privacy=PRIVACY,
    secure=SecureAggregation(on=True, devices=5, phase_deadline_s=2.0),
)
TASK = Task(
    name="t",
    config=CifgConfig(vocab=20, embed=4, hidden=6),
    algorithm=ALGORITHM,
    rule=RoundRule(cohort=6, over_selection=1.5, min_reports=4, deadline_s=30.0, rounds=6),
    vocabulary_sha256="ef" * 32,
    seed=1,
)
PHONES = [f"phone {number}" for number in range(9)]


def begun(task=TASK, *, books=None, store=None):
    books = MemoryBooks() if books is None else books
    params = init_params(task.config, seed=1)
    random = np.random.default_rng(1)
    store = store or MemoryStore()
    return Coordinator(task, params, store=store, random=random, privacy=task.central(books)), books


def assigned(coordinator, phones=PHONES):
    return [coordinator.check_in(phone, 0.0) for phone in phones]


def total_of(assignments, count, task=TASK):
    payload, total = payload_of(task), 0
    for number, assignment in enumerate(assignments[:count]):
        delta = np.random.default_rng(number).standard_normal(task.reported_size).astype(np.float32)
        total = total + payload.encode(delta, assignment.draws).sections["levels"].astype(np.int64)
    return total


def close(coordinator, assignments, total, names):
    sent = dict.fromkeys(names, 100)
    return count_sum(coordinator, total, sent, assignment=assignments[0], session=b"s" * 16, now=9.0)


@pytest.mark.parametrize("survivors", [3, 6, 9])
def test_a_noised_sum_is_booked_and_divided_by_a_fixed_number_and_nothing_is_added(survivors):
    coordinator, books = begun()
    assignments, before = assigned(coordinator), coordinator.params
    total = total_of(assignments, survivors)
    result = close(coordinator, assignments, total, PHONES[:survivors])
    # A quorum of five has three honest phones, so three are enough noise.
    assert payload_of(TASK).shares.survivors == 3
    assert (result.status, result.reports) == (("committed" if survivors > 3 else "abandoned"), survivors)
    if survivors == 3:
        assert books.rows() == []
        return
    (row,) = books.rows()
    assert (row.round, row.devices, row.epsilon) == (0, survivors, result.epsilon)
    assert set(books.participations()) == set(PHONES[:survivors])
    summed, _ = payload_of(TASK).read(total, Draws(0, assignments[0].round_seed))
    mean = (summed.astype(float) / 6).astype(np.float32)  # the cohort, however many there were
    np.testing.assert_array_equal(coordinator.params, FedAvg().apply(before, mean, {}, round=0)[0])
    # Phones sent no counts and no loss.
    assert (result.tokens, result.train_loss, result.examples) == (0, None, survivors)


def test_the_row_is_there_before_the_model_and_a_disk_that_fails_pays_once():
    class Failing(MemoryStore):
        broken = True

        def save(self, *arguments, **more):
            assert len(books.rows()) == 1
            if self.broken:
                raise OSError("no space left")
            super().save(*arguments, **more)

    books, store = MemoryBooks(), Failing()
    coordinator, _ = begun(books=books, store=store)
    assignments = assigned(coordinator)
    total = total_of(assignments, 6)
    with pytest.raises(OSError, match="no space left"):
        close(coordinator, assignments, total, PHONES[:6])
    store.broken = False
    result = coordinator.tick(10.0)
    assert (result.status, result.reports, len(books.rows())) == ("committed", 6, 1)
    # A server that died between the two finds the round booked, and its release lost.
    again, _ = begun(books=books)
    assert again.privacy.lost(0)


def test_who_was_counted_is_barred_and_a_spent_budget_ends_the_task():
    epsilon = TASK.account.epsilon(3)
    tight = replace(TASK, algorithm=replace(ALGORITHM, privacy=replace(PRIVACY, epsilon=epsilon)))
    coordinator, books = begun(tight)
    crowds = [PHONES, [f"other {number}" for number in range(9)]]
    for number in range(4):
        crowd = crowds[number % 2]
        assignments = assigned(coordinator, crowd)
        assert all(isinstance(each, Assignment) for each in assignments)
        close(coordinator, assignments, total_of(assignments, 9, tight), crowd)
        if coordinator.phase == "finished":
            break
        assert isinstance(coordinator.check_in(crowd[0], 9.0), Wait)
    # Three releases are two parts of a device, and so are four.
    assert [row.round for row in books.rows()] == [0, 1, 2, 3]
    assert books.rows()[-1].epsilon == epsilon
    assert isinstance(coordinator.check_in("new", 20.0), Finished)


def test_an_update_by_itself_is_in_no_sum():
    coordinator, _ = begun()
    with pytest.raises(Conflict, match="must come in that sum"):
        coordinator._now.gathered.add("d", None, None, weight=1.0)


def test_a_sum_without_noise_joins_none_that_has_it():
    coordinator, _ = begun()
    gathered = coordinator._now.gathered
    plain = RunningSum((), coordinator.params.size, 0.0)
    with pytest.raises(Conflict, match="must not join"):
        gathered.merge(plain)
    assert gathered.count == 0


def test_a_sum_of_too_few_for_its_noise_is_not_released():
    coordinator, books = begun()
    with pytest.raises(ConfigError, match="must hold the noise of 3 devices, got 2"):
        coordinator.privacy.release_noised(0, np.zeros(3), PHONES[:2])
    assert books.rows() == []
    central = Central(Account(Privacy("gaussian", noise_multiplier=1.0), 1.0, 6, 6, 3), books)
    with pytest.raises(ConfigError, match="must be noised by the server"):
        central.release_noised(0, np.zeros(3), PHONES)
    assert books.rows() == []


def test_what_is_open_survives_in_what_a_server_keeps_of_it():
    coordinator, _ = begun()
    gathered = coordinator._now.gathered
    gathered.add_noised(np.arange(TASK.reported_size, dtype=np.float32), PHONES[:4])
    other, books = begun()
    other._now.gathered.restore(gathered.state())
    other._now.gathered.add_state(gathered.state())
    mean = other._now.gathered.mean()
    np.testing.assert_allclose(mean, 2 * np.arange(TASK.reported_size) / 6, rtol=1e-6)
    assert set(books.participations()) == set(PHONES[:4])


def test_phones_are_told_the_noise_and_how_often_they_may_take_part():
    (assignment, *_) = assigned(begun()[0])
    assert (assignment.noise_multiplier, assignment.noise_survivors, assignment.secure) == (0.7, 3, True)
    assert (assignment.participations, assignment.separation) == (3, 2)  # of six rounds
    assert Assignment.from_json(assignment.to_json()) == assignment


def test_the_terms_have_room_for_the_noise():
    (assignment, *_) = assigned(begun()[0])
    payload = payload_of(TASK)
    terms = terms_of(TASK, assignment, session=b"s" * 16, now=1_800_000_000.0)
    assert (terms.words, terms.levels, terms.noise_bound) == (payload.words, 127, payload.noise_bound)
    assert terms.devices * (127 + payload.noise_bound) < 2 ** (terms.bits - 1)


def test_noise_for_which_there_is_no_room_is_refused():
    loud = replace(ALGORITHM, privacy=replace(PRIVACY, noise_multiplier=1e5))
    with pytest.raises(ConfigError, match="bits, at most 32 can be had"):
        replace(TASK, algorithm=loud)


def test_a_budget_becomes_noise_before_any_phone_is_asked():
    asked = replace(ALGORITHM, privacy=replace(PRIVACY, noise_multiplier=0.0, epsilon=5.0))
    task = replace(TASK, algorithm=asked)
    (assignment, *_) = assigned(begun(task)[0])
    assert assignment.noise_multiplier == task.algorithm.privacy.noise_multiplier > 0
    assert 4.99 < task.account.epsilon(6) <= 5.0
    config = RunConfig(Settings(preset="tiny"), asked, TASK.rule)
    assert config.algorithm.privacy.noise_multiplier > 0
    counted = RunConfig(Settings(preset="tiny", vocabulary="training-users"), asked, TASK.rule)
    assert counted.algorithm.privacy.noise_multiplier >= config.algorithm.privacy.noise_multiplier


def test_the_statement_is_the_ledgers_and_says_whom_one_need_not_trust():
    coordinator, books = begun()
    assert "for the 0 models published" in said_of(TASK)
    assignments = assigned(coordinator)
    close(coordinator, assignments, total_of(assignments, 9), PHONES)
    (row,) = books.rows()
    said = statement(row)
    for part in (
        "Device-level differential privacy",
        "Skellam noise of at least 0.7 clip norms, independent in every round",
        "clipped to a norm of 1 and divided by 6",
        "added by the devices, a share each, under secure aggregation",
        "the server need not be trusted with updates, nor with sums without noise, as long as fewer than a fifth",
        "at least 3 in a sum",
        "each device counted in at most 1 release",
        f"rho = {row.rho:.3g} (Renyi divergence at whole orders), (epsilon, delta) = ({row.epsilon:.3g}, 1e-06)",
        "Not covered: which devices took part and when, their traffic, figures measured",
    ):
        assert part in said
    assert "is trusted" not in said
    assert "training loss" not in said
    assert (
        said_of(TASK, simulated=True, row=row)
        == f"{said} This was a simulation: its sums were made without masks."
    )
    assert facts(row)["trust"] == "devices"
    assert account_of(row) == TASK.account
    assert fewest(TASK) == 4
