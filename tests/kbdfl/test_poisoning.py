"""How far one phone can move a model, whatever it sends: bound x its largest weight / the weight of the round."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.algorithms import Algorithm, FedAvg
from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator
from kbdfl.model import CifgConfig, init_params
from kbdfl.rounds import MemoryStore
from kbdfl.task import RoundRule, Task
from kbdfl.transform import Draws, encode_chain
from kbdfl.wire import encode_report

CONFIG = CifgConfig(vocab=30, embed=4, hidden=5)
SIZE = CONFIG.spec.size
BOUND, MOST = 0.5, 200
DRAWS = Draws(1, 2)
UPLOADS = ("float32", "int8", "compact", "tiny-uplink", "summable")


def moved(upload: str, *, lie: float, examples: int, honest: int, seed: int) -> tuple[np.ndarray, float]:
    """Where a round of `honest` phones and a liar ends, float32 (P,), and the weight of all of them."""
    algorithm = Algorithm(upload=upload, update_clip_norm=BOUND, server=FedAvg(), max_weight=MOST)
    task = Task(
        name="poisoned",
        config=CONFIG,
        algorithm=algorithm,
        rule=RoundRule(cohort=honest + 1, over_selection=1.0, rounds=1, max_report_bytes=1 << 20),
        vocabulary_sha256="0" * 64,
        seed=1,
    )
    random = np.random.default_rng(seed)
    start = init_params(CONFIG, seed=1)
    coordinator = Coordinator(task, start, store=MemoryStore(), random=random)
    deltas = random.standard_normal((honest + 1, SIZE)).astype(np.float32) / np.float32(SIZE**0.5)
    # A liar does not clip: its chain is the task's without the first step.
    steps = [algorithm.transforms[1:]] + [algorithm.transforms] * honest
    deltas[0] *= np.float32(lie)
    stated = [examples] + [50] * honest
    for number, (delta, chain, count) in enumerate(zip(deltas, steps, stated, strict=True)):
        device = f"phone {number}"
        assignment = coordinator.check_in(device, 0.0)
        assert isinstance(assignment, Assignment)
        frame = encode_report(
            encode_chain(chain, delta, assignment.draws),
            task=task.name,
            round=0,
            device=device,
            model_sha256=assignment.model_sha256,
            spec_hash=assignment.spec,
            upload=upload,
            examples=count,
            tokens=100,
            train_loss=3.0,
        )
        coordinator.report(device, frame, 1.0)
    assert coordinator.version == 1
    return coordinator.params, float(min(examples, MOST) + 50 * honest)


@pytest.mark.parametrize("upload", UPLOADS)
@given(
    lie=st.sampled_from([1000.0, -1000.0, 1e6]),
    examples=st.sampled_from([1, 50, 200, 10**9]),
    honest=st.integers(1, 5),
    seed=st.integers(0, 2**16),
)
def test_a_report_scaled_by_a_thousand_moves_the_model_by_no_more_than_the_bound(
    upload, lie, examples, honest, seed
):
    with_lie, weight = moved(upload, lie=lie, examples=examples, honest=honest, seed=seed)
    without, _ = moved(upload, lie=0.0, examples=examples, honest=honest, seed=seed)
    shift = np.linalg.norm(with_lie.astype(np.float64) - without)
    most = BOUND * min(examples, MOST) / weight
    rounding = 1e-6 * np.linalg.norm(with_lie.astype(np.float64))  # of the model to float32
    assert shift <= most + rounding
    assert most <= BOUND * MOST / weight


def test_the_bound_is_reached():
    with_lie, weight = moved("float32", lie=1000.0, examples=10**9, honest=2, seed=3)
    without, _ = moved("float32", lie=0.0, examples=10**9, honest=2, seed=3)
    shift = np.linalg.norm(with_lie.astype(np.float64) - without)
    assert shift == pytest.approx(BOUND * MOST / weight, rel=1e-4)


def test_without_a_bound_the_model_goes_where_the_liar_wants():
    algorithm = Algorithm(upload="float32", server=FedAvg())
    assert algorithm.update_clip_norm == 0
    sums = algorithm.gathering(3)
    for name, delta in (("liar", 1000.0), ("honest", 1.0)):
        update = encode_chain(algorithm.transforms, np.full(3, delta, np.float32), DRAWS)
        sums.add(name, update, DRAWS, weight=1.0)
    np.testing.assert_allclose(sums.mean(), 500.5, rtol=1e-6)
