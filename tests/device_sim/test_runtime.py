"""The device runtime: what it refuses, what it stays inside of, and what its report says."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import ClientRule
from kbdfl.algorithms.base import chain
from kbdfl.device_sim.runtime import (
    Budget,
    Declined,
    Diverged,
    OverBudget,
    check_model,
    memory_needed,
    prepare,
    train,
)
from kbdfl.errors import ConfigError, DataError, ModelError
from kbdfl.kernels.train import Workspace, gradient, local_sgd
from kbdfl.text import BOS, EOS, UNK, Vocabulary
from kbdfl.transform import decode_chain
from kbdfl.wire import decode_report


@pytest.fixture
def sentences(vocabulary):
    return vocabulary.encode_many(
        ["see you later", "hello how are you", "we see the sea", "thanks", "zyzzyva you", "be there tomorrow"]
    )


def delta_of(assignment, params, run):
    delta, loss, tokens, _ = local_sgd(
        params,
        **assignment.config.dims,
        **run.part.batches.arrays,
        learning_rate=assignment.client.learning_rate,
        clip_norm=assignment.client.clip_norm,
    )
    return delta, loss, tokens


def decoded(frame, assignment):
    report = decode_report(frame, max_bytes=1 << 20)
    chain_of = chain(assignment.upload, assignment.update_clip_norm)
    return report, decode_chain(chain_of, report.update, assignment.config.spec.size, assignment.draws)


# the model


def test_the_assigned_model_is_accepted(assignment, params, vocabulary):
    check_model(assignment, params, vocabulary)


def test_a_model_that_is_not_the_assigned_one_is_refused(assignment, params, vocabulary, model):
    altered = params.copy()
    altered[17] = np.nextafter(altered[17], 1)
    longer = np.append(params, np.float32(0))
    other_words = Vocabulary.of_words(
        list(reversed(vocabulary.tokens[4:])), "the same words in another order"
    )
    fewer_words = Vocabulary.of_words(vocabulary.tokens[4:-1], "one word less")
    larger = replace(model, hidden=model.hidden + 1)
    cases = [
        (assignment, altered, vocabulary, "sha256"),
        (replace(assignment, model_sha256="0" * 64), params, vocabulary, "sha256"),
        (replace(assignment, spec="0" * 16), params, vocabulary, "layout"),
        (replace(assignment, config=larger), params, vocabulary, "layout"),
        (replace(assignment, config=larger, spec=larger.spec.hash), params, vocabulary, "parameters, got"),
        (assignment, longer, vocabulary, "parameters, got"),
        (assignment, params[None], vocabulary, "parameters, got"),
        (assignment, params, other_words, "another vocabulary"),
        (assignment, params, fewer_words, "another vocabulary"),
        (replace(assignment, vocabulary="0" * 64), params, vocabulary, "another vocabulary"),
    ]
    for task, flat, words, reason in cases:
        with pytest.raises(ModelError, match=reason):
            check_model(task, flat, words)


# the batches


def test_nothing_to_learn_is_said(assignment):
    for sentences in ([], [[BOS, EOS]], [[BOS, UNK, UNK, EOS]]):
        with pytest.raises(DataError, match="nothing to train on"):
            prepare(assignment, sentences)


def test_known_words_beyond_the_cut_are_nothing_to_learn(assignment):
    short = replace(assignment, client=replace(assignment.client, max_words=2))
    with pytest.raises(DataError):
        prepare(short, [[BOS, UNK, UNK, 7, EOS]])


def test_a_heavy_user_draws_max_messages_anew_in_every_round(assignment, sentences):
    few = replace(assignment, client=replace(assignment.client, max_messages=2))
    runs = [prepare(replace(few, seed=seed), sentences) for seed in range(12)]
    assert {run.examples for run in runs} == {2}
    assert len({tuple(sorted(run.part.batches.inputs)) for run in runs}) > 1
    assert prepare(assignment, sentences).examples == len(sentences)


def test_batches_follow_from_the_assignments_seed(assignment, sentences):
    one, two = prepare(assignment, sentences), prepare(assignment, sentences)
    np.testing.assert_array_equal(one.part.batches.inputs, two.part.batches.inputs)
    other = prepare(replace(assignment, seed=100), sentences)
    assert not np.array_equal(one.part.batches.inputs, other.part.batches.inputs)


def test_epochs_that_would_fill_the_memory_are_refused_before_they_are_made(assignment, sentences):
    endless = replace(assignment, client=replace(assignment.client, epochs=10**15))
    with pytest.raises(OverBudget, match="the batches need"):
        prepare(endless, sentences)
    with pytest.raises(OverBudget):
        prepare(assignment, sentences, budget=Budget(memory_bytes=100))


@pytest.mark.parametrize(
    ("rule", "steps", "examples"),
    [
        ({"steps": 1}, 1, 4),
        ({"steps": 2, "epochs": 10**9}, 2, 6),
        ({"steps": 5, "epochs": 3}, 5, 6),
        ({"steps": 50, "epochs": 3}, 6, 6),
    ],
)
def test_steps_bound_the_batches_however_many_the_epochs(assignment, sentences, rule, steps, examples):
    run = prepare(replace(assignment, client=ClientRule(batch_size=4, **rule)), sentences)
    assert len(run.part.batches.steps) == steps
    assert run.examples == examples


# the report


def test_report_decodes_to_the_delta_within_int8_error(assignment, params, sentences):
    run = prepare(assignment, sentences)
    frame = train(assignment, params, run, device="ann")
    delta, loss, tokens = delta_of(assignment, params, run)
    report, got = decoded(frame, assignment)
    scales = np.repeat(report.update.sections["scales"], 256)[: delta.size]
    assert np.abs(delta).max() > 1e-3
    assert (np.abs(got - delta) <= scales * 1.001).all()
    assert (report.task, report.round, report.device) == ("test keyboard", 3, "ann")
    assert (report.model_sha256, report.spec_hash) == (assignment.model_sha256, assignment.spec)
    assert (report.examples, report.tokens) == (len(sentences), tokens)
    assert report.train_loss == pytest.approx(loss / tokens)


def test_float32_report_is_the_delta(assignment, params, sentences):
    exact = replace(assignment, upload="float32")
    run = prepare(exact, sentences)
    _, got = decoded(train(exact, params, run, device="ann"), exact)
    np.testing.assert_array_equal(got, delta_of(exact, params, run)[0])


def test_all_phones_of_a_round_report_the_same_coordinates(assignment, params, sentences):
    few = ClientRule(batch_size=4, learning_rate=1.0, candidates=4, report_words=6)
    layouts = set()
    for seed in range(6):
        phone = replace(assignment, seed=seed, client=few)
        report = decode_report(
            train(phone, params, prepare(phone, sentences[seed:]), device=f"phone {seed}"), max_bytes=1 << 20
        )
        layouts.add((report.spec_hash, report.update.sections["levels"].size))
    assert layouts == {(phone.coordinates.hash, phone.coordinates.model.spec.size)}
    assert phone.coordinates.model.vocab == 10
    next_round = replace(phone, round_seed=phone.round_seed + 1)
    assert next_round.coordinates.hash != phone.coordinates.hash


def test_an_update_is_clipped_to_the_assigned_norm(assignment, params, sentences):
    clipped = replace(assignment, upload="float32", update_clip_norm=0.01)
    run = prepare(clipped, sentences)
    delta, *_ = delta_of(clipped, params, run)
    _, got = decoded(train(clipped, params, run, device="ann"), clipped)
    norm = np.linalg.norm(delta.astype(float))
    assert norm > 0.01
    assert np.linalg.norm(got.astype(float)) == pytest.approx(0.01, rel=1e-5)
    np.testing.assert_allclose(got, delta * (0.01 / norm), rtol=1e-4, atol=1e-9)


def test_the_same_assignment_gives_the_same_bytes(assignment, params, sentences):
    frames = {
        train(task, params, prepare(task, sentences), device="ann", workspace=workspace)
        for workspace in (None, Workspace(), None)
        for task in [assignment]
    }
    assert len(frames) == 1
    other = replace(assignment, seed=assignment.seed + 1)
    assert train(other, params, prepare(other, sentences), device="ann") not in frames


def test_received_parameters_stay_as_they_are(assignment, params, sentences):
    kept = params.copy()
    train(assignment, params, prepare(assignment, sentences), device="ann")
    np.testing.assert_array_equal(params, kept)


@pytest.mark.parametrize("bend", [{"momentum": 0.9}, {"proximal": 0.5}])
def test_the_client_rule_bends_the_steps_and_a_zero_changes_no_bit(assignment, params, sentences, bend):
    def reported(**more):
        rule = ClientRule(batch_size=2, epochs=3, learning_rate=1.0, **more)
        task = replace(assignment, client=rule, upload="float32")
        return decoded(train(task, params, prepare(task, sentences), device="ann"), task)[1]

    plain, bent = reported(), reported(**bend)
    np.testing.assert_array_equal(reported(**dict.fromkeys(bend, 0.0)), plain)
    longer = np.linalg.norm(bent) > np.linalg.norm(plain)
    assert longer == ("momentum" in bend)


def test_fedprox_ends_where_gradient_and_pull_cancel(assignment, params, sentences):
    """The minimum of loss(x) + mu/2 |x - x_received|^2 (equation 2): one batch, many steps."""
    rule = ClientRule(batch_size=100, epochs=300, learning_rate=0.3, proximal=1.0, clip_norm=0)
    task = replace(assignment, client=rule, upload="float32")
    run = prepare(task, sentences)
    _, delta = decoded(train(task, params, run, device="ann"), task)
    b = run.part.batches
    rows, first = len(b.inputs) // rule.epochs, int(b.steps[0])
    batch = {"inputs": b.inputs[:rows], "targets": b.targets[:rows], "active": b.active[:first]}
    at_start, _ = gradient(params, **assignment.config.dims, **batch)
    at_end, _ = gradient(params + delta, **assignment.config.dims, **batch)
    assert np.linalg.norm(at_end + delta) < 1e-3 * np.linalg.norm(at_start)


# the budget


def test_memory_budget_is_kept_to_the_byte(assignment, params, sentences):
    run = prepare(assignment, sentences)
    needed = memory_needed(assignment, run)
    assert needed > 3 * 4 * params.size  # model, delta, gradient at the least
    assert train(assignment, params, run, device="ann", budget=Budget(memory_bytes=needed))
    with pytest.raises(OverBudget, match=f"training needs {needed} bytes of memory"):
        train(assignment, params, run, device="ann", budget=Budget(memory_bytes=needed - 1))


@pytest.mark.parametrize(
    "words",
    [{"candidates": 5}, {"report_words": 5}, {"candidates": 5, "report_words": 9, "momentum": 0.5}],
)
def test_what_trains_and_is_reported_decides_the_memory(assignment, params, sentences, words):
    part = replace(assignment, client=replace(assignment.client, **words))
    run = prepare(part, sentences[:1])
    needed = memory_needed(part, run)
    copies = 4 * (run.part.config.spec.size + part.coordinates.model.spec.size)
    assert needed > 4 * params.size + 2 * copies
    assert train(part, params, run, device="ann", budget=Budget(memory_bytes=needed))
    with pytest.raises(OverBudget):
        train(part, params, run, device="ann", budget=Budget(memory_bytes=needed - 1))


def test_a_report_larger_than_the_server_reads_is_not_sent(assignment, params, sentences):
    run = prepare(assignment, sentences)
    size = len(train(assignment, params, run, device="ann"))
    assert train(replace(assignment, max_report_bytes=size), params, run, device="ann")
    with pytest.raises(OverBudget, match=f"the report takes {size} bytes, the server reads {size - 1}"):
        train(replace(assignment, max_report_bytes=size - 1), params, run, device="ann")


def test_partial_work_counts_for_its_share(assignment, params, sentences):
    long = replace(assignment, client=ClientRule(batch_size=1, epochs=4_000, learning_rate=0.01))
    run = prepare(long, sentences)
    report, _ = decoded(train(long, params, run, device="ann", budget=Budget(time_s=0.01)), long)
    share = report.tokens / run.part.batches.tokens
    assert 0 < share < 1
    assert 1 <= report.examples < len(sentences)
    assert report.examples == pytest.approx(max(1, share * len(sentences)), abs=1)


def test_a_run_within_some_words_keeps_its_first_batches_and_their_share(assignment, params, sentences):
    run = prepare(replace(assignment, client=ClientRule(batch_size=1, epochs=3)), sentences)
    whole = run.part.batches.tokens
    assert run.within(whole) is run
    first = run.part.batches.first(1).tokens
    with pytest.raises(OverBudget, match=f"no batch learns from at most {first - 1} words"):
        run.within(first - 1)
    for words in range(first, whole):
        part = run.within(words)
        batches = part.part.batches
        assert batches.tokens <= words
        done = len(batches.steps)
        assert run.part.batches.first(done + 1).tokens > words
        assert part.examples == max(1, round(len(sentences) * done / len(run.part.batches.steps)))
        assert len(batches.inputs) == batches.active.sum()
        assert len(batches.active) == batches.steps.sum()


def test_the_time_left_for_training_leaves_some_for_the_report():
    assert Budget(time_s=3.0).within(60.0, fetching_s=1.0) == Budget(time_s=3.0)
    assert Budget(time_s=3.0).within(4.0, fetching_s=1.0) == Budget(time_s=2.0)
    assert Budget().within(4.0, fetching_s=1.0) == Budget(time_s=2.0)
    with pytest.raises(OverBudget, match="the round ends in 4 s, and fetching the model took 2 s"):
        Budget().within(4.0, fetching_s=2.0)


def test_no_time_at_all_is_no_report(assignment, params, sentences):
    run = prepare(assignment, sentences)
    with pytest.raises(OverBudget, match="no batch could be trained within 1e-300 s"):
        train(assignment, params, run, device="ann", budget=Budget(time_s=1e-300))


@pytest.mark.parametrize("rate", [1e12, 1e30, 1e300])
def test_a_diverged_run_is_declined_and_not_reported(assignment, params, sentences, rate):
    wild = replace(assignment, client=ClientRule(batch_size=1, epochs=3, learning_rate=rate, clip_norm=0))
    with pytest.raises(Diverged, match="diverged"):
        train(wild, params, prepare(wild, sentences), device="ann")
    assert issubclass(Diverged, Declined)
    assert issubclass(OverBudget, Declined)


@pytest.mark.parametrize(
    "limits", [{"memory_bytes": 0}, {"time_s": -1}, {"time_s": float("nan")}, {"time_s": float("inf")}]
)
def test_budgets_must_be_possible(limits):
    with pytest.raises(ConfigError, match="must be"):
        Budget(**limits)
