"""Who becomes a phone, who is held out, and that the two never meet."""

import pytest

from kbdfl.device_sim.population import (
    HELD_OUT_MESSAGES,
    MOST_DEVICES,
    Population,
    held_out_sentences,
    held_out_users,
    open_logs,
)
from kbdfl.device_sim.store import Retention
from kbdfl.device_sim.typing.sources import is_held_out
from kbdfl.errors import ConfigError, DataError


def named(held_out, count):
    return [f"u{i}" for i in range(1000) if is_held_out(f"u{i}") == held_out][:count]


def test_training_and_held_out_users_are_all_and_never_meet(texts):
    population, held_out = Population(texts), held_out_users(texts)
    assert set(population.users) | set(held_out) == set(texts.users())
    assert not set(population.users) & set(held_out)
    assert len(population) == len(population.users)


def test_devices_takes_the_first_training_users_in_the_sources_order(texts):
    every = Population(texts).users
    assert Population(texts, devices=5).users == every[:5]
    assert Population(texts, devices=len(every)).users == every


def test_more_devices_than_training_users_are_refused(texts):
    many = len(Population(texts)) + 1
    with pytest.raises(ConfigError, match=f"at most the {many - 1} training users of texts, got {many}"):
        Population(texts, devices=many)


def test_a_source_of_one_kind_of_user_is_refused_by_name(make_texts):
    with pytest.raises(DataError, match="texts has no training users"):
        Population(make_texts({user: ["hi"] for user in named(True, 3)}))
    with pytest.raises(DataError, match="texts has no held-out users"):
        held_out_users(make_texts({user: ["hi"] for user in named(False, 3)}))
    with pytest.raises(DataError):
        Population(make_texts({}))


def test_a_log_is_filled_when_first_asked_for_and_then_kept(make_texts):
    asked = []

    class Counting(make_texts):
        def messages(self, user, **options):
            asked.append(user)
            return super().messages(user, **options)

    users = named(False, 3)
    population = Population(Counting({user: ["see you", "later"] for user in users}), retention=Retention(1))
    assert asked == []
    log = population.log(users[1])
    assert population.log(users[1]) is log
    assert asked == [users[1]]
    assert [m.text for m in log.messages] == ["later"]  # the retention is the phone's


def test_texts_are_every_training_message_and_no_other(texts):
    population = Population(texts, devices=7)
    expected = [text for user in population.users for text in texts.texts[user]]
    assert list(population.texts()) == expected


@pytest.mark.parametrize("devices", [1, 5, 60, 1000])
def test_personas_are_enough_for_the_devices_and_some_to_measure_on(devices):
    source = open_logs("personas", seed=3, devices=devices)
    assert len(Population(source, devices=devices)) == devices
    assert len(held_out_users(source)) >= 5


@pytest.mark.parametrize("devices", [-1, MOST_DEVICES + 1, 10**30])
def test_impossible_numbers_of_devices_are_refused_at_once(devices):
    with pytest.raises(ConfigError, match="devices must lie in"):
        open_logs("personas", seed=1, devices=devices)


def test_held_out_sentences_are_about_as_many_words_as_asked_for(texts, vocabulary):
    everything = held_out_sentences(texts, vocabulary, words=10**9, seed=1)
    total = sum(len(ids) - 2 for ids in everything)
    users = held_out_users(texts)
    assert total == sum(len(vocabulary.split(text)) for user in users for text in texts.texts[user])
    some = held_out_sentences(texts, vocabulary, words=total // 2, seed=1)
    most = max(sum(len(vocabulary.split(t)) for t in texts.texts[user]) for user in users)
    assert total // 2 <= sum(len(ids) - 2 for ids in some) <= total // 2 + most
    assert some == held_out_sentences(texts, vocabulary, words=total // 2, seed=1)
    assert any(
        some != held_out_sentences(texts, vocabulary, words=total // 2, seed=seed) for seed in range(2, 8)
    )


def test_one_held_out_user_is_not_the_measurement(make_texts, vocabulary):
    (user,) = named(True, 1)
    source = make_texts({user: ["see you"] * (HELD_OUT_MESSAGES + 50)})
    assert len(held_out_sentences(source, vocabulary, words=10**9, seed=1)) == HELD_OUT_MESSAGES


def test_held_out_users_can_be_bounded(texts):
    assert held_out_users(texts, at_most=2) == held_out_users(texts)[:2]
