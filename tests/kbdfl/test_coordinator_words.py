"""Rounds that report the rows of some words only: what a commit moves, what it leaves, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule, FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi
from kbdfl.coordinator import Coordinator
from kbdfl.errors import ModelError, WireError
from kbdfl.model import CifgConfig, init_params
from kbdfl.rounds import MemoryStore
from kbdfl.task import RoundRule, Task
from kbdfl.transform import Draws, decode_chain, encode_chain
from kbdfl.wire import decode_report, encode_report

CONFIG = CifgConfig(vocab=40, embed=2, hidden=3)
DEVICES = ("a", "b")


def make_task(*, server=None, upload="float32", seed=1, words=10):
    return Task(
        name="test keyboard",
        config=CONFIG,
        algorithm=Algorithm(ClientRule(report_words=words), upload=upload, server=server or FedAdam()),
        rule=RoundRule(cohort=2, over_selection=1.0, rounds=6),
        vocabulary_sha256="ab" * 32,
        seed=seed,
    )


def coordinate(task, store=None):
    store = store or MemoryStore()
    return Coordinator(task, init_params(CONFIG, seed=1), store=store, random=np.random.default_rng(1))


def frame_of(task, assignment, device, *, seed, spec_hash=None, size=None):
    size = assignment.coordinates.model.spec.size if size is None else size
    delta = 0.01 * np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    return encode_report(
        encode_chain(task.algorithm.transforms, delta, assignment.draws),
        task=assignment.task,
        round=assignment.round,
        device=device,
        model_sha256=assignment.model_sha256,
        spec_hash=spec_hash or assignment.coordinates.hash,
        upload=assignment.upload,
        examples=3,
        tokens=10,
        train_loss=2.0,
    )


def play(task, coordinator, *, seed):
    """One round; the coordinates of its reports and these."""
    assignments = {device: coordinator.check_in(device, 0.0) for device in DEVICES}
    frames = [frame_of(task, assignments[device], device, seed=seed + i) for i, device in enumerate(DEVICES)]
    for device, frame in zip(DEVICES, frames, strict=True):
        receipt = coordinator.report(device, frame, 1.0)
    assert receipt.closed.status == "committed"
    return assignments["a"].coordinates, [decode_report(frame, max_bytes=1 << 20) for frame in frames]


def outside(at, flat):
    """Rows and biases of the words that are not in `at`."""
    others, views = np.setdiff1d(np.arange(CONFIG.vocab), at.words.rows), CONFIG.spec.views(flat)
    return np.concatenate([views["emb"][others].ravel(), views["bias"][others]])


def test_all_phones_of_a_round_get_the_same_coordinates_and_another_round_others():
    task = make_task()
    coordinator = coordinate(task)
    sets = []
    for number in range(3):
        assignments = [coordinator.check_in(device, 0.0) for device in DEVICES]
        assert assignments[0].seed != assignments[1].seed
        hashes = {assignment.coordinates.hash for assignment in assignments}
        assert len(hashes) == 1
        sets += hashes
        play(task, coordinator, seed=number)
    assert len(set(sets)) == 3


@pytest.mark.parametrize("server", [FedAvg(), FedAvgM(), FedAdagrad(), FedAdam(), FedYogi()], ids=repr)
@pytest.mark.parametrize("upload", ["float32", "int8"])
def test_rows_outside_a_round_stay_and_so_does_their_server_state(server, upload):
    task, store = make_task(server=server, upload=upload), MemoryStore()
    coordinator = coordinate(task, store)
    state = server.init(CONFIG.spec.size)
    for number in range(3):
        before = coordinator.params
        at, _ = play(task, coordinator, seed=10 * number)
        np.testing.assert_array_equal(outside(at, coordinator.params), outside(at, before))
        assert (at.take(coordinator.params) != at.take(before)).any()
        for name, array in store.saved.server_state.items():
            np.testing.assert_array_equal(outside(at, array), outside(at, state[name]))
            assert (at.take(array) != at.take(state[name])).any()
        state = store.saved.server_state


@pytest.mark.parametrize("upload", ["float32", "int8"])
def test_a_commit_moves_by_the_mean_of_the_decoded_reports_stretched(upload):
    task = make_task(server=FedAvg(0.5), upload=upload)
    coordinator = coordinate(task)
    before = coordinator.params
    at, reports = play(task, coordinator, seed=5)
    size = at.model.spec.size
    deltas = [decode_chain(task.algorithm.transforms, report.update, size, Draws(0, 0)) for report in reports]
    step = at.stretched(0.5 * np.mean(deltas, axis=0, dtype=np.float32))
    np.testing.assert_allclose(
        coordinator.params, at.put(before, at.take(before) + step), rtol=1e-4, atol=1e-6
    )


def test_a_report_at_other_coordinates_is_refused_and_changes_nothing():
    task = make_task()
    coordinator = coordinate(task)
    first, _ = play(task, coordinator, seed=0)
    assignment, before = coordinator.check_in("a", 0.0), coordinator.params
    for other in (first.hash, CONFIG.spec.hash, assignment.coordinates.model.spec.hash):
        with pytest.raises(
            ModelError, match=f"laid out as {other}, the round as {assignment.coordinates.hash}"
        ):
            coordinator.report("a", frame_of(task, assignment, "a", seed=1, spec_hash=other), 1.0)
    strange = replace(assignment, round_seed=assignment.round_seed + 1)
    with pytest.raises(ModelError, match="laid out as"):
        coordinator.report("a", frame_of(task, strange, "a", seed=1), 1.0)
    assert coordinator.reports == 0
    assert coordinator.params is before


def test_a_report_of_the_whole_model_does_not_fit_a_part():
    task = make_task()
    coordinator = coordinate(task)
    assignment = coordinator.check_in("a", 0.0)
    size = assignment.coordinates.model.spec.size
    with pytest.raises(WireError, match=f"an update of {size} values is needed, got {CONFIG.spec.size}"):
        coordinator.report("a", frame_of(task, assignment, "a", seed=1, size=CONFIG.spec.size), 1.0)


def test_a_resumed_coordinator_draws_the_same_words_and_ends_in_the_same_bytes():
    ends = []
    for interrupted in (False, True):
        task, store = make_task(), MemoryStore()
        coordinator = coordinate(task, store)
        for number in range(4):
            if interrupted:
                coordinator.check_in("a", 0.0)  # the round in flight is lost
                coordinator = coordinate(task, store)
            play(task, coordinator, seed=number)
        ends.append(coordinator.params.tobytes())
    assert ends[0] == ends[1]


def test_another_seed_of_the_task_draws_other_words():
    hashes = {coordinate(make_task(seed=seed)).check_in("a", 0.0).coordinates.hash for seed in range(3)}
    assert len(hashes) == 3


def test_a_round_that_reports_all_words_is_the_plain_round():
    ends = set()
    for words in (0, 36, 1_000):
        task = make_task(words=words)
        coordinator = coordinate(task)
        at, _ = play(task, coordinator, seed=0)
        assert at.hash == CONFIG.spec.hash
        ends.add(coordinator.params.tobytes())
    assert len(ends) == 1


def test_the_largest_report_follows_the_words():
    task, whole = make_task(), make_task(words=0)
    assignment = coordinate(task).check_in("a", 0.0)
    assert len(frame_of(task, assignment, "a", seed=1)) < task.max_report_bytes == assignment.max_report_bytes
    assert whole.max_report_bytes - task.max_report_bytes == 4 * 26 * 3
