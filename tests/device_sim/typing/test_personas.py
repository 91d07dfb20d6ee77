"""Personas: lazy, reproducible, different from each other, neither noise nor a template."""

import time
from datetime import UTC, datetime

import numpy as np
import pytest

from kbdfl.device_sim.typing import grammar
from kbdfl.device_sim.typing.lexicon import TOPICS
from kbdfl.device_sim.typing.personas import PersonaNames, Personas
from kbdfl.device_sim.typing.schedule import APPS, START_S, sessions
from kbdfl.device_sim.typing.sources import is_held_out
from kbdfl.device_sim.typing.writer import CAPITALS, DIALECT_WORDS, STYLES, plural
from kbdfl.errors import ConfigError
from kbdfl.ngram import Trigram, own_unigram_bits_saved
from kbdfl.rng import stream
from kbdfl.text import public_vocabulary

DAYS = 28


@pytest.fixture(scope="module")
def logs():
    source = Personas(seed=1, users=300, days=DAYS)
    return {user: source.messages(user) for user in source.users()}


@pytest.fixture(scope="module")
def words(logs):
    vocabulary, _ = public_vocabulary(10_000)
    return {user: [vocabulary.split(m.text) for m in messages] for user, messages in logs.items()}


def test_a_users_own_unigrams_save_at_least_a_fifth_of_a_bit(words):
    assert own_unigram_bits_saved({u: w[:200] for u, w in words.items()}) >= 0.2


def test_a_trigram_of_other_users_is_right_between_10_and_30_percent(words):
    trigram = Trigram.train(m for u in words if not is_held_out(u) for m in words[u])
    top1 = trigram.recall(m for u in words if is_held_out(u) for m in words[u][:200])["top1"]
    assert 0.10 <= top1 <= 0.30


def test_most_words_are_in_the_public_vocabulary_and_there_are_many(words):
    vocabulary, _ = public_vocabulary(10_000)
    known = set(vocabulary.tokens)
    tokens = [word for user in words.values() for message in user for word in message]
    assert np.mean([word in known for word in tokens]) > 0.93
    assert len(set(tokens) & known) > 1000


def test_messages_are_diverse(logs):
    texts = [m.text for messages in logs.values() for m in messages]
    assert len(set(texts)) > 0.75 * len(texts)


def test_a_million_users_cost_nothing_until_asked():
    start = time.perf_counter()
    users = Personas(seed=1, users=1_000_000_000).users()
    assert (len(users), users[17], users[-1]) == (1_000_000_000, "persona-0000017", "persona-999999999")
    assert "persona-0000017" in users
    assert time.perf_counter() - start < 0.1


def test_a_user_is_the_same_whoever_else_there_is():
    few, many = Personas(seed=3, users=5), Personas(seed=3, users=10**6)
    assert few.messages("persona-0000004") == many.messages("persona-0000004")
    assert few.messages("persona-0000004") != few.messages("persona-0000003")
    assert few.messages("persona-0000004") != Personas(seed=4, users=5).messages("persona-0000004")


def test_names_are_a_sequence_of_exactly_these():
    names = PersonaNames(3)
    assert list(names) == list(names[:]) == ["persona-0000000", "persona-0000001", "persona-0000002"]
    assert names[::-1] == ("persona-0000002", "persona-0000001", "persona-0000000")
    for stranger in ("persona-0000003", "persona-2", "persona-٣", "persona-", "ann", 1):
        assert stranger not in names
    for place in (3, -4):
        with pytest.raises(IndexError):
            names[place]


def test_amounts_are_heavy_tailed_and_nobody_is_silent(logs):
    amounts = np.sort([len(messages) for messages in logs.values()])
    assert amounts[0] >= 1
    assert 30 <= np.median(amounts) <= 80
    assert amounts[-len(amounts) // 10 :].sum() > 0.3 * amounts.sum()


def test_messages_are_in_order_within_the_days_and_in_known_apps(logs):
    for user, messages in logs.items():
        times = [m.time for m in messages]
        assert times == sorted(times)
        assert times[0] >= START_S
        assert times[-1] < START_S + (DAYS + 1) * 86_400
        assert {m.app for m in messages} <= set(APPS)
        assert {m.user for m in messages} == {user}
        assert all(m.text.strip() == m.text != "" for m in messages)


def test_people_sleep_at_night(logs):
    hours = np.array([datetime.fromtimestamp(m.time, UTC).hour for ms in logs.values() for m in ms])
    night, evening = np.isin(hours, (3, 4)).mean(), np.isin(hours, (19, 20)).mean()
    assert evening > 8 * night


@pytest.mark.parametrize("days", [1, 400])
def test_sessions_hold_every_message_once_whatever_the_days(days):
    for user in range(50):
        planned = sessions(days, STYLES[user % 4], stream(user, "test"))
        assert all(session.times == tuple(sorted(session.times)) and session.times for session in planned)


def test_some_typos_stay_and_capitals_follow_the_style(logs):
    vocabulary, _ = public_vocabulary(20_000)
    assert any(m.text[0].isupper() for ms in logs.values() for m in ms)
    lexicon = set(vocabulary.tokens)
    odd = {w for ms in list(logs.values())[:60] for m in ms for w in vocabulary.split(m.text)} - lexicon
    assert len(odd) > 50
    assert set(CAPITALS) == set(STYLES)


def test_every_slot_of_every_frame_is_filled():
    frames = (*grammar.STATEMENTS, *grammar.QUESTIONS, *grammar.REPLIES, *grammar.SEARCHES, *grammar.NOTES)
    text = " ".join(
        m.text for u in range(40) for m in Personas(seed=9, users=40).messages(f"persona-{u:07d}")
    )
    assert len(frames) > 150
    assert not set("{}|@^*~=_") & set(text.replace(":)", "").replace(";)", ""))


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_topic_has_enough_to_talk_about(topic):
    assert len(topic.acts) >= 8
    assert len(topic.qualities) >= 12
    assert len(topic.places) >= 6
    assert all(objects for *_, objects in topic.acts)


def test_dialects_spell_differently():
    assert DIALECT_WORDS["us"]["colour"] == "color"
    assert "colour" not in DIALECT_WORDS["uk"]


@pytest.mark.parametrize(
    ("one", "many"), [("bench", "benches"), ("city", "cities"), ("toy", "toys"), ("box", "boxes")]
)
def test_plural_is_english(one, many):
    assert plural(one) == many


@pytest.mark.parametrize("option", ["users", "days"])
def test_numbers_below_one_are_refused(option):
    with pytest.raises(ConfigError, match=f"{option} must be >= 1, got 0"):
        Personas(seed=1, **{option: 0})
