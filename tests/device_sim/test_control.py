"""A phone's control variate: when it corrects, what is reported of it, and what is kept."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import ClientRule
from kbdfl.algorithms.base import chain
from kbdfl.device_sim.control import Control, ControlStore, mean_gradient
from kbdfl.device_sim.runtime import Budget, Declined, OverBudget, memory_needed, prepare, train
from kbdfl.errors import ModelError
from kbdfl.kernels.train import local_sgd
from kbdfl.transform import decode_chain
from kbdfl.wire import decode_report


@pytest.fixture
def sentences(vocabulary):
    return vocabulary.encode_many(
        ["see you later", "hello how are you", "we see the sea", "thanks", "be there tomorrow", "zyzzyva"]
    )


@pytest.fixture(params=[1, 2])
def task(assignment, request):
    rule = ClientRule(batch_size=2, epochs=2, learning_rate=0.5, scaffold=request.param)
    return replace(assignment, client=rule, upload="float32")


def kept(assignment, values):
    store = ControlStore()
    store.offer(
        Control(values, assignment.task, assignment.spec, assignment.vocabulary, assignment.round - 1)
    )
    store.settle()
    return store


def play(task, params, sentences, **options):
    frame = train(task, params, prepare(task, sentences), device="ann", **options)
    report = decode_report(frame, max_bytes=1 << 20)
    transforms = chain(task.upload, task.update_clip_norm)
    return report, *(
        decode_chain(transforms, part, params.size, draws)
        for part, draws in ((report.update, task.draws), (report.control, task.control_draws))
    )


def plain_delta(task, params, sentences, **options):
    run = prepare(task, sentences)
    return local_sgd(
        params,
        **run.part.config.dims,
        **run.part.batches.arrays,
        learning_rate=task.client.learning_rate,
        clip_norm=task.client.clip_norm,
        **options,
    )[0]


def test_the_first_time_a_phone_trains_as_ever_and_reports_its_gradient(task, params, sentences):
    store = ControlStore()
    assert not store.corrects(task)
    report, delta, change = play(task, params, sentences, controls=store)
    np.testing.assert_array_equal(delta, plain_delta(task, params, sentences))
    assert report.first_control
    assert np.dot(change, delta) < 0  # downhill is where it went
    if task.client.scaffold == 2:
        steps = (prepare(task, sentences).part.batches.learned > 0).sum()
        np.testing.assert_allclose(change, -delta / (0.5 * steps), rtol=1e-5, atol=1e-9)


def test_the_first_option_is_the_mean_of_the_batches_gradients(assignment, params, sentences):
    exact = ClientRule(batch_size=100, learning_rate=1e-3, scaffold=1, clip_norm=0)
    task = replace(assignment, client=exact, upload="float32")
    run = prepare(task, sentences)
    found = mean_gradient(params, run.part.config, run.part.batches, count=1, clip_norm=0)
    _, delta, change = play(task, params, sentences, controls=ControlStore())
    np.testing.assert_array_equal(change, found)
    np.testing.assert_allclose(delta, -1e-3 * found, atol=1e-7)
    norm = np.linalg.norm(found)
    clipped = mean_gradient(params, run.part.config, run.part.batches, count=1, clip_norm=norm / 2)
    np.testing.assert_allclose(clipped, found / 2, rtol=1e-4, atol=1e-9)


def test_a_phone_with_a_control_variate_corrects_its_steps(task, params, sentences):
    random = np.random.default_rng(1)
    own, shared = (0.01 * random.standard_normal((2, params.size))).astype(np.float32)
    store = kept(task, own)
    report, delta, change = play(task, params, sentences, controls=store, shared_control=shared)
    np.testing.assert_array_equal(delta, plain_delta(task, params, sentences, correction=shared - own))
    assert not report.first_control
    store.settle()
    np.testing.assert_allclose(store.at(replace(task, round=task.round + 1)).values, own + change, atol=1e-7)


def test_an_expired_control_variate_corrects_nothing_but_its_change_is_reported(task, params, sentences):
    own = np.full(params.size, 0.01, np.float32)
    old = replace(task, round=task.round + 9, client=replace(task.client, control_rounds=9))
    store = kept(task, own)
    assert store.corrects(replace(old, round=old.round - 1))
    assert not store.corrects(old)
    report, delta, change = play(old, params, sentences, controls=store)
    np.testing.assert_array_equal(delta, plain_delta(old, params, sentences))
    _, _, first = play(old, params, sentences, controls=ControlStore())
    np.testing.assert_allclose(change, first - own, atol=1e-7)
    assert not report.first_control


def test_a_phone_keeps_what_the_server_reads_and_only_once_it_was_counted(task, params, sentences):
    coarse, later, store = replace(task, upload="int8"), replace(task, round=task.round + 1), ControlStore()
    _, _, change = play(coarse, params, sentences, controls=store)
    assert store.at(later) is None
    store.settle()
    np.testing.assert_array_equal(store.at(later).values, change)
    store.settle()
    assert store.at(later) is not None


def test_the_change_is_no_longer_than_an_update_may_be(task, params, sentences):
    bound = 1e-3
    short, store = replace(task, upload="int8", update_clip_norm=bound), ControlStore()
    play(short, params, sentences, controls=store)
    store.settle()
    assert np.linalg.norm(store.kept.values) == pytest.approx(bound, rel=1e-2)
    assert np.linalg.norm(store.kept.values) <= bound * (1 + 1e-5)


@pytest.mark.parametrize("other", [{"task": "b"}, {"spec": "0" * 16}, {"vocabulary": "0" * 64}, {"round": 2}])
def test_a_control_variate_of_another_task_layout_or_time_is_none(task, params, other):
    store = kept(task, params)
    assert store.at(task) is not None
    assert store.at(replace(task, **other)) is None


def test_a_control_variate_survives_on_disk_until_it_is_cleared(tmp_path, task, params):
    path = tmp_path / "control.safetensors"
    store = ControlStore(path=path)
    store.offer(Control(params, task.task, task.spec, task.vocabulary, 1))
    assert not path.exists()
    store.settle()
    np.testing.assert_array_equal(ControlStore(path=path).at(task).values, params)
    store.clear()
    assert not path.exists()
    assert store.at(task) is None


def test_without_its_part_a_phone_trains_no_scaffold(task, params, sentences):
    run = prepare(task, sentences)
    with pytest.raises(Declined, match="keeps no control variate"):
        train(task, params, run, device="ann")
    for shared in (None, params[1:]):
        with pytest.raises(ModelError, match=f"a control variate of {params.size} parameters is needed"):
            train(task, params, run, device="ann", controls=kept(task, params), shared_control=shared)


def test_the_memory_of_control_variates_counts(task, params, sentences):
    run = prepare(task, sentences)
    needed = memory_needed(task, run)
    plain = replace(task, client=replace(task.client, scaffold=0))
    assert needed >= memory_needed(plain, run) + 5 * params.nbytes
    with pytest.raises(OverBudget):
        train(task, params, run, device="a", controls=ControlStore(), budget=Budget(memory_bytes=needed - 1))
