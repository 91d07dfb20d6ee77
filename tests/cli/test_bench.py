"""`kbdfl bench client`: what it reports, and what it refuses."""

import io
import json
import sys

import numpy as np
import pytest

from kbdfl.cli.bench import contestants
from kbdfl.cli.bench.client import client_flops
from kbdfl.cli.bench.race import race, timed
from kbdfl.kernels.train import Workspace, local_sgd, scratch_bytes
from kbdfl.model import init_params, preset
from kbdfl.text import EOS, pack


def test_contestants_are_measured_and_compared(kbdfl):
    code, out, err = kbdfl(
        "bench", "client", "--preset", "tiny", "--peers", "numpy", "--repetitions", 3, "--json"
    )
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["bench"], result["preset"], result["repetitions"]) == ("client", "tiny", 3)
    assert result["parameters"] == preset("tiny").spec.size
    rates = {name: row["updates_per_s"] for name, row in result["contestants"].items()}
    assert rates.keys() - {"kbdfl_2_cores", "numpy_2_cores"} == {"kbdfl", "numpy"}
    for row in result["contestants"].values():
        assert 0 < row["slowest"] <= row["updates_per_s"] <= row["fastest"]
    assert result["ratio_vs_numpy"] == pytest.approx(rates["kbdfl"] / rates["numpy"], rel=0.01)
    if "kbdfl_2_cores" in rates:
        assert result["scaling_2_cores"] == pytest.approx(rates["kbdfl_2_cores"] / rates["kbdfl"], rel=0.01)
    assert result["share_of_sgemm_peak"] == pytest.approx(
        result["gflops"] / result["sgemm_peak_gflops"], rel=0.01
    )
    norms = [row["delta_norm"] for row in result["contestants"].values()]
    assert norms == pytest.approx([norms[0]] * len(norms), rel=1e-3)


def test_no_peers_is_a_race_alone(kbdfl):
    code, out, _ = kbdfl("bench", "client", "--preset", "tiny", "--peers", "", "--repetitions", 3)
    assert code == 0
    assert "sgemm_peak_gflops" in out
    assert "numpy" not in out


def test_a_peer_that_is_not_installed_is_said_and_not_measured(kbdfl, monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, out, err = kbdfl(
        "bench", "client", "--preset", "tiny", "--peers", "torch", "--repetitions", 3, "--json"
    )
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["torch"] == "not measured: torch is not here"
    assert result["contestants"].keys().isdisjoint({"torch", "torch_2_cores"})


@pytest.mark.parametrize("module", ["torch", "jax"])
def test_an_installed_peer_does_the_same_work(kbdfl, module):
    pytest.importorskip(module, exc_type=ImportError)
    code, out, _ = kbdfl(
        "bench", "client", "--preset", "tiny", "--peers", module, "--repetitions", 3, "--json"
    )
    assert code == 0
    rows = json.loads(out)["contestants"]
    assert rows[module]["delta_norm"] == pytest.approx(rows["kbdfl"]["delta_norm"], rel=1e-3)


def test_the_numpy_peer_ends_in_the_delta_of_the_kernels():
    ours, peer = (contestants.client_update(name, preset="tiny", seed=3)() for name in ("kbdfl", "numpy"))
    flat = np.concatenate([peer[name].ravel() for name, _ in preset("tiny").spec.entries])
    assert np.linalg.norm(flat - ours) < 1e-4 * np.linalg.norm(ours)
    assert contestants.norm(peer) == pytest.approx(np.linalg.norm(flat), rel=1e-6)


def test_sampled_candidates_train_a_smaller_model():
    delta = contestants.client_update("kbdfl_100", preset="tiny", seed=3)()
    config = preset("tiny")
    assert delta.size == config.spec.size - (config.vocab - 100) * (config.embed + 1)
    assert np.isfinite(delta).all()
    assert delta.any()


def test_scratch_bytes_are_what_a_run_takes():
    config = preset("tiny")
    typed = contestants.tokens(config.vocab, 1)
    batches = pack([[[*message.tolist(), EOS] for message in batch] for batch in typed])
    workspace = Workspace()
    delta, *_ = local_sgd(
        init_params(config, seed=1), **config.dims, **batches.arrays, learning_rate=0.5, workspace=workspace
    )
    rows = contestants.BATCH * contestants.WORDS
    claimed = scratch_bytes(**config.dims, rows=rows, sentences=contestants.BATCH)
    assert workspace.bytes <= claimed <= workspace.bytes + delta.nbytes


def test_flops_count_every_matrix_product():
    """The projection and the gates of one word by hand: V = 5, E = 2, H = 3."""
    forward = 2 * (2 * 9 + 2 * 9 + 3 * 2 + 2 * 5)
    words = contestants.STEPS * contestants.BATCH * contestants.WORDS
    assert client_flops(vocab=5, embed=2, hidden=3) == 3 * forward * words


def test_a_race_interleaves_and_does_not_count_the_first_lap():
    order = []
    laps = iter(range(100))

    def contestant(name):
        order.append(name)
        return float(next(laps))

    seconds = race({name: lambda name=name: contestant(name) for name in "ab"}, laps=3)
    assert order == list("abababab")
    assert seconds == {"a": [2.0, 4.0, 6.0], "b": [3.0, 5.0, 7.0]}


def test_timed_returns_seconds_and_not_the_result():
    done = []
    assert 0 <= timed(lambda: done.append(1))() < 60
    assert done == [1]


def test_a_contestant_answers_every_line_with_seconds(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n"))
    monkeypatch.setattr(contestants, "client_update", lambda name, **_: lambda: np.float32([3, 4]))
    monkeypatch.delattr(contestants.os, "sched_setaffinity", raising=False)
    contestants.main("kbdfl", "tiny", "1", "0")
    ready, *runs = map(json.loads, capsys.readouterr().out.splitlines())
    assert ready == {"norm": 5.0}
    assert [run.keys() for run in runs] == [{"seconds"}] * 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--preset", "huge"], "preset must be one of"),
        (["--peers", "numpy,tf"], "peers must be among numpy, torch, jax, got tf"),
        (["--repetitions", "2"], "repetitions"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_bad_options_are_one_line(refused, options, reason):
    assert reason in refused("bench", "client", *options)
