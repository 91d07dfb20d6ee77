"""`kbdfl bench secagg`: an exact sum, bytes that add up, and what it refuses."""

import json

import pytest

from kbdfl.cli.bench.race import ONE_THREAD
from kbdfl.cli.bench.secagg_http import _config, _mismatches
from kbdfl.params import save_checkpoint
from kbdfl.run import build_task


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What the command sets for its process ends with the test."""
    for name in ONE_THREAD:
        monkeypatch.setenv(name, "2")


@pytest.mark.parametrize("before", ["mask", "any"])
def test_a_session_is_exact_and_counted(kbdfl, before):
    options = ["--n", 16, "--dropout", 0.2, "--words", 2_000, "--value-bits", 8, "--before", before]
    code, out, err = kbdfl("bench", "secagg", *options, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["n"], result["neighbours"], result["threshold"], result["quorum"]) == (16, 15, 8, 10)
    assert result["mismatches"] == 0
    # Three fall silent; before `any` one of each before share, mask and confirm: the last is in the sum.
    assert result["survivors"] == {"mask": 13, "any": 14}[before]
    assert (result["word_bits"], result["clear_bytes"]) == (12, 2_000)
    assert result["up_bytes"] == sum(result["step_up_bytes"].values()) == 3_000 + result["overhead_bytes"]
    assert result["expansion"] == pytest.approx(result["up_bytes"] / 2_000, abs=1e-4)
    assert result["server_s"] == pytest.approx(sum(result["server_step_s"].values()), abs=0.01)
    assert 0 < result["device_s"] <= result["device_longest_s"]
    assert result["step_up_bytes"].keys() == {"advertise", "share", "mask", "confirm", "unmask"}
    same = [row for row in result["curve"] if (row["value_bits"], row["levels"]) == (8, 127)]
    assert [row["expansion"] for row in same] == sorted((row["expansion"] for row in same), reverse=True)
    assert same[-1]["expansion"] == pytest.approx(12 / 8, abs=0.01)


def test_the_text_names_the_figures(kbdfl):
    code, out, _ = kbdfl("bench", "secagg", "--n", 5, "--dropout", 0, "--words", 300)
    assert code == 0
    assert "5 in the sum" in out
    assert "mismatches 0" in out
    assert "16 bits, ±32767 in 19" in out


def test_a_presets_summable_share_is_the_default_size(kbdfl):
    code, out, _ = kbdfl("bench", "secagg", "--n", 4, "--dropout", 0, "--preset", "tiny", "--json")
    assert code == 0
    from kbdfl.model import preset

    assert json.loads(out)["words"] == -(-preset("tiny").spec.size // 8)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--n", "2"], "n"),
        (["--dropout", "1"], "dropout"),
        (["--value-bits", "17"], "value-bits"),
        (["--preset", "huge"], "preset must be one of"),
        (["--n", "6", "--words", "4", "--dropout", "0.9"], "needed"),
    ],
)
def test_bad_options_are_one_line(refused, options, reason):
    assert reason in refused("bench", "secagg", *options)


def test_a_round_over_http_is_counted_at_the_socket(kbdfl):
    options = [
        "--http",
        "--n",
        8,
        "--dropout",
        0.25,
        "--before",
        "any",
        "--preset",
        "tiny",
        "--phase-deadline-s",
        1,
    ]
    code, out, err = kbdfl("bench", "secagg", *options, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    # One of the two is silent before it shares, the other before it gives words.
    assert (result["status"], result["survivors"], result["silent"]) == ("committed", 6, 2)
    assert result["mismatches"] == 0
    assert (result["outcomes"]["reported"], result["outcomes"]["dropped"]) == (6, 2)
    assert result["train_loss"] > 0
    assert 0 < result["message_up_bytes"] < result["socket_up_bytes"]
    assert result["socket_down_bytes"] > 4 * 12_000  # the model
    assert result["device_s"] > 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--http", "--words", "9"], "--words must come without --http"),
        (["--phase-deadline-s", "9"], "--phase-deadline-s must come with --http"),
        (["--http", "--n", "10", "--dropout", "0.5"], "of 10 phones at least 7 must stay, got 5"),
    ],
)
def test_what_does_not_go_with_http_is_refused(refused, options, reason):
    assert reason in refused("bench", "secagg", *options)


def test_after_a_round_that_came_to_nothing_no_model_is_compared(tmp_path):
    config = _config(3, 0, preset="tiny", phase_deadline_s=1.0, seed=1)
    built = build_task(config)
    save_checkpoint(tmp_path / "first", built.params, built.task.config.spec, {"version": 0})

    class Client:
        def get(self, path):
            assert path == "/v1/checkpoint"
            return (tmp_path / "first").read_bytes()

    assert _mismatches(Client(), config, [], tmp_path) is None
