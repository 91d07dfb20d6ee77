"""What encoding loses of a report comes with the next one, if that is soon enough."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.codec import upload_chain
from kbdfl.device_sim.feedback import ErrorMemory, encode_with_feedback
from kbdfl.transform import decode_chain


@pytest.fixture
def task(assignment):
    client = replace(assignment.client, feedback_rounds=5)
    return replace(assignment, upload="topk:0.1+float32", client=client, round=10)


def delta_of(task, seed=0):
    return np.random.default_rng(seed).standard_normal(task.config.spec.size).astype(np.float32)


def sent(task, delta, errors):
    update = encode_with_feedback(task, delta, errors)
    return decode_chain(upload_chain(task.upload), update, delta.size, task.draws)


def test_what_was_not_sent_is_kept_and_added(task):
    errors, delta = ErrorMemory(), delta_of(task)
    first = sent(task, delta, errors)
    errors.settle()
    later = replace(task, round=12)
    second = sent(later, np.zeros_like(delta), errors)
    lost = delta - first
    kept = np.flatnonzero(second)
    assert len(kept) == np.count_nonzero(first)
    np.testing.assert_allclose(second[kept], lost[kept], atol=np.abs(lost).max() / 60)
    assert not first[kept].any()


def test_what_the_server_did_not_count_is_not_remembered(task):
    errors = ErrorMemory()
    sent(task, delta_of(task), errors)
    assert errors.at(replace(task, round=11)) is None
    errors.settle()
    assert errors.at(replace(task, round=11)) is not None


@pytest.mark.parametrize(
    "change", [{"round": 16}, {"round": 10}, {"task": "another"}], ids=["expired", "same round", "other task"]
)
def test_an_error_that_does_not_belong_to_the_assignment_is_left_out(task, change):
    errors = ErrorMemory()
    sent(task, delta_of(task), errors)
    errors.settle()
    assert errors.at(replace(task, round=15)) is not None
    assert errors.at(replace(task, **change)) is None


def test_without_the_rule_nothing_is_kept(task):
    errors = ErrorMemory()
    sent(replace(task, client=replace(task.client, feedback_rounds=0)), delta_of(task), errors)
    errors.settle()
    assert errors.nbytes == 0


def test_the_memory_takes_a_byte_a_value(task):
    errors, delta = ErrorMemory(), delta_of(task)
    sent(task, delta, errors)
    errors.settle()
    assert 0 < errors.nbytes < 1.5 * delta.size
