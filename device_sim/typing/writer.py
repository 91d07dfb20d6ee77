"""A persona that writes: habits drawn once from stated priors, then messages rendered from the grammar."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import numpy as np

from kbdfl.device_sim.typing import grammar
from kbdfl.device_sim.typing.lexicon import TOPICS, Topic

T = TypeVar("T")
Frame = tuple[tuple[str, bool], ...]  # words and slots in turn; the flag says which it is
STYLES = ("formal", "plain", "casual", "texting")
STYLE_PRIOR = (0.15, 0.35, 0.3, 0.2)
DIALECTS = ("us", "uk", "au", "sc")
DIALECT_PRIOR = (0.45, 0.35, 0.12, 0.08)
DIALECT_WORDS: dict[str, dict[str, str]] = {
    "us": grammar.AMERICAN,
    "uk": {},
    "au": grammar.AUSTRALIAN,
    "sc": grammar.SCOTTISH,
}
# by style: the share of abbreviations a user adopts, of users who write capitals, who end with a full stop
ADOPTED = {"formal": 0.0, "plain": 0.02, "casual": 0.1, "texting": 0.4}
CAPITALS = {"formal": 1.0, "plain": 0.8, "casual": 0.4, "texting": 0.15}
FULL_STOPS = {"formal": 0.95, "plain": 0.6, "casual": 0.2, "texting": 0.05}
SMILES = ("", "", "", " :)", " 😂", " ❤️", " 👍", " xx", " 😊", " ;)")


def _frames(lines: Sequence[str]) -> tuple[Frame, ...]:
    return tuple(tuple((part.strip("{}"), part.startswith("{")) for part in line.split()) for line in lines)


_STATEMENTS, _QUESTIONS = _frames(grammar.STATEMENTS), _frames(grammar.QUESTIONS)
_REPLIES, _SEARCHES, _NOTES = map(_frames, (grammar.REPLIES, grammar.SEARCHES, grammar.NOTES))


class _Dice:
    """Uniform numbers one by one, drawn a thousand at a time: one draw from numpy costs a microsecond."""

    __slots__ = ("_left", "_random")

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._left: list[float] = []

    def roll(self) -> float:
        if not self._left:
            self._left = self._random.random(1024).tolist()
        return self._left.pop()

    def pick(self, items: Sequence[T]) -> T:
        return items[int(len(items) * self.roll())]

    def favour(self, items: Sequence[T], skew: float) -> T:
        """One of `items`, the earlier the likelier: place u^skew of the way, u uniform."""
        return items[int(len(items) * self.roll() ** skew)]


def _ranked(items: Sequence[T], random: np.random.Generator, *, agreement: float = 0.5) -> list[T]:
    """A user's own order of `items`: Plackett-Luce with weights rank^-agreement, so that tastes differ."""
    arrival = random.standard_exponential(len(items)) * np.arange(1, len(items) + 1) ** agreement
    return [items[i] for i in np.argsort(arrival).tolist()]


@cache
def _variants(style: str, dialect: str) -> dict[str, tuple[str, ...]]:
    """The variants of every choice that a style and a dialect allow."""
    found = {}
    for name, line in grammar.CHOICES.items():
        allowed = []
        for variant in line.split("|"):
            words, _, marked = variant.partition("@")
            bare = words.rstrip("*^")
            if marked and marked != dialect:
                continue
            if words.endswith("*") and style not in ("casual", "texting"):
                continue
            if words.endswith("^") and style not in ("formal", "plain"):
                continue
            allowed.append(bare)
        found[name] = tuple(allowed)
    return found


@cache
def _things(topic: Topic) -> tuple[str, ...]:
    """What can be the subject of "is": the objects without plurals and without those that take no article."""
    things = dict.fromkeys(thing for act in topic.acts for thing in act[3])
    return tuple(t for t in things if not t.startswith("=") and not (t.startswith("~") and t.endswith("s")))


class _TopicHabits:
    """One user's way of talking about one topic."""

    __slots__ = ("acts", "objects", "people", "places", "qualities")

    def __init__(self, topic: Topic, random: np.random.Generator) -> None:
        self.acts = _ranked(topic.acts, random, agreement=0.3)[:6]
        self.objects = _ranked(_things(topic), random, agreement=0.2)[:24]
        self.qualities = _ranked(topic.qualities, random, agreement=0.3)[:9]
        self.places = _ranked(topic.places, random, agreement=0.3)
        self.people = topic.people


