"""The local run: its gradient against float64 finite differences and the numpy twin, its steps, its refusals."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.kernels import reference
from kbdfl.kernels.train import Workspace, gradient, local_sgd, parameter_count, scratch_bytes
from kbdfl.model import CifgConfig, init_params, preset
from kbdfl.rng import stream

# float32 against float64: a unit roundoff of 6e-8, times the tens of additions and the rational tanh of a row
TOLERANCE = 2e-5


def batch(rows, sentences):
    packed = rows([sentences])
    return {name: packed[name] for name in ("inputs", "targets", "active")}


def twin_gradient(config, params, one):
    views = config.spec.views(params.astype(np.float64))
    found, loss = reference.gradient(views, one["inputs"], one["targets"], one["active"])
    flat = np.concatenate([found[name].ravel() for name, _ in config.spec.entries])
    return flat, loss


LENGTHS = [(1,), (5,), (1, 1, 1), (4, 1, 6, 2, 2, 0, 3), (7, 7, 7), tuple(range(1, 9))]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_twin_agrees_with_finite_differences_for_every_parameter(
    gradcheck, tiny, draw_params, draw_sentences, rows, lengths
):
    params = draw_params(tiny).astype(np.float64)
    one = batch(rows, draw_sentences(tiny, lengths, seed=3))
    assert (one["targets"] >= 0).any()

    def loss(x):
        return twin_gradient(tiny, x, one)[1]

    numerical = gradcheck.numerical_gradient(loss, params.copy())
    analytic, _ = twin_gradient(tiny, params, one)
    np.testing.assert_allclose(analytic, numerical, rtol=1e-6, atol=1e-9)
    for name, part in tiny.spec.views(numerical).items():
        if name != "wh" or max(lengths) > 1:  # without a second step nothing flows through wh
            assert np.abs(part).max() > 1e-4, f"{name} has no gradient to check"


def test_finite_differences_see_ignored_targets(tiny, draw_sentences, rows):
    one = batch(rows, draw_sentences(tiny, (9, 9, 9), seed=3))
    assert 0 < (one["targets"] < 0).sum() < one["targets"].size


@pytest.mark.parametrize("lengths", LENGTHS)
def test_gradient_is_the_twins_for_every_parameter(
    gradcheck, tiny, draw_params, draw_sentences, rows, dims, lengths
):
    params = draw_params(tiny)
    one = batch(rows, draw_sentences(tiny, lengths, seed=3))
    got, loss = gradient(params, **dims(tiny), **one)
    expected, expected_loss = twin_gradient(tiny, params, one)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, part in tiny.spec.views(expected).items():
        assert gradcheck.relative_error(tiny.spec.views(got)[name], part) < TOLERANCE or not part.any(), name


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=9).filter(any),
    shape=st.tuples(st.integers(5, 40), st.integers(1, 9), st.integers(1, 19)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_any_shape_and_lengths_give_the_twins_gradient(
    gradcheck, draw_params, draw_sentences, rows, dims, lengths, shape, seed
):
    config = CifgConfig(*shape)
    params = draw_params(config, seed)
    one = batch(rows, draw_sentences(config, lengths, seed))
    got, loss = gradient(params, **dims(config), **one)
    expected, expected_loss = twin_gradient(config, params, one)
    assert loss == pytest.approx(expected_loss, rel=1e-5, abs=1e-7)
    assert gradcheck.relative_error(got, expected) < 5 * TOLERANCE or not expected.any()


def test_gradient_of_the_small_preset_is_the_twins(gradcheck, draw_sentences, rows, dims):
    config = preset("small")
    params = init_params(config, seed=2)
    # 61 words and more: more rows than one tile of logits, and not a multiple of it
    one = batch(rows, draw_sentences(config, (20, 17, 13, 9, 5, 3, 1, 1), seed=5))
    got, loss = gradient(params, **dims(config), **one)
    expected, expected_loss = twin_gradient(config, params, one)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, part in config.spec.views(expected).items():
        assert gradcheck.relative_error(config.spec.views(got)[name], part) < TOLERANCE, name


def test_saturated_gates_and_large_logits_stay_accurate(
    gradcheck, tiny, draw_params, draw_sentences, rows, dims
):
    params = draw_params(tiny, scale=12.0)
    one = batch(rows, draw_sentences(tiny, (6, 4, 4, 1), seed=1))
    got, loss = gradient(params, **dims(tiny), **one)
    expected, expected_loss = twin_gradient(tiny, params, one)
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    # the logits are in the hundreds, where one float32 step is 3e-5: errors are larger, not wild
    assert gradcheck.relative_error(got, expected) < 1e-3


@given(lengths=st.lists(st.integers(1, 8), min_size=2, max_size=7), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_batch_gives_the_token_weighted_mean_of_its_sentences(
    gradcheck, tiny, draw_params, draw_sentences, rows, dims, lengths, seed
):
    params, sentences = draw_params(tiny, seed), draw_sentences(tiny, lengths, seed)
    together, loss = gradient(params, **dims(tiny), **batch(rows, sentences))
    mean, mean_loss, words = np.zeros(tiny.spec.size), 0.0, 0
    for sentence in sentences:
        one = batch(rows, [sentence])
        alone, its_loss = gradient(params, **dims(tiny), **one)
        weight = int((one["targets"] >= 0).sum())
        mean, mean_loss, words = (
            mean + weight * alone.astype(float),
            mean_loss + weight * its_loss,
            words + weight,
        )
    if words == 0:
        assert not together.any()
        assert loss == 0
        return
    assert loss == pytest.approx(mean_loss / words, rel=1e-5)
    assert gradcheck.relative_error(together, mean / words) < 5 * TOLERANCE


def test_a_batch_without_learned_targets_has_no_gradient(tiny, draw_params, dims):
    one = {
        "inputs": np.array([2, 2, 1], np.int32),
        "targets": np.full(3, -1, np.int32),
        "active": np.array([2, 1], np.int32),
    }
    found, loss = gradient(draw_params(tiny), **dims(tiny), **one)
    assert loss == 0
    assert not found.any()


def twin_sgd(
    config, params, packed, *, learning_rate, clip_norm=0.0, proximal=0.0, correction=0.0, momentum=0.0
):
    """The local run in float64: the plain loop."""
    x, v = params.astype(np.float64), np.zeros(params.size)
    row = step = 0
    losses, norms = 0.0, []
    for steps in packed["steps"]:
        active = packed["active"][step : step + steps]
        there = slice(row, row + active.sum())
        one = {"inputs": packed["inputs"][there], "targets": packed["targets"][there], "active": active}
        found, loss = twin_gradient(config, x, one)
        norm = np.linalg.norm(found)
        norms.append(norm)
        found = found * (min(1.0, clip_norm / norm) if clip_norm and norm else 1.0)
        v = momentum * v + found + proximal * (x - params) + correction
        x -= learning_rate * v
        losses += loss * (one["targets"] >= 0).sum()
        row, step = row + active.sum(), step + steps
    return x - params, losses, norms


def epochs_of(draw_sentences, config, *, epochs=3, seed=7):
    sentences = draw_sentences(config, (6, 1, 3, 8, 2, 5, 1, 4, 7), seed)
    return [sentences[start : start + 4] for _ in range(epochs) for start in range(0, 9, 4)]


@pytest.mark.parametrize("clip", [0.0, 0.36])
def test_local_run_is_the_twins_loop_over_several_epochs(
    gradcheck, tiny, draw_params, draw_sentences, rows, dims, clip
):
    params, packed = draw_params(tiny), rows(epochs_of(draw_sentences, tiny))
    kept = params.copy()
    delta, loss, tokens, steps = local_sgd(params, **dims(tiny), **packed, learning_rate=0.5, clip_norm=clip)
    expected, expected_loss, norms = twin_sgd(tiny, params, packed, learning_rate=0.5, clip_norm=clip)
    assert not clip or min(norms) < clip < max(norms)  # both sides of the clip are seen
    assert delta.dtype == np.float32
    assert steps == 9
    assert tokens == (packed["targets"] >= 0).sum()
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert gradcheck.relative_error(delta, expected) < 1e-4
    np.testing.assert_array_equal(params, kept)


def test_delta_is_trained_minus_received_exactly(tiny, draw_params, draw_sentences, rows, dims):
    """One run of two batches is the run of the first, then of the second from where that ended."""
    params = draw_params(tiny)
    first, second = (draw_sentences(tiny, (3, 5), seed) for seed in (1, 2))
    options = dims(tiny) | {"learning_rate": 0.25}
    both, *_ = local_sgd(params, **options, **rows([first, second]))
    one, *_ = local_sgd(params, **options, **rows([first]))
    two, *_ = local_sgd(params + one, **options, **rows([second]))
    np.testing.assert_allclose(both, one + two, atol=1e-6)


def test_a_step_is_the_learning_rate_times_the_clip_where_the_gradient_is_longer(
    tiny, draw_params, draw_sentences, rows, dims
):
    params, packed = draw_params(tiny), rows([draw_sentences(tiny, (4, 6), seed=2)])
    found, _ = gradient(params, **dims(tiny), **batch(rows, draw_sentences(tiny, (4, 6), seed=2)))
    norm = float(np.linalg.norm(found.astype(float)))
    for clip, expected in ((norm / 3, norm / 3), (norm * 3, norm), (0.0, norm)):
        delta, *_ = local_sgd(params, **dims(tiny), **packed, learning_rate=0.1, clip_norm=clip)
        assert np.linalg.norm(delta.astype(float)) == pytest.approx(0.1 * expected, rel=1e-4)
        # the direction is the gradient's
        np.testing.assert_allclose(
            delta, -0.1 * expected / norm * found, atol=2e-7 + 1e-4 * np.abs(delta).max()
        )


@pytest.mark.parametrize(
    "bend",
    [
        {"proximal": 0.3},
        {"momentum": 0.8},
        {"correction": True},
        {"proximal": 0.1, "momentum": 0.5, "correction": True},
    ],
    ids=lambda bend: " ".join(bend),
)
def test_a_bent_step_is_the_twins(gradcheck, tiny, draw_params, draw_sentences, rows, bend):
    params, drawn = draw_params(tiny), epochs_of(draw_sentences, tiny)
    if "correction" in bend:
        random = stream(3, "test correction")
        bend = bend | {"correction": (0.05 * random.standard_normal(params.size)).astype(np.float32)}
    run = {"learning_rate": 0.2, "clip_norm": 0.4} | bend
    expected, *_ = twin_sgd(tiny, params, rows(drawn), **run)
    delta, *_ = local_sgd(params, **tiny.dims, **rows(drawn), **run)
    assert gradcheck.relative_error(delta, expected) < 1e-4


def test_a_correction_of_zeros_bends_nothing(gradcheck, tiny, draw_params, draw_sentences, rows):
    run = {**tiny.dims, **rows(epochs_of(draw_sentences, tiny)), "learning_rate": 0.2, "clip_norm": 1.0}
    params = draw_params(tiny)
    plain, *_ = local_sgd(params, **run)
    bent, *_ = local_sgd(params, **run, correction=np.zeros(params.size, np.float32))
    assert gradcheck.relative_error(bent, plain) < 1e-5


def test_a_gradient_whose_squares_leave_float32_is_clipped(tiny, draw_params, draw_sentences, rows):
    params = draw_params(tiny)
    tiny.spec.views(params)["wp"][:] *= np.float32(1e20)  # large where it meets the embedding's gradient
    packed = rows([draw_sentences(tiny, (4, 6), seed=2)])
    found, _ = gradient(params, **tiny.dims, **batch(rows, draw_sentences(tiny, (4, 6), seed=2)))
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 1.9e19
    delta, *_ = local_sgd(params, **tiny.dims, **packed, learning_rate=1.0, clip_norm=1.0)
    assert np.abs(tiny.spec.views(delta)["emb"]).max() > 0.01


def test_momentum_begins_anew_with_every_run(tiny, draw_params, draw_sentences, rows):
    run = {**tiny.dims, **rows(epochs_of(draw_sentences, tiny)), "learning_rate": 0.2, "momentum": 0.9}
    params, workspace = draw_params(tiny), Workspace()
    first, *_ = local_sgd(params, **run, workspace=workspace)
    second, *_ = local_sgd(params, **run, workspace=workspace)
    np.testing.assert_array_equal(second, first)


def test_scratch_bytes_counts_the_velocity(tiny, draw_params, draw_sentences, rows):
    workspace = Workspace()
    packed = rows([draw_sentences(tiny, (7, 4, 4))])
    local_sgd(draw_params(tiny), **tiny.dims, **packed, learning_rate=0.1, momentum=0.5, workspace=workspace)
    assert workspace.bytes == scratch_bytes(**tiny.dims, rows=15, sentences=3, momentum=0.5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"learning_rate": np.inf}, "learning_rate must be finite, got inf"),
        ({"clip_norm": -1.0}, "clip_norm must be >= 0, got -1.0"),
        ({"clip_norm": np.nan}, "clip_norm must be >= 0, got nan"),
        ({"proximal": -0.1}, "proximal must be >= 0 and finite, got -0.1"),
        ({"proximal": np.nan}, "proximal must be >= 0 and finite, got nan"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"correction": np.zeros(3, np.float32)}, "correction must hold 164 numbers as params does, got 3"),
    ],
)
def test_what_cannot_bend_a_step_is_refused(tiny, draw_params, draw_sentences, rows, option, message):
    packed = rows([draw_sentences(tiny, (3, 2))])
    with pytest.raises(ValueError, match=message):
        local_sgd(draw_params(tiny), **tiny.dims, **packed, **({"learning_rate": 0.1} | option))


def test_read_only_params_and_batches_are_accepted(tiny, draw_params, draw_sentences, rows, dims):
    params, packed = draw_params(tiny), rows([draw_sentences(tiny, (3, 2))])
    expected, *_ = local_sgd(params, **dims(tiny), **packed, learning_rate=0.1)
    for array in (params, *packed.values()):
        array.setflags(write=False)
    delta, *_ = local_sgd(params, **dims(tiny), **packed, learning_rate=0.1)
    np.testing.assert_array_equal(delta, expected)


def test_no_batches_leave_no_delta(tiny, draw_params, dims, rows):
    delta, loss, tokens, steps = local_sgd(draw_params(tiny), **dims(tiny), **rows([]), learning_rate=1.0)
    assert delta.shape == (tiny.spec.size,)
    assert not delta.any()
    assert (loss, tokens, steps) == (0.0, 0, 0)


def test_steps_without_learned_targets_are_done_and_change_nothing(
    tiny, draw_params, draw_sentences, rows, dims
):
    params = draw_params(tiny)
    unknown, known = [[2, 1, 1, 3]], draw_sentences(tiny, (3, 2))
    expected, loss, tokens, _ = local_sgd(params, **dims(tiny), **rows([known]), learning_rate=0.1)
    delta, *rest = local_sgd(params, **dims(tiny), **rows([unknown, known, unknown]), learning_rate=0.1)
    np.testing.assert_array_equal(delta, expected)
    assert rest == [loss, tokens, 3]


def test_nan_parameters_give_a_nan_delta_and_no_crash(tiny, draw_params, draw_sentences, rows, dims):
    params = draw_params(tiny)
    params[:] = np.nan
    packed = rows(epochs_of(draw_sentences, tiny))
    for clip in (0.0, 1.0):
        delta, loss, _, steps = local_sgd(params, **dims(tiny), **packed, learning_rate=0.1, clip_norm=clip)
        assert np.isnan(delta).all()
        assert np.isnan(loss)
        assert steps == 9


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
def test_one_wild_parameter_never_crashes(tiny, draw_params, draw_sentences, rows, dims, value):
    packed = rows(epochs_of(draw_sentences, tiny, epochs=1))
    for at in range(0, tiny.spec.size, 7):
        params = draw_params(tiny)
        params[at] = value
        _, _, _, steps = local_sgd(params, **dims(tiny), **packed, learning_rate=0.1, clip_norm=1.0)
        assert steps == 3


# what may be passed in


def good():
    return {
        "inputs": np.array([2, 2, 5, 6], np.int32),
        "targets": np.array([5, 6, 7, -1], np.int32),
        "active": np.array([2, 2], np.int32),
        "steps": np.array([2], np.int32),
    }


def int32(*values):
    return np.array(values, np.int32)


BAD = {
    "an input too large": ({"inputs": int32(2, 2, 11, 6)}, r"inputs must lie in \[0, 11\), got 11"),
    "an input below 0": ({"inputs": int32(2, -1, 5, 6)}, r"inputs must lie in \[0, 11\), got -1"),
    "a target too large": ({"targets": int32(5, 6, 7, 11)}, r"targets must lie in \[-1, 11\), got 11"),
    "a target below -1": ({"targets": int32(5, -2, 7, 8)}, r"targets must lie in \[-1, 11\), got -2"),
    "a target missing": ({"targets": int32(5, 6, 7)}, "inputs and targets must have one length, got 4 and 3"),
    "a row too many": ({"inputs": int32(2, 2, 5, 6, 7), "targets": int32(5, 6, 7, 8, 9)}, "number of rows"),
    "a row too few": ({"inputs": int32(2, 2, 5), "targets": int32(5, 6, 7)}, "number of rows"),
    "nobody alive": ({"active": int32(4, 0)}, "active must be >= 1"),
    "fewer than nobody": ({"active": int32(5, -1)}, "active must be >= 1"),
    "someone joins": ({"active": int32(1, 3)}, "never increase"),
    "more alive than rows": ({"active": int32(2**31 - 1, 2**31 - 1)}, "number of rows"),
    "a batch of no steps": ({"steps": int32(2, 0)}, "steps must be >= 1"),
    "a batch of -1 steps": ({"steps": int32(3, -1)}, "steps must be >= 1"),
    "more steps than active": ({"steps": int32(3)}, "sum to the length of active"),
    "fewer steps than active": ({"steps": int32(1)}, "sum to the length of active"),
    "rows but no batch": ({"steps": int32()}, "sum to the length of active"),
    "another vocabulary": ({"vocab": 12}, "params must hold 168 numbers, got 164"),
    "a larger embedding": ({"embed": 4}, "params must hold"),
    "a negative shape of fitting size": (
        {"embed": 1, "hidden": -1, "params": np.zeros(12, np.float32)},
        "vocab, embed and hidden must be >= 1",
    ),
    "no shape": ({"vocab": 0, "embed": 0, "hidden": 0}, "vocab, embed and hidden must be >= 1"),
    "a shape whose size overflows to a fitting one": (
        {"vocab": 2**30 + 23, "embed": 2**31 - 1, "hidden": 2**30 - 3, "params": np.zeros(12, np.float32)},
        r"vocab, embed and hidden must be <= 2\^28",
    ),
    "int64 rows": ({"inputs": np.array([2, 2, 5, 6])}, "dtype mismatch"),
    "strided rows": ({"inputs": np.repeat(int32(2, 2, 5, 6), 2)[::2]}, "contiguous"),
    "a table of rows": ({"inputs": int32(2, 2, 5, 6)[None]}, "wrong number of dimensions"),
    "float64 params": ({"params": np.zeros(164)}, "dtype mismatch"),
    "params of another length": (
        {"params": np.zeros(165, np.float32)},
        "params must hold 164 numbers, got 165",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_would_lead_outside_an_array_is_refused(tiny, draw_params, dims, name):
    changes, message = BAD[name]
    arguments = {"params": draw_params(tiny)} | dims(tiny) | good() | changes
    with pytest.raises(ValueError, match=message):
        local_sgd(**arguments, learning_rate=0.1)
    if len(arguments.pop("steps")) == 1 and "steps" not in name:
        with pytest.raises(ValueError, match=message):
            gradient(**arguments)


def test_good_rows_are_accepted(tiny, draw_params, dims):
    assert local_sgd(draw_params(tiny), **dims(tiny), **good(), learning_rate=0.1)[2:] == (3, 1)


@given(
    inputs=st.lists(st.integers(-2, 12), max_size=6),
    targets=st.lists(st.integers(-3, 12), max_size=6),
    active=st.lists(st.integers(-1, 4), max_size=4),
    steps=st.lists(st.integers(-1, 4), max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_any_integers_are_trained_on_or_refused(tiny, draw_params, dims, inputs, targets, active, steps):
    given_rows = {"inputs": inputs, "targets": targets, "active": active, "steps": steps}
    arrays = {name: int32(*values) for name, values in given_rows.items()}
    try:
        delta, *_ = local_sgd(draw_params(tiny), **dims(tiny), **arrays, learning_rate=0.1)
    except ValueError:
        return
    assert np.isfinite(delta).all()
    assert sum(active) == len(inputs) == len(targets)


@pytest.mark.parametrize(
    "shape", [(5, 1, 1), (11, 3, 5), (5_000, 64, 256), (10_000, 96, 670), (200_000, 512, 4096)]
)
def test_parameter_count_is_the_specs(shape):
    assert parameter_count(*shape) == CifgConfig(*shape).spec.size


def test_parameter_count_does_not_overflow_32_bits():
    assert parameter_count(1_000_000, 5_000, 10) == CifgConfig(1_000_000, 5_000, 10).spec.size > 2**32


# memory, threads and time


def test_a_reused_workspace_grows_and_gives_identical_results(draw_params, draw_sentences, rows, dims):
    workspace, sizes = Workspace(), []
    assert workspace.bytes == 0
    for shape in ((9, 2, 3), (30, 8, 16), (12, 3, 4), (200, 16, 32), (9, 2, 3)):
        config = CifgConfig(*shape)
        params, packed = draw_params(config), rows(epochs_of(draw_sentences, config))
        options = dims(config) | packed | {"learning_rate": 0.3, "clip_norm": 1.0}
        fresh, *facts = local_sgd(params, **options)
        for _ in range(2):
            again, *again_facts = local_sgd(params, **options, workspace=workspace)
            np.testing.assert_array_equal(again, fresh)
            assert again_facts == facts
        sizes.append(workspace.bytes)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1] == sizes[2] < sizes[3] == sizes[4]


def test_scratch_bytes_is_what_a_run_takes(tiny, draw_params, draw_sentences, rows, dims):
    workspace, packed = (
        Workspace(),
        rows([draw_sentences(tiny, (7, 4, 4)), draw_sentences(tiny, (2, 2, 2, 2))]),
    )
    local_sgd(draw_params(tiny), **dims(tiny), **packed, learning_rate=0.1, workspace=workspace)
    needed = scratch_bytes(**dims(tiny), rows=15, sentences=4)
    assert needed == workspace.bytes


def long_run(draw_sentences, config, rows, batches):
    return rows([draw_sentences(config, (20,) * 16, seed=1)] * batches)


def test_a_run_holds_no_interpreter_lock_and_its_workspace_serves_nobody_else(
    draw_params, draw_sentences, rows, dims
):
    """While one thread trains, this one runs Python and is refused the same workspace."""
    config, workspace = preset("tiny"), Workspace()
    params = draw_params(config)
    options = dims(config) | {"learning_rate": 0.1, "workspace": workspace}
    little, much = rows([draw_sentences(config, (2,))]), long_run(draw_sentences, config, rows, 600)
    done = threading.Event()
    refusals = []

    def train():
        try:
            return local_sgd(params, **options, **much)
        finally:
            done.set()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(train)
        while not done.is_set():
            try:
                local_sgd(params, **options, **little)
            except ValueError as error:
                refusals.append(str(error))
        assert future.result()[3] == 600
    # Were the lock held, this thread would wait for the whole run and hardly ever see it in progress.
    assert len(refusals) > 50
    assert set(refusals) == {"a Workspace must serve one run at a time, this one is in use"}
    assert local_sgd(params, **options, **little)[3] == 1  # free again


def test_a_refused_run_leaves_its_workspace_usable(tiny, draw_params, dims):
    workspace = Workspace()
    options = dims(tiny) | {"learning_rate": 0.1, "workspace": workspace}
    with pytest.raises(ValueError, match="inputs must"):
        local_sgd(draw_params(tiny), **options, **(good() | {"inputs": int32(2, 2, 99, 6)}))
    assert local_sgd(draw_params(tiny), **options, **good())[3] == 1


def test_two_threads_give_what_one_gives(draw_params, draw_sentences, rows, dims):
    config = preset("tiny")
    jobs = [
        (draw_params(config, seed), rows(epochs_of(draw_sentences, config, seed=seed))) for seed in range(12)
    ]

    def work(job):
        return local_sgd(job[0], **dims(config), **job[1], learning_rate=1.0, clip_norm=1.0)

    expected = [work(job) for job in jobs]
    for _ in range(3):
        with ThreadPoolExecutor(2) as pool:
            for (delta, *facts), (expected_delta, *expected_facts) in zip(
                pool.map(work, jobs), expected, strict=True
            ):
                np.testing.assert_array_equal(delta, expected_delta)
                assert facts == expected_facts


def test_a_time_budget_stops_between_whole_steps(draw_params, draw_sentences, rows, dims):
    config = preset("tiny")
    params, packed = draw_params(config), long_run(draw_sentences, config, rows, 3000)
    options = dims(config) | {"learning_rate": 0.1}
    delta, loss, tokens, steps = local_sgd(params, **options, **packed, time_budget_s=0.02)
    assert 1 <= steps < 3000
    same = local_sgd(params, **options, **long_run(draw_sentences, config, rows, steps))
    np.testing.assert_array_equal(delta, same[0])
    assert (loss, tokens, steps) == same[1:]


def test_a_budget_that_is_over_at_once_trains_nothing(tiny, draw_params, draw_sentences, rows, dims):
    packed = rows(epochs_of(draw_sentences, tiny))
    delta, _, tokens, steps = local_sgd(
        draw_params(tiny), **dims(tiny), **packed, learning_rate=0.1, time_budget_s=1e-300
    )
    assert steps <= 1
    assert (tokens == 0) == (not delta.any())
