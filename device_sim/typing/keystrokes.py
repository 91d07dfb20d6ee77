"""Fingers on a phone's QWERTY: how fast they are, which key they miss, and whether anyone notices.

Speed follows Palin et al. 2019, "How do people type on mobile devices? Observations from a study with 37,000
volunteers" (MobileHCI): 36.2 words a minute on average (a word is five characters of committed text). The
intervals between keys are log-normal. Spread between users, pauses and typo rates are priors of our own,
stated in `typist`. A typo is a letter hit on a neighbouring key; most are noticed within three keys and
taken back.
"""

from dataclasses import dataclass

import numpy as np

from kbdfl.device_sim.typing.records import BACKSPACE, Key

_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))  # each row's shift in key widths


def _neighbours() -> dict[str, str]:
    place = {letter: (shift + x, y) for y, (row, shift) in enumerate(_ROWS) for x, letter in enumerate(row)}
    near: dict[str, str] = {}
    for letter, (x, y) in place.items():
        others = (
            o for o, (ox, oy) in place.items() if o != letter and abs(ox - x) <= 1.0 and abs(oy - y) <= 1
        )
        near[letter] = "".join(others)
        near[letter.upper()] = near[letter].upper()
    return near


NEIGHBOURS = _neighbours()


@dataclass(frozen=True, slots=True)
class Typist:
    """One user's hands.

    interval_s    median seconds between two keys of a word
    spread        standard deviation of the natural logarithm of that interval
    slip_rate     chance that a letter lands on a neighbouring key and is taken back
    leave_rate    chance that a letter lands on a neighbouring key and stays
    """

    interval_s: float
    spread: float
    slip_rate: float
    leave_rate: float


def typist(random: np.random.Generator) -> Typist:
    """Draw a user's hands from the prior.

    Interval: log-normal, median 0.253 s, sigma 0.3; with pauses and corrections that is 36 words a minute.
    Taken-back slips: Beta(2, 48), 4 % of letters; slips that stay: Beta(1, 399), 1 of 400 letters, well below
    the 2.3 % of the transcription study because here the phone corrects words too.
    """
    interval, spread = 0.253 * float(np.exp(0.3 * random.standard_normal())), float(random.uniform(0.35, 0.6))
    return Typist(interval, spread, float(random.beta(2, 48)), float(random.beta(1, 399)))


def leave_typos(text: str, hands: Typist, random: np.random.Generator) -> str:
    """`text` as it ends up when nobody looks: a few letters replaced by a neighbouring key's."""
    if not text or random.random() > 1.0 - (1.0 - hands.leave_rate) ** len(text):
        return text  # most messages: one draw and no scan; the rest have at least one typo
    slips = np.flatnonzero(random.random(len(text)) < hands.leave_rate)
    letters = list(text)
    for place in slips.tolist() or [int(random.integers(len(text)))]:
        near = NEIGHBOURS.get(letters[place])
        if near:
            letters[place] = near[int(random.integers(len(near)))]
    return "".join(letters)


def keystrokes(text: str, hands: Typist, random: np.random.Generator) -> tuple[Key, ...]:
    """Key presses that end in exactly `text`: see `replay`. The first is at 0 seconds, times never go back.

    A letter may land on a neighbouring key; zero to three characters later the user notices, takes everything
    back to the slip and types it again. An empty text takes no keys.
    """
    if not text:
        return ()
    keys = _presses(text, hands, random)
    pauses = hands.interval_s * np.exp(hands.spread * random.standard_normal(len(keys)))
    slower = [_slower(key, before) for key, before in zip(keys, ["", *keys[:-1]], strict=True)]
    times = np.cumsum(pauses * np.array(slower, float)).round(3)
    times -= times[0]
    return tuple(Key(key, time) for key, time in zip(keys, times.round(3).tolist(), strict=True))


def _presses(text: str, hands: Typist, random: np.random.Generator) -> list[str]:
    keys: list[str] = []
    slipped = random.random(len(text)) < hands.slip_rate
    place = 0
    for slip in np.flatnonzero(slipped).tolist():
        near = NEIGHBOURS.get(text[slip])
        if slip < place or not near:
            continue
        keys += text[place:slip]
        late = min(int(random.integers(4)), len(text) - slip - 1)
        keys.append(near[int(random.integers(len(near)))])
        keys += text[slip + 1 : slip + 1 + late]
        keys += [BACKSPACE] * (late + 1)
        keys += text[slip : slip + late + 1]
        place = slip + late + 1
    keys += text[place:]
    return keys


def _slower(key: str, before: str) -> float:
    """How many times longer than within a word a key takes: thinking, another page of keys, a double tap."""
    if key == BACKSPACE:
        return 2.0 if before != BACKSPACE else 0.6  # the pause in which the slip is noticed, then quick taps
    if before == " ":
        return 1.5
    if key == before:
        return 0.7
    return 1.0 if key.isalpha() or key == " " else 1.8


def replay(keys: tuple[Key, ...]) -> str:
    """The text that stands in the field after these presses."""
    text: list[str] = []
    for press in keys:
        if press.key != BACKSPACE:
            text.append(press.key)
        elif text:
            text.pop()
    return "".join(text)


def words_a_minute(text: str, keys: tuple[Key, ...]) -> float:
    """Entry speed as studies state it: five characters are a word, from the first key to the last."""
    seconds = keys[-1].time if keys else 0.0
    return (len(text) - 1) / 5 * 60 / seconds if seconds > 0 else 0.0
