"""The C core gives what the Python kernels give, bit for bit, and refuses what is not a model.

Equal bits need equal compilers, so whoever builds the kernels otherwise (`make portable`, `make asan`) says so to the
core as well: CC, KBDFL_CORE_CFLAGS. KBDFL_CORE names a folder where it is built already (`make arm-test`).
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.ctypeslib import ndpointer

from kbdfl.kernels import reference
from kbdfl.kernels.quantize import quantize_int8
from kbdfl.kernels.score import score
from kbdfl.kernels.train import local_sgd, scratch_bytes
from kbdfl.model import PRESETS, CifgConfig
from kbdfl.params import pack_checkpoint
from kbdfl.rng import stream
from kbdfl.text import pack

SOURCE = Path(__file__).parents[2] / "kernels" / "core"
SHAPES = [
    CifgConfig(vocab=11, embed=3, hidden=5),
    CifgConfig(vocab=101, embed=17, hidden=33),
    PRESETS["tiny"],
]
OK, NOT_A_CHECKPOINT, OTHER_MODEL, BAD_TOKEN, BAD_BATCHES, BAD_RULE, NOT_FINITE = range(7)

INTS, FLOATS = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_float)


class Model(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("vocab", "embed", "hidden")] + [
        (name, FLOATS) for name in ("emb", "wx", "bg", "wh", "wp", "bias")
    ]


class Suggestions(ctypes.Structure):
    _fields_ = [("ids", ctypes.c_int32 * 3), ("shares", ctypes.c_float * 3)]


class Batches(ctypes.Structure):
    _fields_ = [(name, INTS) for name in ("inputs", "targets", "active", "steps")] + [
        (name, ctypes.c_int64) for name in ("rows", "instants", "batches")
    ]


class Rule(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_double)
        for name in ("learning_rate", "clip_norm", "proximal", "momentum", "time_budget_s")
    ] + [("now_s", ctypes.CFUNCTYPE(ctypes.c_double)), ("correction", FLOATS)]


class Outcome(ctypes.Structure):
    _fields_ = [("loss", ctypes.c_double), ("tokens", ctypes.c_int64), ("steps", ctypes.c_int64)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the shared library and the example."""
    if "KBDFL_CORE" in os.environ:
        return Path(os.environ["KBDFL_CORE"])
    if not SOURCE.exists():
        pytest.skip("the core's source is not here")
    if shutil.which("make") is None or shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("there is no make, or no C compiler")
    folder, flags = tmp_path_factory.mktemp("core"), os.environ.get("KBDFL_CORE_CFLAGS", "-O3 -Werror")
    command = ["make", "-s", "-C", SOURCE, f"OUT={folder}", f"CFLAGS={flags}", "all", "shared"]
    plain = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}  # a sanitizer's library
    done = subprocess.run(command, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def core(built):
    library = ctypes.CDLL(str(built / "libkbdfl_core.so"))
    for name in ("parameters", "predict_bytes", "train_bytes", "pack_numbers"):
        getattr(library, f"kbdfl_{name}").restype = ctypes.c_size_t
    library.kbdfl_train_bytes.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_double]
    library.kbdfl_reason.restype = ctypes.c_char_p
    whole = [ctypes.c_int64, ctypes.c_int32, ctypes.c_uint64]
    arrays = [ndpointer(np.float32), ndpointer(np.int8), ndpointer(np.float32)]
    library.kbdfl_quantize_int8.argtypes = whole + arrays
    return library


def ints(array):
    return array.ctypes.data_as(INTS)


def floats(array):
    return array.ctypes.data_as(FLOATS)


def model_of(core, config, params):
    model = Model()
    assert core.kbdfl_of_flat(ctypes.byref(model), *config.dims.values(), floats(params)) == OK
    return model


def batches_of(packed):
    arrays = packed.arrays
    sizes = (len(packed.inputs), len(packed.active), len(packed.steps))
    return Batches(*(ints(array) for array in arrays.values()), *sizes)


def opened(core, content):
    """What kbdfl_open says of a file's content, and the model; the content stays alive with it."""
    memory = np.frombuffer(content, np.uint8).copy() if content else np.zeros(8, np.uint8)
    model = Model()
    model.memory = memory
    at = memory.ctypes.data_as(ctypes.c_void_p)
    return core.kbdfl_open(ctypes.byref(model), at, ctypes.c_size_t(len(content))), model


