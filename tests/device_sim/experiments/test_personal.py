"""Fine-tuning: the earlier messages train, the later ones are asked, and the shared model is trained once."""

from dataclasses import replace

import pytest

from kbdfl.algorithms import Algorithm
from kbdfl.device_sim.experiments.personal import FineTuned
from kbdfl.device_sim.experiments.settings import Federated
from kbdfl.errors import DataError

SHARED = Federated("shared", "", Algorithm(), rounds=1)


def setting(*, epochs, rate=1.0, users=2):
    return FineTuned("a", "", SHARED, rate, epochs, users)


@pytest.fixture
def habit(data, make_texts):
    """Users whose later messages repeat the earlier ones; and one who is silent."""
    part = data.validation
    said = {f"user{number}": ["see you now"] * 40 for number in range(2)} | {"silent": ["hello"]}
    return replace(part, users=tuple(said), source=make_texts(said))


def test_a_user_with_habits_gains_and_no_epochs_change_nothing(data, habit):
    plain = setting(epochs=0).train(data, seed=1, workers=1)
    tuned = setting(epochs=5, rate=3.0).train(data, seed=1, workers=1)
    assert tuned.models[0] is plain.models[0]  # trained once
    assert tuned.recall(habit)["recall_top3"] > plain.recall(habit)["recall_top3"]
    assert tuned.recall(habit)["recall_top1"] > 0.9


def test_later_messages_do_not_train(data, habit, make_texts):
    """What is only said later stays unknown."""
    said = {"user0": ["see you now"] * 28 + ["thank people again"] * 12}
    changed = replace(habit, users=("user0",), source=make_texts(said))
    assert setting(epochs=5, rate=3.0).train(data, seed=1, workers=1).recall(changed)["recall_top1"] < 0.1


def test_users_with_few_messages_are_not_asked(data, habit):
    few = replace(habit, users=("silent",))
    with pytest.raises(DataError, match="no user outside training has 20 messages"):
        setting(epochs=1).train(data, seed=1, workers=1).recall(few)
