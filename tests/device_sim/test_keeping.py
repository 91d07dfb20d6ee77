"""A simulation that is killed and goes on from what was kept ends as one that never was."""

import os
from dataclasses import replace

import pytest

from kbdfl.algorithms import Algorithm, ClientRule, Download, FedAvg, FedBuff, Oort
from kbdfl.algorithms.secure import SecureAggregation
from kbdfl.device_sim.keeping import STATE, Keeper
from kbdfl.device_sim.population import Population, held_out_sentences
from kbdfl.device_sim.simulate import Simulation
from kbdfl.errors import ConfigError, DataError
from kbdfl.metrics import evaluation_set
from kbdfl.params import digest
from kbdfl.rng import stream
from kbdfl.run import RunConfig, RunFolder, build_task

UNEQUAL = {"speeds": "heavy-tailed", "availability": "nightly", "dropout": 0.1}
RUNS = {
    "synchronous": (Algorithm(), {"dropout": 0.2}, {}),
    "fedbuff": (Algorithm(mode=FedBuff(concurrency=9, max_staleness=3)), UNEQUAL, {"deadline_s": 5.0}),
    "fedbuff, partial work": (
        Algorithm(ClientRule(partial_work=True, batch_size=2), mode=FedBuff(concurrency=9)),
        UNEQUAL,
        {"deadline_s": 0.5},
    ),
    "scaffold": (
        Algorithm(ClientRule(scaffold=2, learning_rate=1.0), server=FedAvg()),
        {"dropout": 0.3},
        {"over_selection": 1.25},
    ),
    "feedback and differences": (
        Algorithm(
            ClientRule(feedback_rounds=9), upload="tiny-uplink", download=Download("grid", kept_versions=3)
        ),
        {},
        {},
    ),
    "parts": (
        Algorithm(ClientRule(report_words=12, partial_model=True)),
        {"speeds": "tiers"},
        {},
    ),
    "oort": (Algorithm(selection=Oort()), UNEQUAL, {"deadline_s": 5.0}),
    "summed unseen": (
        Algorithm(
            upload="summable",
            update_clip_norm=1.0,
            weights="uniform",
            secure=SecureAggregation(on=True, devices=4, phase_deadline_s=2.0),
        ),
        {"speeds": "heavy-tailed", "dropout": 0.1},
        {"min_reports": 4},
    ),
    "weekly": (
        Algorithm(),
        {"availability": "weekly", "speeds": "tiers", "hazard_per_h": 9.0, "rest_s": 600.0},
        {"deadline_s": 900.0, "pace_s": 300.0},
    ),
}


class Killed(Exception):
    """What a test stops a run with."""


@pytest.fixture
def begin(texts, run_config):
    """A simulation of one of RUNS that has not begun."""

    def make(name, *, rounds=10, **more):
        algorithm, settings, rule = RUNS[name]
        config = run_config(
            rule=rule | {"rounds": rounds, "min_reports": rule.get("min_reports", 0)}, **settings | more
        )
        config = RunConfig(config.settings, algorithm, config.rule)
        population = Population(texts)
        built = build_task(config, training_texts=population.texts())
        held_out = evaluation_set(held_out_sentences(texts, built.vocabulary, words=200, seed=1))
        return config, Simulation(config, built, population, held_out=held_out, workers=2)

    return make


def rows_of(folder):
    return [{name: value for name, value in row.items() if name != "wall_s"} for row in folder.rows()]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_killed_after_any_round_ends_in_the_same_bytes(begin, tmp_path, name):
    config, whole = begin(name)
    whole_folder = RunFolder.create(tmp_path, "whole", default="")
    whole_folder.write_config(config.to_toml())
    whole.rounds(Keeper(whole_folder, whole, every_s=1e9).add)
    random = stream(1, "kill", name)
    folder = RunFolder.create(tmp_path, "killed", default="")
    folder.write_config(config.to_toml())
    kills = 0
    while True:
        _, simulation = begin(name)
        keeper = Keeper(folder, simulation, every_s=0.0)
        keeper.resume()
        left = int(random.integers(1, 4))

        def on_round(row, keeper=keeper):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            keeper.add(row)

        try:
            simulation.rounds(on_round)
            break
        except Killed:
            kills += 1
            with open(folder.metrics, "a") as file:
                file.write('{"round": 77, "a row that was not writ')
    assert kills >= 2
    assert digest(simulation.coordinator.params) == digest(whole.coordinator.params)
    assert rows_of(folder) == rows_of(whole_folder)
    assert simulation.facts() == whole.facts()
    assert len(rows_of(folder)) == 10


