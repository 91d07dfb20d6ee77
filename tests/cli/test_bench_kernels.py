"""`kbdfl bench kernels`: what it reports, that everybody does the same work, and what it refuses."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from kbdfl.cli.bench import kernels
from kbdfl.cli.bench.jobs import draw, ours
from kbdfl.cli.bench.race import ONE_THREAD, peer_module
from kbdfl.kernels import quantize, reference_rotate
from kbdfl.rng import stream

SIZE = 96 * 256


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What the command sets for its process ends with the test."""
    for name in ONE_THREAD:
        monkeypatch.setenv(name, "2")


def test_every_job_is_measured_and_compared(kbdfl):
    code, out, err = kbdfl("bench", "kernels", "--size", SIZE, "--repetitions", 3, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["bench"], result["size"], result["repetitions"]) == ("kernels", SIZE, 3)
    jobs = {name: row for name, row in result.items() if isinstance(row, dict)}
    assert jobs.keys() >= {
        "quantize_int8",
        "topk",
        "topk_sparse",
        "accumulate_int8",
        "pack4",
        "rotate",
        "norm_clip",
        "mask_add",
    }
    for row in jobs.values():
        shortest, longest = row["ours_range_ms"]
        assert 0 < shortest <= row["ours_ms"] <= longest
        assert row["ratio_vs_numpy"] == pytest.approx(row["numpy_ms"] / row["ours_ms"], rel=0.05, abs=0.01)
        assert row["ratio_vs_best"] <= row["ratio_vs_numpy"]


def test_a_peer_that_is_missing_is_said_and_the_rest_goes_on(kbdfl, monkeypatch):
    def missing(name):
        if name == "kernels_torch":
            raise ImportError("torch is not here")
        return peer_module(name)

    monkeypatch.setattr(kernels, "peer_module", missing)
    code, out, _ = kbdfl("bench", "kernels", "--size", SIZE, "--repetitions", 3)
    assert code == 0
    assert "torch not measured: torch is not here" in out
    assert "quantize_int8" in out


def test_numpy_is_told_to_use_one_thread_before_it_is_loaded(tmp_path):
    (tmp_path / "numpy.py").write_text("import os; raise SystemExit(os.environ['OPENBLAS_NUM_THREADS'])")
    run = subprocess.run(
        [sys.executable, "-c", "from kbdfl.cli.main import main; main(['bench', 'kernels'])"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.stderr.splitlines()[-1] == "1"


def contestants(arrays, peer):
    if peer == "torch":
        pytest.importorskip("torch")
    random = stream(1, "bench test")
    return ours(arrays, random), peer_module(f"kernels_{peer}").make(arrays, random)


@pytest.fixture(scope="module")
def arrays():
    return draw(SIZE, 1)


@pytest.mark.parametrize("peer", ["numpy", "torch"])
def test_peers_have_every_job_and_choose_the_same_coordinates(arrays, peer):
    mine, theirs = contestants(arrays, peer)
    assert mine.keys() == theirs.keys()
    for job in ("topk", "topk_sparse"):
        for array, other in zip(mine[job](), theirs[job](), strict=True):
            np.testing.assert_array_equal(array, np.asarray(other))
    drawn = np.asarray(theirs["shared_indices"]())
    assert drawn.size == mine["shared_indices"]().size
    assert np.all(np.diff(drawn) > 0)


@pytest.mark.parametrize("peer", ["numpy", "torch"])
def test_peers_add_what_ours_adds(arrays, peer):
    _, theirs = contestants(arrays, peer)
    dense, weight = arrays["dense"], arrays["weight"]
    decoded = quantize.dequantize_int8(arrays["levels"], arrays["scales"])
    sparse = np.zeros_like(dense)
    sparse[arrays["indices"]] = arrays["values"]
    expected = np.zeros_like(dense)
    for job, update in (
        ("accumulate_int8", decoded), ("accumulate_float32", dense), ("accumulate_sparse", sparse)
    ):  # fmt: skip
        expected += weight * update
        got = np.asarray(theirs[job]())
        np.testing.assert_allclose(got, expected.reshape(got.shape), rtol=1e-4, atol=1e-9)
    np.testing.assert_array_equal(np.asarray(theirs["accumulate_levels"]()), arrays["levels"])
    rows = np.asarray(theirs["accumulate_rows"]())
    np.testing.assert_allclose(rows[arrays["rows"]], weight * arrays["row_values"], rtol=1e-5)
    clipped = np.asarray(theirs["norm_clip"]())
    assert np.linalg.norm(clipped) == pytest.approx(arrays["clip_norm"], rel=1e-4)
    masked = arrays["words"] + arrays["mask"]
    np.testing.assert_array_equal(
        np.asarray(theirs["mask_add"]()).view(np.uint32), masked & np.uint32(2**24 - 1)
    )
    np.testing.assert_array_equal(np.asarray(theirs["mask_add_32"]()).view(np.uint32), masked)


@pytest.mark.parametrize("peer", ["numpy", "torch"])
def test_peers_round_to_the_levels_that_ours_could_have_given(arrays, peer):
    _, theirs = contestants(arrays, peer)
    dense, step = arrays["dense"], np.repeat(arrays["scales"], arrays["block"])
    levels, scales = map(np.asarray, theirs["quantize_int8"]())
    np.testing.assert_allclose(scales, arrays["scales"], rtol=1e-6)
    assert np.all(np.abs(levels.ravel() * step - dense) <= 1.001 * step)
    packed, scales = map(np.asarray, theirs["pack4"]())
    step = np.repeat(scales, arrays["block"])
    decoded = quantize.dequantize_4bit(packed.ravel(), scales.copy(), size=dense.size)
    assert np.all(np.abs(decoded - dense) <= 1.001 * step)
    packed, scales = map(np.asarray, theirs["pack1"]())
    decoded = quantize.dequantize_1bit(packed.ravel(), scales.copy(), size=dense.size)
    np.testing.assert_allclose(np.abs(decoded), np.repeat(scales, arrays["block"]))
    assert np.mean(decoded * dense) == pytest.approx(np.mean(dense**2), rel=0.3)
    packed, scales = map(np.asarray, theirs["sign"]())
    mine = quantize.quantize_sign(dense, block=arrays["block"])
    np.testing.assert_array_equal(packed, mine[0])
    np.testing.assert_allclose(scales, mine[1], rtol=1e-5)
    words = np.asarray(theirs["encode_fixed"]()).astype(np.uint16).view(np.int16)
    assert np.all(
        np.abs(words * arrays["limit"] / arrays["steps"] - dense)[np.abs(dense) < 0.01] <= 0.01 / 127 * 1.01
    )


@pytest.mark.parametrize("peer", ["numpy", "torch"])
def test_peers_rotate_by_the_same_matrix(arrays, peer):
    mine, theirs = contestants(arrays, peer)
    dense, block = arrays["dense"].reshape(-1, arrays["block"]), arrays["block"]
    for turned in (np.asarray(mine["rotate"]()), np.asarray(theirs["rotate"]())):
        back = reference_rotate.hadamard(turned[:block]) / dense[0]  # the signs alone are left
        np.testing.assert_allclose(np.abs(back), 1, atol=1e-3)
        norms = np.linalg.norm(turned.reshape(dense.shape), axis=1)
        np.testing.assert_allclose(norms, np.linalg.norm(dense, axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--size", "1025"], "size must be a multiple of 256, got 1025"),
        (["--size", "0"], "size"),
        (["--repetitions", "2"], "repetitions"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_bad_options_are_one_line(refused, options, reason):
    assert reason in refused("bench", "kernels", *options)
