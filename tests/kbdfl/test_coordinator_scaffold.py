"""The coordinator's part of SCAFFOLD: c beside the model, durable with it, moved by counted reports alone."""

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam, FedAvg
from kbdfl.coordinator import Coordinator
from kbdfl.errors import ModelError, WireError
from kbdfl.model import CifgConfig, init_params
from kbdfl.rounds import MemoryStore
from kbdfl.task import RoundRule, Task
from kbdfl.transform import Draws, Update, encode_chain
from kbdfl.wire import encode_report

CONFIG = CifgConfig(vocab=8, embed=2, hidden=3)
SIZE = CONFIG.spec.size


def make_task(*, scaffold=2, server=None, clip=0.0, **rounds):
    return Task(
        name="test keyboard",
        config=CONFIG,
        algorithm=Algorithm(
            ClientRule(scaffold=scaffold), upload="float32", update_clip_norm=clip, server=server or FedAvg()
        ),
        rule=RoundRule(**({"cohort": 2, "over_selection": 1.0, "deadline_s": 10.0, "rounds": 4} | rounds)),
        vocabulary_sha256="ab" * 32,
        seed=1,
    )


def coordinate(task, store=None):
    params = init_params(CONFIG, seed=1)
    return Coordinator(task, params, store=store or MemoryStore(), random=np.random.default_rng(1))


def vector(value):
    return np.full(SIZE, value, np.float32)


def send(coordinator, device, *, change, first=True, examples=3, now=0.0):
    """A report of a delta of zeros and of `change`: a number, a form of its own, or None."""
    assignment, task = coordinator.check_in(device, now), coordinator.task
    if isinstance(change, float):
        change = encode_chain(task.algorithm.transforms, vector(change), Draws(1, 0))
    frame = encode_report(
        encode_chain(task.algorithm.transforms, vector(0.0), Draws(1, 0)),
        task=task.name,
        round=assignment.round,
        device=device,
        model_sha256=assignment.model_sha256,
        spec_hash=assignment.spec,
        upload=assignment.upload,
        examples=examples,
        tokens=10,
        train_loss=2.0,
        control=change,
        first_control=first and change is not None,
    )
    return coordinator.report(device, frame, now)


def test_c_is_the_weighted_mean_of_the_control_variates():
    coordinator = coordinate(make_task())
    np.testing.assert_array_equal(coordinator.control, vector(0))
    send(coordinator, "a", change=1.0, examples=1)
    send(coordinator, "b", change=5.0, examples=3)
    np.testing.assert_allclose(coordinator.control, vector(4))
    send(coordinator, "a", change=-1.0, examples=1, first=False)
    send(coordinator, "c", change=0.0, examples=1)
    np.testing.assert_allclose(coordinator.control, vector((0 + 3 * 5 + 0) / 5))
    with pytest.raises(ValueError, match="read-only"):
        coordinator.control[0] = 1


def test_changes_that_came_with_an_abandoned_round_count_with_the_next():
    coordinator = coordinate(make_task())
    send(coordinator, "a", change=4.0)
    assert coordinator.tick(10.0).status == "abandoned"
    np.testing.assert_array_equal(coordinator.control, vector(0))
    send(coordinator, "b", change=2.0, now=11.0)
    send(coordinator, "a", change=2.0, first=False, now=11.0)
    np.testing.assert_allclose(coordinator.control, vector((6 + 2) / 2))


def test_a_change_that_lies_about_its_norm_counts_up_to_the_bound():
    coordinator = coordinate(make_task(clip=0.5, cohort=1))
    send(coordinator, "a", change=encode_chain(make_task().algorithm.transforms, vector(9.0), Draws(1, 0)))
    assert np.linalg.norm(coordinator.control) == pytest.approx(0.5)


@pytest.mark.parametrize("server", [FedAvg(), FedAdam()], ids=repr)
def test_an_interrupted_scaffold_task_ends_in_the_same_bytes(server):
    ends = []
    for interrupted in (False, True):
        task, store = make_task(server=server, cohort=1), MemoryStore()
        coordinator = coordinate(task, store)
        for number in range(4):
            send(coordinator, f"phone-{number % 2}", change=0.5 + number, first=number < 2)
            if interrupted:
                coordinator = coordinate(task, store)
        ends.append((coordinator.params.tobytes(), coordinator.control.tobytes(), coordinator.phase))
    assert ends[0] == ends[1]


def test_a_task_that_was_no_scaffold_cannot_go_on_as_one():
    store = MemoryStore()
    send(coordinate(make_task(scaffold=0, cohort=1), store), "a", change=None)
    with pytest.raises(ModelError, match="of another rule"):
        coordinate(make_task(cohort=1), store)


@pytest.mark.parametrize("scaffold", [0, 2])
def test_a_control_variate_belongs_to_scaffold_alone(scaffold):
    coordinator = coordinate(make_task(scaffold=scaffold))
    with pytest.raises(ModelError, match="where the task is SCAFFOLD, and nowhere else"):
        send(coordinator, "a", change=None if scaffold else 1.0)
    assert coordinator.reports == 0


@pytest.mark.parametrize(
    "values", [np.zeros(3, np.float32), np.full(SIZE, np.nan, np.float32), np.zeros(SIZE, np.int8)]
)
def test_a_change_that_cannot_be_read_changes_nothing(values):
    coordinator = coordinate(make_task())
    with pytest.raises(WireError):
        send(coordinator, "a", change=Update({"values": values}))
    assert coordinator.reports == 0
    send(coordinator, "a", change=1.0)
    send(coordinator, "b", change=1.0)
    np.testing.assert_allclose(coordinator.control, vector(1))


def test_a_report_may_be_as_long_as_two_vectors():
    assert make_task().max_report_bytes - make_task(scaffold=0).max_report_bytes == 4 * SIZE