def some_batches(draw_sentences, config):
    return pack(
        [draw_sentences(config, lengths, seed=lengths[0]) for lengths in ([3, 9, 0, 9, 1], [2] * 70, [1])]
    )


@pytest.mark.parametrize("config", SHAPES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.3},
        {"clip_norm": 0.3, "proximal": 0.1, "momentum": 0.9},
        {"correction": 0.01, "time_budget_s": 1e6},
    ],
    ids=str,
)
def test_core_trains_to_the_same_bits(core, draw_params, draw_sentences, config, options):
    params, packed = draw_params(config), some_batches(draw_sentences, config)
    size, options = config.spec.size, dict(options)
    if "correction" in options:
        options["correction"] = np.full(size, options["correction"], np.float32)
    expected = local_sgd(params, **config.dims, **packed.arrays, learning_rate=0.5, **options)
    model, batches = model_of(core, config, params), batches_of(packed)
    rule = Rule(learning_rate=0.5, now_s=Rule._fields_[5][1](lambda: 0.0))
    for name, value in options.items():
        setattr(rule, name, floats(value) if name == "correction" else value)
    needed = core.kbdfl_train_bytes(ctypes.byref(model), ctypes.byref(batches), rule.momentum)
    most = {"rows": 140, "sentences": 70, "momentum": rule.momentum}
    assert needed == scratch_bytes(**config.dims, **most)
    scratch, delta, outcome = np.full(needed + 3, 7, np.uint8), np.empty(size, np.float32), Outcome()
    arguments = (model, floats(params), batches, rule, floats(delta), outcome, scratch.ctypes.data_as(FLOATS))
    refs = [ctypes.byref(a) if isinstance(a, ctypes.Structure) else a for a in arguments]
    assert core.kbdfl_train(*refs) == OK
    assert (scratch[needed:] == 7).all()
    assert delta.tobytes() == expected[0].tobytes()
    assert (outcome.loss, outcome.tokens, outcome.steps) == expected[1:]


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_core_scores_to_the_same_bits(core, draw_params, draw_sentences, config):
    params, packed = draw_params(config), some_batches(draw_sentences, config)
    expected = score(params, **config.dims, **packed.arrays, first_word=4)
    model, batches = model_of(core, config, params), batches_of(packed)
    scratch = np.empty(core.kbdfl_train_bytes(ctypes.byref(model), ctypes.byref(batches), 0.0), np.uint8)
    losses, ranks = np.empty(len(packed.inputs), np.float32), np.empty(len(packed.inputs), np.int32)
    refs = (ctypes.byref(model), ctypes.byref(batches), floats(losses), ints(ranks))
    assert core.kbdfl_score(*refs, scratch.ctypes.data_as(FLOATS)) == OK
    assert losses.tobytes() == expected[0].tobytes()
    assert ranks.tobytes() == expected[1].tobytes()


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_core_suggests_what_the_equations_say(core, draw_params, draw_sentences, config):
    params = draw_params(config)
    model = model_of(core, config, params)
    (sentence,) = draw_sentences(config, [12])
    views = {name: view.astype(float) for name, view in config.spec.views(params).items()}
    expected = reference.logits(views, np.array(sentence[:-1]), np.ones(13, np.int32))
    r, c = np.zeros(config.embed, np.float32), np.zeros(config.hidden, np.float32)
    logits, found = np.empty(config.vocab, np.float32), Suggestions()
    needed = core.kbdfl_predict_bytes(ctypes.byref(model))
    scratch = np.full(needed + 4, 7, np.uint8)
    arrays = (floats(r), floats(c), floats(logits), ctypes.byref(found), scratch.ctypes.data_as(FLOATS))
    for token, row in zip(sentence[:-1], expected, strict=True):
        assert core.kbdfl_predict(ctypes.byref(model), token, *arrays) == OK
        np.testing.assert_allclose(logits, row, rtol=1e-4, atol=1e-4)
        share = np.exp(row[4:] - row[4:].max())
        ids = np.argsort(-logits[4:], kind="stable")[:3] + 4
        assert list(found.ids) == ids.tolist()
        np.testing.assert_allclose(list(found.shares), (share / share.sum())[ids - 4], rtol=1e-3)
    assert (scratch[needed:] == 7).all()
    assert core.kbdfl_predict(ctypes.byref(model), config.vocab, *arrays) == BAD_TOKEN
    assert core.kbdfl_predict(ctypes.byref(model), -1, *arrays) == BAD_TOKEN


