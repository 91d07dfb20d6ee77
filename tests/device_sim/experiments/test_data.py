"""Who trains, who chooses and who judges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.device_sim.experiments.data import is_validation, open_data
from kbdfl.device_sim.typing.sources import is_held_out, open_source
from kbdfl.errors import ConfigError, DataError


@given(st.text(max_size=20))
def test_nobody_both_validates_and_judges(user):
    assert not (is_validation(user) and is_held_out(user))


def test_a_tenth_validates_and_names_alone_decide():
    names = [f"user{number}" for number in range(20_000)]
    assert 0.09 < sum(map(is_validation, names)) / len(names) < 0.11
    # Fixed for good: another split would make published figures mean something else.
    assert [number for number in range(60) if is_validation(f"user{number}")] == [14, 22, 52]


def test_phones_are_the_users_who_neither_validate_nor_judge():
    data = open_data("personas", preset_name="tiny", seed=3, words=600)
    source = open_source("personas", seed=3, users=1_393)
    assert list(data.population.users) == [
        user for user in source.users() if not is_held_out(user) and not is_validation(user)
    ]
    parts = (data.population.users, data.validation.users, data.held_out.users)
    assert sum(map(len, parts)) == len(source.users()) == len(set().union(*parts))


def test_words_are_drawn_of_validation_and_held_out_users(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = []
    for number in range(60):
        user = f"user{number}"
        text = "good" if is_held_out(user) else "bad bad" if is_validation(user) else "the the the"
        lines.append(f'{{"user": "{user}", "text": "{text}"}}\n')
    log.write_text("".join(lines))
    data = open_data(str(log), preset_name="tiny", seed=1, words=1_000)
    assert data.held_out.words.steps.max() == 1
    assert data.validation.words.steps.max() == 2


def test_a_source_without_validation_users_is_refused(tmp_path):
    log = tmp_path / "log.jsonl"
    names = [f"user{n}" for n in range(60) if not is_validation(f"user{n}")]
    log.write_text("".join(f'{{"user": "{name}", "text": "hello you"}}\n' for name in names))
    with pytest.raises(DataError, match="no users for validation"):
        open_data(str(log), preset_name="tiny", seed=1, words=100)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match="preset must be one of"):
        open_data("personas", preset_name="huge", seed=1, words=100)
