"""Keystrokes end in exactly the committed text, at the speed the study found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.device_sim.typing.keystrokes import (
    NEIGHBOURS,
    Typist,
    keystrokes,
    leave_typos,
    replay,
    typist,
    words_a_minute,
)
from kbdfl.device_sim.typing.records import BACKSPACE, Key
from kbdfl.rng import stream

CLUMSY = Typist(interval_s=0.2, spread=0.5, slip_rate=0.4, leave_rate=0.3)
SENTENCE = "the quick brown fox jumps over the lazy dog and sleeps until noon"


@given(st.text() | st.text("abcdefg hij", max_size=60), st.integers(0, 10**6))
def test_replaying_the_keys_gives_exactly_the_text(text, seed):
    keys = keystrokes(text, CLUMSY, stream(seed, "test"))
    assert replay(keys) == text
    assert all(len(key.key) == 1 or key.key == BACKSPACE for key in keys)


@given(st.text("abc de", min_size=1, max_size=40), st.integers(0, 10**6))
def test_times_start_at_zero_and_never_go_back(text, seed):
    times = [key.time for key in keystrokes(text, CLUMSY, stream(seed, "test"))]
    assert times[0] == 0.0
    assert times == sorted(times)


def test_a_slip_is_a_neighbouring_key_and_taken_back():
    keys = keystrokes(SENTENCE, CLUMSY, stream(1, "test"))
    field, slips = [], 0
    for key in keys:
        if key.key == BACKSPACE:
            field.pop()
            continue
        wanted = SENTENCE[len(field)]
        if "".join(field) == SENTENCE[: len(field)] and key.key != wanted:
            assert key.key in NEIGHBOURS[wanted]
            slips += 1
        field.append(key.key)
    assert slips >= 5


def test_a_steady_hand_needs_no_backspace():
    steady = Typist(interval_s=0.2, spread=0.1, slip_rate=0.0, leave_rate=0.0)
    assert [key.key for key in keystrokes("abc", steady, stream(1, "test"))] == ["a", "b", "c"]
    assert leave_typos(SENTENCE, steady, stream(1, "test")) == SENTENCE


def test_typos_that_stay_are_neighbours_at_the_stated_rate():
    hands, random, changed = Typist(0.2, 0.4, 0.0, 0.02), stream(3, "test"), 0
    for _ in range(2000):
        typed = leave_typos(SENTENCE, hands, random)
        assert len(typed) == len(SENTENCE)
        for got, meant in zip(typed, SENTENCE, strict=True):
            if got != meant:
                assert got in NEIGHBOURS[meant]
                changed += 1
    letters = sum(c.isalpha() for c in SENTENCE) * 2000
    assert changed / letters == pytest.approx(hands.leave_rate, rel=0.15)


def test_neighbours_are_mutual_and_near():
    assert set(NEIGHBOURS["g"]) == set("tyfhvb")
    assert all(a in NEIGHBOURS[b] for a, near in NEIGHBOURS.items() for b in near)


def test_the_mean_speed_is_that_of_the_study():
    random = stream(1, "test")
    speeds = []
    for _ in range(1500):
        hands = typist(random)
        speeds.append(words_a_minute(SENTENCE, keystrokes(SENTENCE, hands, random)))
    assert np.mean(speeds) == pytest.approx(36.2, abs=1.5)
    assert 8 < np.std(speeds) < 18  # users differ


def test_intervals_within_words_are_log_normal():
    hands = Typist(interval_s=0.2, spread=0.4, slip_rate=0.0, leave_rate=0.0)
    times = np.array([key.time for key in keystrokes("ab" * 4000, hands, stream(1, "test"))])
    logs = np.log(np.diff(times))
    assert np.exp(np.median(logs)) == pytest.approx(0.2, rel=0.03)
    assert logs.std() == pytest.approx(0.4, rel=0.05)


def test_backspace_in_an_empty_field_does_nothing():
    assert replay((Key(BACKSPACE, 0.0), Key("a", 0.1))) == "a"
    assert keystrokes("", CLUMSY, stream(1, "test")) == ()