def test_core_suggests_no_word_whose_logit_is_not_a_number(core):
    config = CifgConfig(vocab=6, embed=2, hidden=2)
    params = np.zeros(config.spec.size, np.float32)
    params[-6:] = [9, 9, 9, 9, np.nan, 1]
    model, found = model_of(core, config, params), Suggestions()
    zeros = [np.zeros(n, np.float32) for n in (2, 2, 6)]
    scratch = np.empty(core.kbdfl_predict_bytes(ctypes.byref(model)), np.uint8)
    refs = (*(floats(a) for a in zeros), ctypes.byref(found), scratch.ctypes.data_as(FLOATS))
    assert core.kbdfl_predict(ctypes.byref(model), 2, *refs) == OK
    assert list(found.ids) == [5, -1, -1]
    assert list(found.shares)[1:] == [0, 0]


LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=20)


@given(lengths=LENGTHS, size=st.integers(1, 7))
def test_core_packs_as_python_does(core, lengths, size):
    random = stream(1, "test core")
    sentences = [[2, *random.integers(0, 50, n).tolist(), 3] for n in lengths]
    expected = pack([sentences[start : start + size] for start in range(0, len(sentences), size)])
    tokens = np.array([token for sentence in sentences for token in sentence], np.int32)
    counts, found = np.array([n + 2 for n in lengths], np.int32), Batches()
    needed = core.kbdfl_pack_numbers(ints(counts), len(lengths), size)
    memory = np.full(needed + 1, 7, np.int32)
    core.kbdfl_pack(ints(tokens), ints(counts), len(lengths), size, ints(memory), ctypes.byref(found))
    sizes = {"inputs": "rows", "targets": "rows", "active": "instants", "steps": "batches"}
    for name, array in expected.arrays.items():
        assert getattr(found, name)[: getattr(found, sizes[name])] == array.tolist()
    assert memory[needed] == 7


