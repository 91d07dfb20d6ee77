"""Eight dialects become eight organisations; each chooses for itself, and all users judge every model."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments import silos as experiment
from kbdfl.device_sim.experiments.data import is_validation, open_data
from kbdfl.device_sim.experiments.settings import Central, Federated
from kbdfl.device_sim.experiments.silos import JOINT, NAMES, Shared, alone, silos
from kbdfl.device_sim.experiments.study import Run, Study, Tried
from kbdfl.device_sim.typing.sources import is_held_out
from kbdfl.errors import DataError
from kbdfl.rng import stream
from kbdfl.task import RoundRule
from kbdfl.text import public_words

WORDS = 12  # of a dialect, each of which is followed by the next


@pytest.fixture(scope="module")
def dialects():
    words = public_words(200)[0][60:]
    return [words[WORDS * i : WORDS * (i + 1)] for i in range(len(NAMES))]


def write(path, texts):
    lines = [json.dumps({"user": user, "text": text}) for user in texts for text in texts[user]]
    path.write_text("\n".join(lines) + "\n")
    return open_data(str(path), preset_name="tiny", seed=1, words=2_000)


@pytest.fixture(scope="module")
def eight(dialects, tmp_path_factory):
    """400 users, each of one dialect, and in each part as many of one as of another."""
    random = stream(1, "dialects")

    def text(words):
        start = int(random.integers(WORDS))
        return " ".join(words[(start + i) % WORDS] for i in range(7))

    seen, texts = Counter(), {}
    for user in (f"user{i}" for i in range(400)):
        part = is_held_out(user), is_validation(user)
        dialect = dialects[seen[part] % len(NAMES)]
        texts[user] = [text(dialect) for _ in range(5)]
        seen[part] += 1
    return write(tmp_path_factory.mktemp("silos") / "eight.jsonl", texts)


def single(name, epochs=6.0):
    return Shared(Central(alone(name), "", 0.03, epochs, batch_size=16), (name,))


def test_every_organisation_may_train():
    assert len(NAMES) == 8
    assert not any(map(is_held_out, NAMES))


def test_an_organisation_is_its_users_dialect_in_training_and_in_what_is_asked(eight, dialects):
    found = silos(eight)
    spoken = []
    for index, name in enumerate(NAMES):
        messages = found.source.logs[name]
        assert {message.user for message in messages} <= set(eight.population.users)
        (dialect,) = {
            i for m in messages for i, words in enumerate(dialects) if set(m.text.split()) & set(words)
        }
        known = {eight.held_out.vocabulary.id(word) for word in dialects[dialect]}
        for asked in found.asked.values():
            assert set(asked[index].targets) <= known
        spoken.append(dialect)
    assert sorted(spoken) == list(range(8))
    assert sum(map(len, found.source.logs.values())) == 5 * len(eight.population.users)


def test_an_organisation_alone_knows_its_own_users_best_and_the_joint_model_all(eight):
    algorithm = Algorithm(client=ClientRule(max_messages=64), server=FedAdam(0.05))
    rule = RoundRule(cohort=8, over_selection=1.0)
    joint = Shared(Federated(JOINT, "", algorithm, 25, rule=rule), NAMES).train(eight, seed=1, workers=2)
    own = single(NAMES[2]).train(eight, seed=1, workers=2)
    found = own.details(eight.held_out)
    assert max(found, key=found.get) == NAMES[2]
    assert np.mean(list(found.values())) == pytest.approx(own.recall(eight.held_out)["recall_top1"])
    assert joint.recall(eight.held_out)["recall_top1"] > own.recall(eight.held_out)["recall_top1"] + 0.05
    curve = [point["recall_top1"] for point in joint.curve(eight.held_out)]
    assert joint.recall(eight.held_out)["recall_top1"] in curve


def test_an_organisation_stops_where_its_own_validation_users_say(eight):
    setting = single(NAMES[0])
    kept = setting.train(eight, seed=1, workers=1)
    own = replace(eight, population=silos(eight).population([NAMES[0]]))
    points = setting.inner.train(own, seed=1, workers=1).points
    recalls = [replace(kept, models=(p.params,)).details(eight.validation)[NAMES[0]] for p in points]
    assert kept.details(eight.validation)[NAMES[0]] == max(recalls)


def test_users_who_cannot_be_told_apart_make_no_eight_organisations(tmp_path):
    alike = write(tmp_path / "alike.jsonl", {f"user{i}": ["good morning"] for i in range(60)})
    with pytest.raises(DataError, match=r"organisation \d of 8 has no users"):
        silos(alike)


def test_organisations_choose_for_themselves_and_the_joint_model_for_all():
    def tried(method, value, mean, **own):
        details = dict.fromkeys(NAMES, mean) | {name.replace("_", " "): own[name] for name in own}
        return Tried(method, value, mean, mean, [], details)

    candidates = [
        tried(JOINT, "a", 0.2, organisation_1=0.9),
        tried(JOINT, "b", 0.3, organisation_1=0.1),
        tried(alone(NAMES[0]), "a", 0.1, organisation_1=0.5),
        tried(alone(NAMES[0]), "b", 0.2, organisation_1=0.4),
    ]
    chosen = experiment.choose(candidates)
    assert {method: one.value for method, one in chosen.items()} == {JOINT: "b", alone(NAMES[0]): "a"}
    assert all(any(one is candidate for candidate in candidates) for one in chosen.values())


@pytest.fixture
def study():
    """A joint model at 12 % everywhere; organisations at 10 % of all, the last at 11 %, and 12 to 9 % of their own."""
    runs = []
    for seed in (0, 1):
        off = 0.01 * (-1) ** seed  # seeds differ, their mean does not
        runs.append(Run(JOINT, "", seed, 0.12 + off, 0.2, 1, 1.0, [], dict.fromkeys(NAMES, 0.12 + off)))
        for name in NAMES:
            details = dict.fromkeys(NAMES, 0.1) | {name: 0.12 if name == NAMES[0] else 0.08 + off}
            mean = 0.11 if name == NAMES[-1] else 0.1
            runs.append(Run(alone(name), "", seed, mean, 0.2, 1, 1.0, [], details))
    return Study([], runs)


def test_gains_are_shares_of_the_mean_the_best_and_the_own_model(study):
    assert experiment.figures(study) == pytest.approx(
        {
            "gain_over_mean": 0.12 / (0.81 / 8) - 1,
            "gain_over_best": 0.12 / 0.11 - 1,
            "gain_over_own": 8 * 0.12 / (0.12 + 7 * 0.08) - 1,
            "organisations_that_gain": 7,
        }
    )


def test_the_table_sets_each_own_model_beside_the_joint_one_there(study):
    own, joint = experiment.columns(study).values()
    assert own[alone(NAMES[1])] == "8.00"
    assert joint[alone(NAMES[1])] == "12.00"
    assert JOINT not in own


def test_settings_are_grids_of_nine_methods():
    methods = [setting.method for setting in experiment.settings(rounds=7, quick=True)]
    assert list(dict.fromkeys(methods)) == [JOINT, *map(alone, NAMES)]
    full = [setting.method for setting in experiment.settings(rounds=7, quick=False)]
    assert {full.count(method) for method in full} == {3}
