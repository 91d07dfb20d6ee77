"""Every way to train: its bytes follow from the seed alone, it learns, and it counts its tokens."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments.data import Selected
from kbdfl.device_sim.experiments.settings import Alone, Central, Federated, Trained
from kbdfl.device_sim.population import Population
from kbdfl.device_sim.typing.sources import open_source
from kbdfl.errors import DataError
from kbdfl.run import RunConfig, Settings, build_task

FEDERATED = Federated("federated", "rate .03", Algorithm(server=FedAdam(0.03)), rounds=3)
CENTRAL = Central("central", "rate .01", learning_rate=0.01, epochs=0.2)
ALONE = Alone("alone", "2 epochs", ClientRule(epochs=2), devices=3)


def start(data, seed):
    return build_task(RunConfig(Settings(seed=seed, preset=data.preset)))


@pytest.mark.parametrize("setting", [FEDERATED, CENTRAL, ALONE], ids=lambda setting: setting.method)
def test_workers_change_no_bit_and_the_seed_does(setting, data):
    one, two, other = (
        setting.train(data, seed=seed, workers=workers) for seed, workers in ((1, 1), (1, 3), (2, 1))
    )
    assert one.tokens == two.tokens > 0
    for model, same in zip(one.models, two.models, strict=True):
        np.testing.assert_array_equal(model, same)
    assert not np.array_equal(one.models[0], other.models[0])


def test_a_federated_setting_measures_validation_users_on_its_way(data):
    trained = FEDERATED.train(data, seed=1, workers=1)
    assert [point.rounds for point in trained.points] == [1, 2, 3]
    assert trained.points[-1].tokens == trained.tokens
    assert trained.curve(data.validation)[-1]["recall_top3"] == trained.recall(data.validation)["recall_top3"]


def test_central_training_learns_more_than_unigrams(data):
    trained = replace(CENTRAL, epochs=2.0).train(data, seed=1, workers=1)
    built = start(data, 1)
    untrained = Trained((built.params,), built.task.config, tokens=0, wall_s=0.0)
    assert (
        trained.recall(data.validation)["recall_top3"]
        > untrained.recall(data.validation)["recall_top3"] + 0.03
    )
    assert trained.points[-1].tokens == trained.tokens
    assert len(trained.points) == 5


def test_two_central_epochs_see_every_word_twice(data):
    users = data.population.users[:3]
    few = replace(
        data, population=Population(Selected(open_source("personas", seed=1, users=1_393), tuple(users)))
    )
    vocabulary = start(few, 1).vocabulary
    known = sum(
        token > 3 for user in users for sentence in few.population.log(user).sentences(vocabulary)
        for token in sentence[:31]
    )  # fmt: skip
    messages = sum(len(few.population.log(user).sentences(vocabulary)) for user in users)
    trained = Central("central", "", learning_rate=0.01, epochs=2.0, batch_size=messages).train(
        few, seed=1, workers=1
    )
    assert trained.tokens == 2 * known


def test_each_device_alone_has_a_model_of_its_own(data):
    trained = ALONE.train(data, seed=1, workers=2)
    assert len(trained.models) == 3
    assert len({model.tobytes() for model in trained.models}) == 3
    recalls = [Trained((model,), trained.config, 0, 0.0).recall(data.validation) for model in trained.models]
    mean = np.mean([found["recall_top1"] for found in recalls])
    assert trained.recall(data.validation)["recall_top1"] == pytest.approx(mean)


@pytest.mark.parametrize("setting", [CENTRAL, ALONE], ids=lambda setting: setting.method)
def test_logs_without_a_word_are_refused(setting, data, make_texts):
    silent = replace(
        data, population=Population(make_texts({f"user{number}": ["!!", "..."] for number in range(9)}))
    )
    with pytest.raises(DataError, match="no word to learn"):
        setting.train(silent, seed=1, workers=1)