@given(n=st.integers(1, 700), block=st.sampled_from([16, 256]), seed=st.integers(0, 2**64 - 1))
def test_core_quantises_to_the_same_bytes(core, n, block, seed):
    x = stream(seed % 1000, "test core").standard_normal(n, np.float32)
    q, scales = np.empty(n, np.int8), np.empty(-(-n // block), np.float32)
    assert core.kbdfl_quantize_int8(n, block, seed, x, q, scales) == OK
    expected = quantize_int8(x, block=block, seed=seed)
    assert (q.tobytes(), scales.tobytes()) == (expected[0].tobytes(), expected[1].tobytes())
    x[n // 2] = np.nan
    assert core.kbdfl_quantize_int8(n, block, seed, x, q, scales) == NOT_FINITE


@pytest.mark.parametrize(
    ("array", "place", "value"),
    [("inputs", 0, 11), ("inputs", 1, -1), ("targets", 0, 11), ("targets", 0, -2), ("active", 1, 9), ("steps", 0, 99)],
)  # fmt: skip
def test_core_refuses_batches_that_lead_outside(core, draw_params, draw_sentences, tiny, array, place, value):
    packed = some_batches(draw_sentences, tiny)
    packed.arrays[array][place] = value
    model, batches = model_of(core, tiny, draw_params(tiny)), batches_of(packed)
    rule, outcome = Rule(learning_rate=0.5), Outcome()
    refs = [ctypes.byref(batches), ctypes.byref(rule), None, ctypes.byref(outcome), None]
    assert core.kbdfl_train_bytes(ctypes.byref(model), ctypes.byref(batches), 0.0) == 0
    assert core.kbdfl_train(ctypes.byref(model), None, *refs) == BAD_BATCHES
    assert core.kbdfl_score(ctypes.byref(model), ctypes.byref(batches), None, None, None) == BAD_BATCHES


@pytest.mark.parametrize(
    "rule",
    [{"learning_rate": np.nan}, {"clip_norm": -1}, {"proximal": np.inf}, {"momentum": 1}, {"time_budget_s": 1}],
    ids=str,
)  # fmt: skip
def test_core_refuses_a_rule_that_means_nothing(core, draw_params, draw_sentences, tiny, rule):
    model = model_of(core, tiny, draw_params(tiny))
    batches, outcome = batches_of(some_batches(draw_sentences, tiny)), Outcome()
    refs = [ctypes.byref(batches), ctypes.byref(Rule(**rule)), None, ctypes.byref(outcome), None]
    assert core.kbdfl_train(ctypes.byref(model), None, *refs) == BAD_RULE


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_core_opens_a_checkpoint_where_it_lies(core, draw_params, config):
    params = draw_params(config)
    metadata = {"text": 'quotes " and \\ and {[', "list": [1, {"a": [None, -1.5e3]}]}
    error, model = opened(core, pack_checkpoint(params, config.spec, metadata))
    assert error == OK
    assert (model.vocab, model.embed, model.hidden) == tuple(config.dims.values())
    flat = np.empty(config.spec.size, np.float32)
    core.kbdfl_flatten(ctypes.byref(model), floats(flat))
    assert flat.tobytes() == params.tobytes()


@given(cut=st.floats(0, 1, exclude_max=True))
def test_core_refuses_a_checkpoint_that_was_cut(core, draw_params, tiny, cut):
    content = pack_checkpoint(draw_params(tiny), tiny.spec, {})
    assert opened(core, content[: int(cut * len(content))])[0] in (NOT_A_CHECKPOINT, OTHER_MODEL)


@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_core_reads_no_damaged_checkpoint_beyond_its_end(core, draw_params, tiny, place, byte):
    content = bytearray(pack_checkpoint(draw_params(tiny), tiny.spec, {}))
    header = 8 + int.from_bytes(content[:8], "little")
    content[place % header] = byte
    error, model = opened(core, bytes(content))
    assert error in (OK, NOT_A_CHECKPOINT, OTHER_MODEL)
    if error == OK:
        begin, size = model.memory.ctypes.data, len(content)
        dims = {"vocab": model.vocab, "embed": model.embed, "hidden": model.hidden}
        for name, shape in CifgConfig(**dims).spec.entries:
            at = ctypes.cast(getattr(model, name), ctypes.c_void_p).value - begin
            assert header <= at <= size - 4 * np.prod(shape)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (b'"F32"', b'"F16"', OTHER_MODEL),
        (b'"emb"', b'"emd"', OTHER_MODEL),
        (b"[11,3]", b"[3,11]", OTHER_MODEL),
        (b'{"', b'["', NOT_A_CHECKPOINT),
    ],
)
def test_core_refuses_another_model(core, draw_params, tiny, old, new, error):
    content = pack_checkpoint(draw_params(tiny), tiny.spec, {})
    assert old in content
    assert opened(core, content.replace(old, new, 1))[0] == error


def test_core_says_what_is_wrong(core):
    reasons = {core.kbdfl_reason(error) for error in range(NOT_FINITE + 1)}
    assert len(reasons) == NOT_FINITE + 1
    assert core.kbdfl_reason(99) == b"unknown error"


@pytest.fixture
def example(built):
    """Run the example; KBDFL_CORE_RUN goes before its name."""

    def run(*arguments):
        command = [*os.environ.get("KBDFL_CORE_RUN", "").split(), built / "example", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    return run


def test_example_suggests_and_learns_as_python_does(example, tmp_path, draw_params):
    config = PRESETS["tiny"]
    params = draw_params(config)
    (tmp_path / "model.safetensors").write_bytes(pack_checkpoint(params, config.spec, {}))
    done = example(tmp_path / "model.safetensors", tmp_path / "delta", 15, 27, 8, ",", 44, 9)
    assert done.returncode == 0, done.stderr
    sentences = [[2, 15, 27, 8, 3], [2, 44, 9, 3]]
    batches = pack([sentences])
    delta, loss, tokens, _ = local_sgd(
        params, **config.dims, **batches.arrays, learning_rate=1.0, clip_norm=1.0
    )
    assert (tmp_path / "delta").read_bytes() == delta.tobytes()
    lines = done.stdout.splitlines()
    for line, sentence in zip(lines[:2], sentences, strict=True):
        row = reference.logits(
            config.spec.views(params), np.array(sentence[:-1]), np.ones(len(sentence) - 1, int)
        )[-1]
        assert [int(word) for word in line.split()[1::2]] == (np.argsort(-row[4:])[:3] + 4).tolist()
    after, _ = score(params + delta, **config.dims, **batches.arrays, first_word=4)
    assert lines[2] == f"loss {loss / tokens:.6f} -> {after.mean(dtype=float):.6f} on 5 words"
    assert after.sum() < loss


def test_example_says_in_one_line_what_is_wrong(example, tmp_path):
    (tmp_path / "broken").write_bytes(bytes(100))
    for arguments in (
        (),
        (tmp_path / "none", tmp_path / "delta", 4),
        (tmp_path / "broken", tmp_path / "delta", 4),
    ):
        done = example(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("example: ")
        assert len(done.stderr.splitlines()) == 1