def test_a_run_that_was_killed_before_anything_was_kept_begins_again(begin, tmp_path):
    config, simulation = begin("synchronous")
    folder = RunFolder.create(tmp_path, "early", default="")
    folder.write_config(config.to_toml())
    assert Keeper(folder, simulation, every_s=1e9).resume() == 0
    assert folder.rows() == []
    _, again = begin("synchronous")
    Keeper(folder, again, every_s=1e9).begin()
    folder.add_row({"round": 0})
    assert Keeper(folder, again, every_s=1e9).resume() == 0
    assert folder.rows() == []


@pytest.mark.parametrize("what", ["metrics.jsonl", "server.sqlite3"])
def test_the_folder_of_a_server_is_not_taken_over(begin, tmp_path, what):
    config, simulation = begin("synchronous")
    folder = RunFolder.create(tmp_path, "served", default="")
    folder.write_config(config.to_toml())
    (folder.path / what).write_text('{"round": 0}\n')
    with pytest.raises(ConfigError, match="no simulation that was begun"):
        Keeper(folder, simulation, every_s=0.0).resume()
    assert (folder.path / what).read_text() == '{"round": 0}\n'


def test_a_log_that_has_changed_since_is_another_run(begin, tmp_path):
    config, simulation = begin("synchronous", rounds=2)
    log = tmp_path / "log.jsonl"
    log.write_text("what they typed")
    simulation.settings = replace(simulation.settings, source=str(log))
    folder = RunFolder.create(tmp_path, "run", default="")
    folder.write_config(config.to_toml())
    keeper = Keeper(folder, simulation, every_s=0.0)
    keeper.begin()
    log.write_text("what they typed since")
    with pytest.raises(ConfigError, match=r"another config\.toml, log or trace"):
        keeper.resume()


def test_a_finished_run_or_one_with_another_configuration_is_not_resumed(begin, tmp_path):
    config, simulation = begin("synchronous", rounds=2)
    folder = RunFolder.create(tmp_path, "run", default="")
    folder.write_config(config.to_toml())
    simulation.rounds(Keeper(folder, simulation, every_s=0.0).add)
    _, other = begin("synchronous", rounds=2)
    folder.write_config(replace(config, rule=replace(config.rule, rounds=3)).to_toml())
    with pytest.raises(ConfigError, match=r"another config\.toml, log or trace"):
        Keeper(folder, other, every_s=0.0).resume()
    (folder.path / "report.html").write_text("all there is to say")
    with pytest.raises(ConfigError, match="is finished"):
        Keeper(folder, other, every_s=0.0).resume()


def test_a_damaged_snapshot_is_refused(begin, tmp_path):
    config, simulation = begin("synchronous", rounds=2)
    folder = RunFolder.create(tmp_path, "run", default="")
    folder.write_config(config.to_toml())
    simulation.rounds(Keeper(folder, simulation, every_s=0.0).add)
    path = folder.path / STATE
    kept = bytearray(path.read_bytes())
    kept[len(kept) // 2] ^= 1
    path.write_bytes(kept)
    _, again = begin("synchronous", rounds=2)
    with pytest.raises(DataError, match="damaged"):
        Keeper(folder, again, every_s=0.0).resume()


def test_a_full_disk_leaves_what_was_kept_and_says_how_to_go_on(begin, tmp_path, monkeypatch):
    config, whole = begin("synchronous")
    whole.rounds(lambda row: None)
    _, simulation = begin("synchronous")
    folder = RunFolder.create(tmp_path, "full", default="")
    folder.write_config(config.to_toml())
    keeper, calls = Keeper(folder, simulation, every_s=0.0), []

    def fsync(descriptor, _fsync=os.fsync):
        calls.append(descriptor)
        if len(calls) > 13:  # four a snapshot: the rows first, each file and then its folder
            raise OSError(28, "No space left on device")
        _fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(DataError, match=r"No space left.*--resume"):
            simulation.rounds(keeper.add)
    _, again = begin("synchronous")
    keeper = Keeper(folder, again, every_s=0.0)
    assert keeper.resume() == 4
    again.rounds(keeper.add)
    assert digest(again.coordinator.params) == digest(whole.coordinator.params)