class Writer:
    """One user's way of writing, drawn from the priors that are stated above and where they are drawn below.

    Who gets the same generator in the same state writes the same messages.
    """

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        dice = self._dice = _Dice(random)
        self.style = STYLES[int(random.choice(4, p=STYLE_PRIOR))]
        dialect = DIALECTS[int(random.choice(4, p=DIALECT_PRIOR))]
        # two to five topics, the first the dearest: shares fall like 1/rank
        self._own_topics: list[int] = random.permutation(len(TOPICS))[: 2 + int(4 * dice.roll())].tolist()
        self._topics: dict[int, _TopicHabits] = {}
        self._skew = 1.2 + 0.6 * dice.roll()  # how much a user repeats their favourites
        self._choices = {name: _ranked(v, random) for name, v in _variants(self.style, dialect).items()}
        self._statements = _ranked(_STATEMENTS, random, agreement=0.2)
        self._questions = _ranked(_QUESTIONS, random, agreement=0.2)
        self._replies = _ranked(_REPLIES, random, agreement=0.3)
        self._phrases = _ranked(grammar.PHRASES, random, agreement=0.0)[:4]
        self._feelings = _ranked(grammar.FEELINGS, random)[:16]
        self._qualities = _ranked(grammar.QUALITIES, random)[:16]
        self._when = _ranked(grammar.WHEN, random, agreement=0.3)
        self._then = _ranked(grammar.THEN, random, agreement=0.3)
        self._often = _ranked(grammar.OFTEN, random, agreement=0.3)
        self._names = _ranked(grammar.NAMES, random, agreement=0.3)[:7]
        self._relations = _ranked(grammar.RELATIONS, random)[:5]
        self._town = _ranked(grammar.TOWN, random, agreement=0.3)[:8]
        self._phrase_rate = 0.12 * dice.roll()
        self._question_rate = 0.1 + 0.25 * dice.roll()
        self._reply_rate = 0.1 + 0.25 * dice.roll()
        self._spelling = dict(DIALECT_WORDS[dialect])
        adopted = ADOPTED[self.style]
        self._spelling |= {word: short for word, short in grammar.TEXTING.items() if dice.roll() < adopted}
        self._capitals = dice.roll() < CAPITALS[self.style]
        if self._capitals:
            self._spelling |= grammar.PROPER
            self._names = [name.capitalize() for name in self._names]
        self._stop = "." if dice.roll() < FULL_STOPS[self.style] else ""
        self._exclaims = 0.3 * dice.roll() ** 2
        self._smile = dice.pick(SMILES)
        self._slots: dict[str, Callable[[], str]] = {
            "do": self._do,
            "did": self._did,
            "doing": self._doing,
            "x": self._thing_with_article,
            "thing": self._thing,
            "things": self._things,
            "q": self._quality,
            "q0": self._bare_quality,
            "at": self._place,
            "when": lambda: self._dice.favour(self._when, self._skew),
            "then": lambda: self._dice.favour(self._then, self._skew),
            "often": lambda: self._dice.favour(self._often, self._skew),
            "who": self._who,
            "whom": self._whom,
            "feel": lambda: self._dice.favour(self._feelings, self._skew).replace("_", " "),
            "name": lambda: self._dice.favour(self._names, self._skew),
            "num": lambda: self._dice.pick(grammar.NUMBERS).replace("_", " "),
            "hour": lambda: self._dice.pick(grammar.HOURS),
        }

    def open_session(self) -> None:
        """A session stays with one topic: mostly one of the user's own, one time in four any other."""
        dice = self._dice
        if dice.roll() < 0.25:
            number = dice.pick(range(len(TOPICS)))
        else:
            rank = int((len(self._own_topics) + 1) ** dice.roll()) - 1  # shares fall like 1/rank
            number = self._own_topics[min(rank, len(self._own_topics) - 1)]
        if number not in self._topics:
            self._topics[number] = _TopicHabits(TOPICS[number], self._random)
        self._topic = self._topics[number]

    def message(self, app: str) -> str:
        """One committed message, before typos."""
        if app == "search":
            return self._spelled(self._render(self._dice.pick(_SEARCHES)))
        if app == "notes":
            return self._dressed(self._render(self._dice.pick(_NOTES)), question=False)
        if app == "mail":
            lines = [self._dressed(f"{self._choice('hello')} {self._slots['name']()}", question=False)]
            lines += [self._sentence() for _ in range(1 + int(3 * self._dice.roll()))]
            closing = self._dice.pick(grammar.MAIL_CLOSINGS)
            return "\n".join([*lines, self._dressed(closing, question=False)])
        if self._dice.roll() < self._reply_rate:
            return self._dressed(self._render(self._dice.favour(self._replies, self._skew)), question=False)
        return self._sentence()

    def _sentence(self) -> str:
        dice = self._dice
        if dice.roll() < self._question_rate:
            body, question = self._render(dice.favour(self._questions, self._skew)), True
        else:
            body, question = self._render(dice.favour(self._statements, self._skew)), False
            if dice.roll() < 0.3:
                link = dice.favour(grammar.LINKS, 1.6)
                body = f"{body} {link} {self._render(dice.favour(self._statements, self._skew))}"
        if dice.roll() < 0.2:
            body = f"{self._choice('hello')} {body}"
        elif dice.roll() < 0.12:
            body = (
                f"{body} {self._slots['name']()}" if dice.roll() < 0.5 else f"{body} {self._choice('laugh')}"
            )
        if dice.roll() < self._phrase_rate:
            body = f"{body} {dice.favour(self._phrases, self._skew)}"
        return self._dressed(body, question=question)

    def _render(self, frame: tuple[tuple[str, bool], ...]) -> str:
        slots = self._slots
        words = []
        for part, is_slot in frame:
            if not is_slot:
                words.append(part)
            else:
                fill = slots.get(part)
                words.append(fill() if fill is not None else self._choice(part))
        return " ".join(words)

    def _spelled(self, text: str) -> str:
        own = self._spelling
        return " ".join([own.get(word, word) for word in text.split(" ")])

    def _dressed(self, text: str, *, question: bool) -> str:
        """Spelling, capitals and the end of a sentence, as this user has them."""
        text = self._spelled(text)
        if self._capitals:
            text = text[:1].upper() + text[1:]
        roll = self._dice.roll()
        if question:
            end = "?" if self._stop or roll < 0.5 else ""
        else:
            end = "!" if roll < self._exclaims else self._stop
        return text + end + (self._smile if roll > 0.85 else "")

    def _choice(self, name: str) -> str:
        return self._dice.favour(self._choices[name], 2.5)

    def _act(self) -> tuple[tuple[str, str, str, tuple[str, ...]], str]:
        act = self._dice.favour(self._topic.acts, self._skew)
        noun = self._with_article(self._dice.favour(act[3], 1.3))
        return act, noun

    def _do(self) -> str:
        act, noun = self._act()
        return f"{act[0]} {noun}"

    def _did(self) -> str:
        act, noun = self._act()
        return f"{act[1]} {noun}"

    def _doing(self) -> str:
        act, noun = self._act()
        return f"{act[2]} {noun}"

    def _with_article(self, noun: str) -> str:
        dice, kind = self._dice, noun[0]
        bare = noun.lstrip("~=").replace("_", " ")
        if kind == "=":
            return bare
        adjective = ""
        if dice.roll() < 0.2:
            adjective = self._bare_quality() + " "
        if kind == "~":
            article = "" if dice.roll() < 0.35 else dice.favour(grammar.MASS_DETERMINERS, 1.5) + " "
        else:
            article = dice.favour(grammar.DETERMINERS, 1.3) + " "
            if article.endswith("a "):
                article = article[:-1] + ("n " if (adjective or bare)[0] in "aeiou" else " ")
        return f"{article}{adjective}{bare}"

    def _thing(self) -> str:
        return self._dice.favour(self._topic.objects, 1.3).lstrip("~=").replace("_", " ")

    def _things(self) -> str:
        noun = self._dice.favour(self._topic.objects, 1.3)
        bare = noun.lstrip("~=").replace("_", " ")
        return bare if noun[0] == "~" else plural(bare)

    def _thing_with_article(self) -> str:
        noun = self._with_article(self._dice.favour(self._topic.objects, 1.3))
        return f"{noun} from {self._slots['name']()}" if self._dice.roll() < 0.08 else noun

    def _bare_quality(self) -> str:
        own = self._topic.qualities if self._dice.roll() < 0.5 else self._qualities
        return self._dice.favour(own, 1.4).replace("_", " ")

    def _quality(self) -> str:
        quality = self._bare_quality()
        return f"{self._choice('int')} {quality}" if self._dice.roll() < 0.3 else quality

    def _place(self) -> str:
        return self._dice.favour(self._topic.places if self._dice.roll() < 0.45 else self._town, self._skew)

    def _who(self) -> str:
        roll = self._dice.roll()
        if roll < 0.35:
            return self._dice.favour(self._names, self._skew)
        if roll < 0.7:
            return self._dice.favour(self._relations, self._skew)
        if roll < 0.85:
            return self._dice.pick(("he", "she"))
        return "the " + self._dice.pick(self._topic.people)

    def _whom(self) -> str:
        who = self._who()
        return {"he": "him", "she": "her"}.get(who, who)


def plural(noun: str) -> str:
    """The plural of a regular English noun."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"
