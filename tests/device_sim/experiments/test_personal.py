"""Personalisation: earlier messages train, later ones are asked, and the shared model is trained once."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.device_sim.experiments.personal import GRIDS, SHARED, Earlier, Personal, figures, settings
from kbdfl.device_sim.experiments.study import Run, Study, Tried
from kbdfl.device_sim.personal import FineTune
from kbdfl.errors import DataError

STRONG = FineTune(learning_rate=3.0, epochs=10)


def trained(data, rule, seed=1):
    return Personal("a", "", rule, rounds=1, quick=True).train(data, seed=seed, workers=1)


@pytest.fixture
def habit(data, make_texts):
    """Users whose later messages repeat the earlier ones; and one who is silent."""
    part = data.validation
    said = {f"user{number}": ["see you now"] * 40 for number in range(2)} | {"silent": ["hello"]}
    return replace(part, users=tuple(said), source=make_texts(said))


def test_a_user_with_habits_gains_and_the_model_as_it_came_changes_nothing(data, habit):
    plain, own = trained(data, None), trained(data, STRONG)
    assert own.models[0] is plain.models[0]  # trained once
    assert own.recall(habit)["recall_top1"] > 0.9
    assert own.recall(habit)["recall_top3"] > plain.recall(habit)["recall_top3"]
    assert own.details(habit) == {"users": 2, "worse": 0.0, "better": 1.0}
    assert plain.details(habit) == {"users": 2, "worse": 0.0, "better": 0.0}


def test_later_messages_do_not_train(data, habit, make_texts):
    """What is only said later stays unknown."""
    said = {"user0": ["see you now"] * 28 + ["thank people again"] * 12}
    changed = replace(habit, users=("user0",), source=make_texts(said))
    assert trained(data, STRONG).recall(changed)["recall_top1"] < 0.1


def test_nobodys_later_messages_train_the_shared_model(data, make_texts):
    said = {user: ["see you now"] * 28 for user in data.population.users}
    later = {user: [*texts, *["thank people again"] * 12] for user, texts in said.items()}
    same = {user: [*texts, *["see you now"] * 12] for user, texts in said.items()}
    one, other = (
        trained(replace(data, held_out=replace(data.held_out, source=make_texts(texts))), None)
        for texts in (later, same)
    )
    np.testing.assert_array_equal(one.models[0], other.models[0])


def test_earlier_messages_are_a_share_of_those_that_a_phone_keeps(make_texts):
    texts = [f"message {number}" for number in range(1_400)]
    earlier = Earlier(make_texts({"user0": texts})).messages("user0")
    assert [message.text for message in earlier] == texts[400:1_100]


def test_the_shared_model_starts_from_public_text_if_there_is_any(data, habit, make_texts):
    text = make_texts({f"anyone{number}": ["see you now"] * 1_000 for number in range(30)})
    with_it, without = (trained(one, None).recall(habit) for one in (replace(data, public=text), data))
    assert with_it["recall_top3"] > without["recall_top3"] + 0.3


def test_training_users_are_asked_behind_held_out_ones(data, make_texts):
    texts = ["see you now"] * 40
    said = dict.fromkeys(data.population.users, texts) | {"judge": texts, "silent": ["hello"]}
    part = replace(data.held_out, users=("silent", "judge"), source=make_texts(said))
    asked = replace(data, held_out=part)
    assert trained(asked, None).details(part)["users"] == 30  # as many as --quick asks at most
    assert trained(asked, None).details(replace(part, users=("judge",)))["users"] == 1


def test_users_with_few_messages_are_not_asked(data, habit):
    few = replace(habit, users=("silent",))
    with pytest.raises(DataError, match="no user outside training has 20 messages"):
        trained(data, None).recall(few)


def test_the_gain_is_that_of_the_rule_which_validation_users_chose():
    validation = dict.fromkeys(GRIDS, 0.1) | {"Ditto": 0.2}
    held_out = dict.fromkeys(GRIDS, 0.3) | {"Ditto": 0.25, SHARED: 0.2}
    tried = [Tried(method, "", top1, top1, [], {}, chosen=True) for method, top1 in validation.items()]
    runs = [
        Run(method, "", seed, top1, top1, 1, 1.0, [], {"worse": 0.1 * seed})
        for method, top1 in held_out.items()
        for seed in (1, 3)
    ]
    assert figures(Study(tried, runs)) == pytest.approx(
        {
            "relative_gain": 0.25,
            "relative_gain_fine_tuned": 0.5,
            "relative_gain_ditto": 0.25,
            "relative_gain_private_output_bias": 0.5,
            "users_worse": 0.2,
        }
    )


def test_every_rule_is_a_row_with_its_grid():
    methods = [setting.method for setting in settings(rounds=1, quick=False)]
    assert list(dict.fromkeys(methods)) == [SHARED, *GRIDS]
    assert all(methods.count(method) == len(grid) for method, grid in GRIDS.items())
