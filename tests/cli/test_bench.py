"""`kbdfl bench client`: what it reports, and what it refuses."""

import json

import numpy as np
import pytest

from kbdfl.cli.bench import client as bench
from kbdfl.cli.bench.race import peer_module
from kbdfl.kernels.train import local_sgd
from kbdfl.model import init_params, preset
from kbdfl.rng import stream
from kbdfl.text import BOS, EOS, pack


def test_contestants_are_measured_and_compared(kbdfl):
    code, out, err = kbdfl(
        "bench", "client", "--preset", "tiny", "--peers", "numpy", "--repetitions", 3, "--json"
    )
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["bench"], result["preset"], result["repetitions"]) == ("client", "tiny", 3)
    assert result["parameters"] == preset("tiny").spec.size
    assert result["contestants"].keys() == {"kbdfl", "kbdfl_2_cores", "numpy", "numpy_2_cores"}
    for row in result["contestants"].values():
        assert 0 < row["slowest"] <= row["updates_per_s"] <= row["fastest"]
    rates = {name: row["updates_per_s"] for name, row in result["contestants"].items()}
    assert result["ratio_vs_numpy"] == pytest.approx(rates["kbdfl"] / rates["numpy"], rel=0.01)
    assert result["scaling_2_cores"] == pytest.approx(rates["kbdfl_2_cores"] / rates["kbdfl"], rel=0.01)


def test_no_peers_is_a_race_alone(kbdfl):
    code, out, _ = kbdfl("bench", "client", "--preset", "tiny", "--peers", "", "--repetitions", 3)
    assert code == 0
    assert "kbdfl_2_cores" in out
    assert "numpy" not in out


def test_a_peer_that_is_not_installed_is_said_and_not_measured(kbdfl, monkeypatch):
    def missing(name):
        raise ImportError(f"no module named {name}")

    monkeypatch.setattr(bench, "peer_module", missing)
    code, out, _ = kbdfl(
        "bench", "client", "--preset", "tiny", "--peers", "torch", "--repetitions", 3, "--json"
    )
    assert code == 0
    assert json.loads(out)["torch"] == "not measured: no module named client_torch"


def test_peers_do_the_same_work_as_the_kernels():
    """One word is read before the first one that is predicted: <bos> in ours, so give the peer <bos> as well."""
    config, random = preset("tiny"), stream(1, "bench test")
    params = init_params(config, seed=3)
    tokens = random.integers(4, config.vocab, (3, 5, 9))
    tokens[:, :, 0] = BOS
    batches = pack([[[*sentence.tolist(), EOS] for sentence in batch] for batch in tokens])
    delta, *_ = local_sgd(params, **config.dims, **batches.arrays, learning_rate=bench.LEARNING_RATE)
    peer = peer_module("client_numpy").make(config.spec.views(params), tokens, bench.LEARNING_RATE)()
    flat = np.concatenate([peer[name].ravel() for name, _ in config.spec.entries])
    assert np.linalg.norm(flat - delta) < 1e-4 * np.linalg.norm(delta)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--preset", "huge"], "preset must be one of"),
        (["--peers", "numpy,jax"], "peers must be among numpy, torch, got jax"),
        (["--repetitions", "2"], "repetitions"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_bad_options_are_one_line(refused, options, reason):
    assert reason in refused("bench", "client", *options)
