"""Eight organisations with a folder each: what they hold, learn and answer is what our own experiment computes."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from kbdfl.device_sim.experiments import silos as experiment
from kbdfl.device_sim.experiments.data import is_validation, open_data
from kbdfl.device_sim.experiments.settings import Central, Federated
from kbdfl.device_sim.typing.sources import is_held_out
from kbdfl.errors import ConfigError, DataError, ModelError
from kbdfl.interop.flare.silos import PARTS, SITES, Beginning, Shared, Site, quickly, write_silos
from kbdfl.interop.learner import flat, named
from kbdfl.model import preset
from kbdfl.rng import stream
from kbdfl.text import public_words

WORDS = 12  # of a dialect, each of which is followed by the next
ASKED = 2_000
ROUNDS = 5


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """240 users, each of one of eight dialects, in each part as many of one as of another."""
    words, random = public_words(200)[0][60:], stream(1, "dialects")
    seen, lines = Counter(), []
    for user in (f"user{i}" for i in range(240)):
        part = is_held_out(user), is_validation(user)
        dialect = WORDS * (seen[part] % len(SITES))
        seen[part] += 1
        for _ in range(5):
            start = int(random.integers(WORDS))
            text = " ".join(words[dialect + (start + i) % WORDS] for i in range(7))
            lines.append(json.dumps({"user": user, "text": text}))
    path = tmp_path_factory.mktemp("silos") / "eight.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def shared(log):
    rates = {"joint_rates": (0.03, 0.01), "rates_alone": (0.01, 0.03)}
    return Shared(logs=str(log), preset="tiny", seed=1, rounds=ROUNDS, epochs_alone=6.0, **rates)


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory):
    path = tmp_path_factory.mktemp("organisations") / "eight"
    path.mkdir()
    write_silos(path, shared, words=ASKED)
    return path


@pytest.fixture(scope="module")
def data(log):
    return open_data(str(log), preset_name="tiny", seed=1, words=ASKED)


@pytest.fixture(scope="module")
def sites(folder):
    return {site: Site(folder, site) for site in SITES}


def test_a_folder_holds_the_experiments_organisations(folder, shared, data):
    found = experiment.silos(data)
    assert Beginning.read(folder).shared == shared
    for number, (site, name) in enumerate(SITES.items()):
        lines = (folder / site / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["text"] for line in lines] == [m.text for m in found.source.messages(name)]
        for part, users in zip(PARTS, (data.validation, data.held_out), strict=True):
            with np.load(folder / site / f"{part}.npz") as file:
                for key, array in found.asked[users][number].arrays.items():
                    np.testing.assert_array_equal(file[key], array)


def test_a_site_reads_no_other_ones_folder(folder, tmp_path):
    for entry in folder.iterdir():
        if entry.is_file() or entry.name == "organisation-3":
            (tmp_path / entry.name).symlink_to(entry)
    site = Site(tmp_path, "organisation-3")
    site.learn(Beginning.read(tmp_path).built(0.03).params, round=0)


def test_joint_rounds_are_the_experiments(folder, shared, sites, data):
    """The learner, its seeds and the server's rule: summed as a coordinator sums, the same model."""
    rate = shared.joint_rates[0]
    config, built = shared.config(rate), Beginning.read(folder).built(rate)
    theirs = Federated(experiment.JOINT, "", config.algorithm, ROUNDS, rule=config.rule)
    population = experiment.silos(data).population()
    (expected,) = theirs.train(replace(data, population=population), seed=shared.seed, workers=1).models
    params, rule = built.params, config.algorithm.server
    state = rule.init(params.size)
    for number in range(ROUNDS):
        learned = [site.learn(params, round=number) for site in sites.values()]
        weights = [config.algorithm.weight(one.examples) for one in learned]
        total = sum(np.float64(weight) * one.delta for weight, one in zip(weights, learned, strict=True))
        params, state = rule.apply(params, np.float32(total / sum(weights)), state, round=number)
    moved = np.linalg.norm(expected - built.params)
    assert np.linalg.norm(params - expected) / moved < 1e-4
    assert np.abs(expected - built.params).max() > 0.01


def test_a_model_of_ones_own_is_the_experiments(shared, sites, data):
    site, name = "organisation-2", "organisation 2"
    tried = []
    for rate in shared.rates_alone:
        central = Central(name, "", rate, shared.epochs_alone, experiment.BATCH_ALONE)
        trained = experiment.Shared(central, (name,)).train(data, seed=shared.seed, workers=1)
        found = sites[site].ask(trained.models[0], "validation")["recall_top1"]
        tried.append((found, rate, trained.models[0]))
    found, rate, params = max(tried, key=lambda one: one[0])
    own = sites[site].alone()
    assert (own.rate, own.recall_top1) == (rate, found)
    np.testing.assert_array_equal(own.params, params)
    assert sites[site].ask(own.params, "held_out")["recall_top1"] > 2 / WORDS


def test_a_strange_site_and_an_empty_folder_are_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"a site must be one of organisation-1, .*got 'organisation-9'"):
        Site(folder, "organisation-9")
    for content in (None, "{}", "[]", "nothing"):
        if content is not None:
            (tmp_path / "shared.json").write_text(content)
        with pytest.raises(DataError, match="is no folder of organisations"):
            Beginning.read(tmp_path)


def test_a_folder_is_not_written_over(folder, shared):
    with pytest.raises(ConfigError, match="there are organisations in"):
        write_silos(folder, shared, words=ASKED)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rounds": 4}, "rounds must be >= 5, .*got 4"),
        ({"joint_rates": ()}, "joint_rates must hold a rate, got none"),
        ({"epochs_alone": 0.0}, "epochs_alone must be > 0 and finite, got 0.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        Shared(**wrong)


def test_a_quick_look_is_the_experiments():
    quick, settings = quickly(Shared()), experiment.settings(rounds=40, quick=True)
    (alone,) = {
        (one.inner.learning_rate, one.inner.epochs) for one in settings if one.method != experiment.JOINT
    }
    assert (*quick.rates_alone, quick.epochs_alone) == alone
    assert quick.rounds == 40
    assert set(quick.joint_rates) < set(experiment.JOINT_RATES)


def test_the_joint_settings_are_the_experiments():
    shared = Shared()
    joint = [
        one.inner
        for one in experiment.settings(rounds=shared.rounds, quick=False)
        if one.method == experiment.JOINT
    ]
    assert [shared.config(rate).algorithm for rate in shared.joint_rates] == [one.algorithm for one in joint]
    assert {one.rule.cohort for one in joint} == {shared.config(0.03).rule.cohort}


def test_named_arrays_come_back_as_the_flat_vector():
    spec = preset("tiny").spec
    vector = stream(1, "vector").standard_normal(spec.size, np.float32)
    arrays = named(vector, spec)
    np.testing.assert_array_equal(flat(arrays, spec), vector)
    np.testing.assert_array_equal(
        flat({name: array.astype(np.float64) for name, array in arrays.items()}, spec), vector
    )
    for wrong in (arrays | {"bias": arrays["bias"][:-1]}, {"emb": arrays["emb"]}, arrays | {"more": vector}):
        with pytest.raises(ModelError, match="a model must have the arrays emb"):
            flat(wrong, spec)
