"""`bandwidth`: every chain is tried, real bytes are counted, and what its figures say of them."""

import pytest

from kbdfl.codec import UPLOADS
from kbdfl.device_sim.experiments.bandwidth import CHAINS, PLAIN, against, columns, figures, settings
from kbdfl.device_sim.experiments.study import Run, Study, Tried

TINY = "tiny-uplink"


def run(method, seed, recall, *, up, down):
    details = {"plain": 1e6, "uplink": up, "downlink": down, "reports": 10}
    return Run(method, "-", seed, recall, 0.0, 1, 1.0, [], details)


@pytest.fixture
def study():
    return Study(
        [Tried(method, "-", 0.2, 0.0, [], {}) for method in (PLAIN, TINY)],
        [
            run(PLAIN, 0, 0.18, up=5e5, down=1e6),
            run(TINY, 0, 0.17, up=1e4, down=3e4),
            run(PLAIN, 1, 0.20, up=5e5, down=1e6),
            run(TINY, 1, 0.19, up=1e4, down=5e4),
        ],
    )


def test_every_named_chain_is_compared_and_nothing_else_differs():
    every = settings(rounds=10, quick=False)
    assert {setting.inner.algorithm.upload for setting in every} >= UPLOADS.keys()
    assert {setting.method for setting in settings(rounds=10, quick=True)} == set(CHAINS)
    assert {setting.inner.algorithm.client.candidates for setting in every} == {1000}
    assert {setting.inner.rounds for setting in every} == {10}


def test_ratios_are_to_four_bytes_a_parameter_and_losses_to_float32(study):
    plain, tiny = figures(study)["chains"]
    assert plain | {"recall_top1": 0.19} == plain
    assert (plain["uplink_ratio"], plain["downlink_ratio"], plain["top1_loss_points"]) == (2, 1, 0)
    assert tiny["uplink_ratio"] == 100
    assert tiny["downlink_ratio"] == pytest.approx(25)
    assert tiny["total_ratio"] == pytest.approx(2e6 / 5e4)
    assert tiny["top1_loss_points"] == pytest.approx(1)
    assert (tiny["uplink_bytes"], tiny["run_uplink_bytes"], tiny["run_downlink_bytes"]) == (1e4, 1e5, 4e5)


def test_columns_and_curves_show_them(study):
    shown = {title: texts[TINY] for title, texts in columns(study).items()}
    assert shown == {"up": "100.0x", "down": "25.0x", "together": "40.0x", "points lost": "+1.00",
                     "MB a run": "0 / 0"}  # fmt: skip
    assert [numbers[TINY] for numbers in against(study).values()] == [100, pytest.approx(40)]


def test_the_bytes_of_a_training_are_those_of_its_frames(data):
    trained = {
        one.method: one.train(data, seed=1, workers=2).details(data.validation)
        for one in settings(rounds=2, quick=True)
        if one.method in (PLAIN, TINY, "compact, grid")
    }
    plain = trained[PLAIN]
    assert plain["reports"] == 20
    assert plain["plain"] < plain["downlink"] < plain["plain"] + 500  # a model of float32 and its header
    assert trained[TINY]["downlink"] == plain["downlink"]
    assert trained[TINY]["uplink"] < plain["uplink"] / 5
    assert trained["compact, grid"]["downlink"] < plain["downlink"] / 4
