"""A task with privacy at the coordinator: whom it lets in, what it books before it publishes, and when it stops."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule, FedAvg, FedBuff, Median, Oort
from kbdfl.assignment import Assignment
from kbdfl.codec import upload_chain
from kbdfl.coordinator import Coordinator, Finished, Wait
from kbdfl.errors import ConfigError
from kbdfl.model import CifgConfig, init_params
from kbdfl.privacy import FileBooks, MemoryBooks, Privacy
from kbdfl.rounds import MemoryStore, metrics_row
from kbdfl.task import RoundRule, Task
from kbdfl.transform import encode_chain
from kbdfl.wire import encode_report

CONFIG = CifgConfig(vocab=8, embed=2, hidden=3)
PRIVACY = Privacy("gaussian", noise_multiplier=1.0, separation=2)
ALGORITHM = Algorithm(
    server=FedAvg(), upload="float32", update_clip_norm=0.5, weights="uniform", privacy=PRIVACY
)


def make_task(algorithm=ALGORITHM, **rule):
    rule = {"cohort": 2, "over_selection": 1.0, "rounds": 6, "deadline_s": 10.0} | rule
    return Task("keys", CONFIG, algorithm, RoundRule(**rule), "ab" * 32, seed=1)


def coordinate(task, *, books=None, store=None):
    privacy = task.central(books or MemoryBooks())
    params = init_params(CONFIG, seed=1)
    return Coordinator(
        task, params, store=store or MemoryStore(), random=np.random.default_rng(1), privacy=privacy
    )


def report(assignment, device, *, scale=1.0, seed=0):
    delta = (scale * np.random.default_rng(seed).standard_normal(CONFIG.spec.size)).astype(np.float32)
    update = encode_chain(upload_chain("float32"), delta, assignment.draws)
    return encode_report(
        update,
        task=assignment.task,
        round=assignment.round,
        device=device,
        model_sha256=assignment.model_sha256,
        spec_hash=assignment.spec,
        upload="float32",
        examples=3,
        tokens=10,
        train_loss=2.0,
    )


def play(coordinator, devices, now=0.0):
    closed = None
    for device in devices:
        assignment = coordinator.check_in(device, now)
        closed = coordinator.report(device, report(assignment, device), now).closed
    return closed


def test_a_committed_round_is_booked_and_its_result_says_what_is_spent():
    books = MemoryBooks()
    coordinator = coordinate(make_task(), books=books)
    closed = play(coordinator, ["ann", "bob"])
    (row,) = books.rows()
    assert (row.round, row.devices, row.clip_norm) == (0, 2, 0.5)
    assert closed.epsilon == row.epsilon > 0
    assert metrics_row(closed, wall_s=0.0)["epsilon"] == row.epsilon
    assert set(books.participations()) == {"ann", "bob"}


def test_the_row_is_there_before_the_model():
    class Watched(MemoryStore):
        def save(self, *arguments, **options):
            seen.append(len(books.rows()))
            super().save(*arguments, **options)

    books, seen = MemoryBooks(), []
    play(coordinate(make_task(), books=books, store=Watched()), ["ann", "bob"])
    assert seen == [1]


def test_a_round_that_the_store_could_not_keep_is_released_once():
    class Full(MemoryStore):
        full = True

        def save(self, result, params, state, **options):
            tried.append(params.copy())
            if self.full:
                raise OSError("no space left")
            super().save(result, params, state, **options)

    books, store, tried = MemoryBooks(), Full(), []
    coordinator = coordinate(make_task(), books=books, store=store)
    with pytest.raises(OSError, match="no space"):
        play(coordinator, ["ann", "bob"])
    store.full = False
    assert coordinator.tick(1.0).status == "committed"
    assert np.array_equal(*tried)
    assert len(books.rows()) == 1


def test_an_abandoned_round_costs_nothing_and_bars_nobody():
    books = MemoryBooks()
    coordinator = coordinate(make_task(), books=books)
    play(coordinator, ["ann"])
    closed = coordinator.tick(11.0)
    assert (closed.status, closed.epsilon) == ("abandoned", 0.0)
    assert books.rows() == []
    assert isinstance(coordinator.check_in("ann", 12.0), Assignment)


def test_phones_wait_until_their_separation_is_over_even_after_a_crash(tmp_path):
    task, store = make_task(), MemoryStore()
    coordinator = coordinate(task, books=FileBooks(tmp_path), store=store)
    play(coordinator, ["ann", "bob"])
    again = coordinate(task, books=FileBooks(tmp_path), store=store)
    for known in (coordinator, again):
        assert isinstance(known.check_in("ann", 1.0), Wait)
    play(again, ["cid", "dan"], 2.0)
    assert isinstance(again.check_in("cid", 3.0), Wait)
    assert isinstance(again.check_in("ann", 3.0), Assignment)


def test_a_phone_that_is_selected_is_not_barred_from_its_own_round():
    coordinator = coordinate(make_task())
    first = coordinator.check_in("ann", 0.0)
    assert coordinator.check_in("ann", 1.0) == replace(first, deadline_s=9.0)


def test_the_task_stops_when_its_budget_is_spent():
    task = make_task()
    spent = task.central(MemoryBooks())._account.epsilon(4)
    tight = make_task(replace(ALGORITHM, privacy=replace(PRIVACY, epsilon=spent)))
    books = MemoryBooks()
    coordinator = coordinate(tight, books=books)
    pairs = [["ann", "bob"], ["cid", "dan"]]
    for number in range(4):
        assert coordinator.phase == "open"
        play(coordinator, pairs[number % 2], float(number))
    assert coordinator.phase == "finished"
    assert coordinator.round == 4 < tight.rule.rounds
    assert isinstance(coordinator.check_in("ann", 9.0), Finished)
    assert coordinator.tick(99.0) is None
    assert coordinate(tight, books=books).phase == "finished"


def test_a_monstrous_update_moves_the_model_by_one_clip_norm_and_the_noise():
    quiet = replace(ALGORITHM, privacy=replace(PRIVACY, noise_multiplier=1e-6))
    coordinator = coordinate(make_task(quiet))
    before = coordinator.params
    for device, scale in (("ann", 1e12), ("bob", 0.0)):
        assignment = coordinator.check_in(device, 0.0)
        coordinator.report(device, report(assignment, device, scale=scale), 0.0)
    assert np.linalg.norm(coordinator.params - before) == pytest.approx(0.5 / 2, rel=1e-4)


def test_the_open_round_survives_in_what_a_server_keeps_of_it():
    quiet = replace(ALGORITHM, privacy=replace(PRIVACY, noise_multiplier=1e-6))
    task, books = make_task(quiet), MemoryBooks()
    coordinator = coordinate(task)
    play(coordinator, ["ann"])
    kept = coordinator.in_flight()
    again = coordinate(task, books=books)
    again.resume(kept, shift_s=0.0)
    for each in (coordinator, again):
        play(each, ["bob"], 1.0)
    np.testing.assert_allclose(again.params, coordinator.params, atol=1e-5)
    assert set(books.participations()) == {"ann", "bob"}


def test_servers_that_share_a_round_add_up_and_book_all_devices():
    quiet = replace(ALGORITHM, privacy=replace(PRIVACY, noise_multiplier=1e-6))
    task, books = make_task(quiet), MemoryBooks()
    alone, here, there = coordinate(task), coordinate(task, books=books), coordinate(task)
    play(alone, ["ann", "bob"])
    play(there, ["ann"])
    here.share(there.shared())
    here.elsewhere = lambda: [there.sums()]
    play(here, ["bob"])
    np.testing.assert_allclose(here.params, alone.params, atol=1e-5)
    assert set(books.participations()) == {"ann", "bob"}


def test_phones_are_told_the_promise_and_the_norm_to_clip_to():
    bounded = replace(ALGORITHM, privacy=replace(PRIVACY, participations=3))
    assignment = coordinate(make_task(bounded)).check_in("ann", 0.0)
    assert (assignment.participations, assignment.separation) == (3, 2)
    assert assignment.update_clip_norm == 0.5
    moving = replace(ALGORITHM, privacy=replace(PRIVACY, quantile=0.5))
    assert coordinate(make_task(moving)).check_in("ann", 0.0).update_clip_norm == 1.0


def test_a_task_with_privacy_needs_books():
    task = make_task()
    with pytest.raises(ConfigError, match="privacy must be none where no ledger of it is kept"):
        Coordinator(task, init_params(CONFIG, seed=1), store=MemoryStore(), random=np.random.default_rng(1))
    assert make_task(Algorithm()).central(MemoryBooks()) is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"update_clip_norm": 0.0}, "update_clip_norm must be > 0 with privacy"),
        ({"weights": "examples"}, "weights must be uniform with privacy"),
        ({"aggregate": Median()}, "aggregate must be mean with privacy"),
        ({"mode": FedBuff()}, "privacy must be none with fedbuff"),
        ({"client": ClientRule(scaffold=2)}, "scaffold must be 0 with privacy"),
        ({"selection": Oort()}, "selection must not be oort with privacy"),
        (
            {"client": ClientRule(report_words=3), "privacy": replace(PRIVACY, mechanism="banded")},
            "report_words must be 0 with noise that later rounds take back",
        ),
        (
            {"upload": "summable", "privacy": replace(PRIVACY, quantile=0.5)},
            "upload must not be fixed with a privacy quantile",
        ),
    ],
)
def test_what_noise_would_not_cover_is_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        replace(ALGORITHM, **fields)


def test_some_words_of_a_model_can_be_reported_under_independent_noise():
    coordinator = coordinate(make_task(replace(ALGORITHM, client=ClientRule(report_words=2))))
    assignment = coordinator.check_in("ann", 0.0)
    assert coordinator.privacy._account.size == assignment.coordinates.model.spec.size < CONFIG.spec.size
