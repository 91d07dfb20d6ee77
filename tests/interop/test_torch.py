"""The twin in PyTorch beside the kernels: loss, logits, gradients and a phone's whole local run, and its road back."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'kbdfl[torch]'")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.errors import ModelError
from kbdfl.export.run import read_run
from kbdfl.interop.torch import NO_PROMISE, Cifg, batches, hand_back, load, local_sgd, save
from kbdfl.kernels import reference
from kbdfl.kernels.score import score
from kbdfl.kernels.train import gradient
from kbdfl.kernels.train import local_sgd as kernels_sgd
from kbdfl.model import CifgConfig, init_params
from kbdfl.params import save_checkpoint
from kbdfl.rng import stream
from kbdfl.run import RunConfig, Settings, build_task, checkpoint_facts
from kbdfl.text import BOS, EOS, UNK, pack

AGREED = 1e-5
SHAPE = CifgConfig(vocab=300, embed=24, hidden=40)
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


def sentences(lengths, *, seed, config=SHAPE):
    random = stream(seed, "sentences")
    return [[BOS, *random.integers(UNK, config.vocab, length).tolist(), EOS] for length in lengths]


def drawn(seed, config=SHAPE):
    """Parameters as they are after some training: no bias is zero."""
    flat = init_params(config, seed=seed)
    return flat + 0.05 * stream(seed, "moved").standard_normal(len(flat), np.float32)


@settings(max_examples=20)
@given(LENGTHS, st.integers(0, 1_000))
def test_loss_and_gradient_are_the_kernels(lengths, seed):
    packed, params, model = pack([sentences(lengths, seed=seed)]), drawn(seed), Cifg(SHAPE, drawn(seed))
    (batch,) = batches(packed)
    loss = model.loss(*batch)
    loss.backward()
    found, expected = gradient(
        params, **SHAPE.dims, inputs=packed.inputs, targets=packed.targets, active=packed.active
    )
    assert abs(loss.item() - expected) <= AGREED
    np.testing.assert_allclose(model.flat_gradient, found, rtol=0, atol=AGREED)
    assert np.abs(found).max() > 100 * AGREED or packed.tokens == 0


def test_logits_are_the_twins_and_their_softmax_the_kernels():
    packed, params = pack([sentences([7, 3, 5, 1], seed=3)]), drawn(3)
    (batch,) = batches(packed)
    with torch.no_grad():
        logits = Cifg(SHAPE, params).packed(batch.inputs, batch.active)
    views = SHAPE.spec.views(params.astype(np.float64))
    np.testing.assert_allclose(
        logits, reference.logits(views, packed.inputs, packed.active), rtol=0, atol=AGREED
    )
    nats = -torch.log_softmax(logits, 1).numpy()
    for word in range(0, SHAPE.vocab, 7):
        asked = np.full_like(packed.targets, word)
        losses, _ = score(params, **SHAPE.dims, **packed.arrays | {"targets": asked}, first_word=4)
        np.testing.assert_allclose(nats[:, word], losses, rtol=0, atol=AGREED)


@settings(max_examples=20)
@given(LENGTHS, st.integers(0, 1_000))
def test_padded_sentences_give_the_packed_ones_logits(lengths, seed):
    lengths = sorted(lengths, reverse=True)
    rows, model = sentences(lengths, seed=seed), Cifg(SHAPE, drawn(seed))
    (batch,) = batches(pack([rows]))
    padded = torch.zeros(len(rows), lengths[0], dtype=torch.int64)
    for row, sentence in zip(padded, rows, strict=True):
        row[: len(sentence) - 2] = torch.tensor(sentence[:-2])
    with torch.no_grad():
        logits, _ = model(padded)
        packed = model.packed(batch.inputs, batch.active)
    alive = torch.arange(lengths[0])[:, None] < torch.tensor(lengths)
    torch.testing.assert_close(logits.transpose(0, 1)[alive], packed, rtol=0, atol=AGREED)


def test_a_sentence_may_be_read_in_two_parts():
    model, tokens = Cifg(SHAPE, drawn(5)), torch.tensor([[2, 50, 60, 70, 80], [2, 9, 10, 11, 12]])
    with torch.no_grad():
        whole, last = model(tokens)
        first, state = model(tokens[:, :2])
        second, state = model(tokens[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_a_local_run_ends_where_the_kernels_ends(clip_norm):
    packed, params = pack([sentences([6, 2, 4], seed=i) for i in range(8)]), drawn(2)
    model = Cifg(SHAPE, params)
    total, tokens = local_sgd(model, packed, learning_rate=0.5, clip_norm=clip_norm)
    delta, loss, learned, steps = kernels_sgd(
        params, **SHAPE.dims, **packed.arrays, learning_rate=0.5, clip_norm=clip_norm
    )
    assert (tokens, steps) == (learned, 8)
    assert total == pytest.approx(loss, rel=AGREED)
    assert np.abs(delta).max() > 1_000 * AGREED
    np.testing.assert_allclose(model.flat, params + delta, rtol=0, atol=AGREED)


def test_a_batch_without_a_learned_word_makes_no_step():
    model = Cifg(SHAPE, drawn(2))
    packed = pack([[[BOS, UNK, UNK, EOS]]])
    assert local_sgd(model, packed, learning_rate=1.0) == (0.0, 0)
    np.testing.assert_array_equal(model.flat, drawn(2))
    (batch,) = batches(packed)
    assert model.loss(*batch).item() == 0


def test_a_fresh_model_is_ours():
    np.testing.assert_array_equal(Cifg(SHAPE, seed=7).flat, init_params(SHAPE, seed=7))


def test_a_checkpoint_comes_back_byte_for_byte(tmp_path):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    save_checkpoint(ours, drawn(1), SHAPE.spec, {"config": SHAPE.dims, "round": 3})
    model, facts = load(ours)
    assert (model.config, facts["round"]) == (SHAPE, 3)
    save(theirs, model, facts)
    assert theirs.read_bytes() == ours.read_bytes()


def test_a_checkpoint_without_its_shape_is_refused(tmp_path):
    path = tmp_path / "one.safetensors"
    save_checkpoint(path, drawn(1), SHAPE.spec, {})
    with pytest.raises(ModelError, match="does not say the config"):
        load(path)
    save_checkpoint(path, drawn(1), SHAPE.spec, {"config": SHAPE.dims | {"hidden": 41}})
    with pytest.raises(ModelError, match="other shapes"):
        load(path)


def test_a_model_with_a_nan_is_not_saved(tmp_path):
    model = Cifg(SHAPE)
    with torch.no_grad():
        model.bias[5] = float("nan")
    with pytest.raises(ModelError, match="finite"):
        save(tmp_path / "one.safetensors", model, {})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def run(tmp_path_factory):
    """The folder of a run that has made two versions, and measured the first."""
    tmp_path = tmp_path_factory.mktemp("run")
    config = RunConfig(Settings(preset="tiny"))
    built = build_task(config)
    (tmp_path / "checkpoints").mkdir()
    built.vocabulary.save(tmp_path / "tokenizer.json")
    facts = checkpoint_facts(config, built, round=1, version=2)
    save_checkpoint(
        tmp_path / "checkpoints" / "000002.safetensors", built.params, built.task.config.spec, facts
    )
    row = {"version": 1, "recall_top1": 0.125, "recall_top3": 0.25}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


def test_a_model_that_was_trained_in_torch_goes_back_to_its_run(run):
    model, _ = load(run / "checkpoints" / "000002.safetensors")
    local_sgd(model, pack([sentences([5, 6], seed=1, config=model.config)]), learning_rate=1.0)
    path = hand_back(run, model, data="notes of my own")
    assert path == run / "checkpoints" / "000003.safetensors"
    newest = read_run(run)
    assert newest.checkpoint == path
    np.testing.assert_array_equal(newest.params, model.flat)
    assert newest.facts["data"] == "typing logs of the source personas; then in PyTorch: notes of my own"
    assert newest.facts["privacy"] == NO_PROMISE
    assert newest.facts["rounds"] == 2  # two of them were federated
    assert newest.facts["recall"] == {"top1": 0.125, "top3": 0.25, "version": 1}  # and not the new one's
    hand_back(run, model, data="again")
    assert read_run(run).facts["rounds"] == 2


def test_the_documented_lines_train_a_runs_model(run, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "interop.md").read_text("utf-8")
    (lines,) = re.findall("```python\n(.*?)```", page, re.S)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "NAME").symlink_to(run)
    (run / "checkpoints" / "000002.safetensors").rename(run / "checkpoints" / "000200.safetensors")
    subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, check=True)
    assert read_run(run).checkpoint.stem == "000201"
    assert read_run(run).facts["data"].endswith("two messages of mine")


def test_a_model_of_another_shape_does_not_go_back(run):
    with pytest.raises(ModelError, match="is CifgConfig"):
        hand_back(run, Cifg(SHAPE), data="none")
    assert len(list((run / "checkpoints").iterdir())) == 1


def test_what_torch_trains_lowers_the_loss_of_the_kernels():
    """The parameters are plain torch ones: any of its optimisers takes them."""
    packed, model = pack([sentences([8] * 8, seed=4)]), Cifg(SHAPE, drawn(4))
    (batch,) = batches(packed)
    before, optimiser = model.loss(*batch).item(), torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(10):
        optimiser.zero_grad()
        model.loss(*batch).backward()
        optimiser.step()
    _, after = gradient(
        model.flat, **SHAPE.dims, inputs=packed.inputs, targets=packed.targets, active=packed.active
    )
    assert after < before - 0.5
