"""LEAF's JSON (Caldas et al. 2018, arXiv 1812.01097): `{"user_data": {user: {"x": [...], "y": [...]}}}` and more.

What a sample `x` is depends on the data set: a text (as `kbdfl data export` writes, with the time in `y`), a list of
words (Stack Overflow), a list of such lists (Reddit, with `<BOS>`, `<EOS>` and `<PAD>`), the fields of a tweet
(Sent140), or a window over a play that moves by a character (Shakespeare), of which only windows that do not overlap
are kept.
"""

from dataclasses import replace
from typing import Any

from kbdfl.device_sim.typing.imports.dates import when
from kbdfl.device_sim.typing.imports.items import (
    NO_TEXT,
    Item,
    Items,
    Malformed,
    Options,
    Skipped,
    others_of,
)
from kbdfl.device_sim.typing.imports.jsonstream import Found, Keys, parts
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.device_sim.typing.records import Message

_NO_WORDS = {"<BOS>", "<EOS>", "<PAD>"}
_OVERLAPPING = Skipped("overlaps the window before it")
SHORTEST_WINDOW = (
    8  # characters; Shakespeare's have 80, and messages of two, "no" and "ok", easily seem to overlap
)
MOST_WAITING = 50_000  # samples of a user that wait for their labels, which stand behind all of them


def wanted(keys: Keys, scalar: bool) -> bool:
    """Samples and their labels; and what stands where a user's object or list of samples should."""
    if not keys or keys[0] != "user_data":
        return False
    if len(keys) == 4:
        return keys[2] in ("x", "y") and keys[3] is None
    return scalar and (len(keys) == 2 or (len(keys) == 3 and keys[2] == "x"))


def read_leaf(file: Opened, options: Options) -> Items:
    """Yield the users' samples as messages. A label that is an object with a "time" gives its sample's time.

    Of a user with more than `MOST_WAITING` samples, only the last so many at most get a time.
    """
    user, window = None, _Window()
    users = samples = 0
    waiting: list[Item] = []
    first = label = 0  # numbers of the first sample that waits, and of the next label
    for part in parts(file, wanted):
        if isinstance(part, Malformed):
            yield part
            continue
        if part.keys[1] != user:
            yield from waiting
            user, window, waiting, first, label = part.keys[1], _Window(), [], 0, 0
            users, samples = users + 1, 0
        if len(part.keys) < 4:
            yield Malformed(part.line, "a user's samples are no list")
        elif part.keys[2] == "x":
            if len(waiting) == MOST_WAITING:
                yield from waiting
                first, waiting = first + len(waiting), []
            samples += 1
            item = _sample(part, str(user), options, window)
            if isinstance(item, Malformed):  # a file may be one line, so that lines say little
                item = Malformed(item.line, f"{item.reason}: number {samples} of user {users}")
            waiting.append(item)
        else:
            place = label - first
            label += 1
            if 0 <= place < len(waiting) and isinstance(part.value, dict) and "time" in part.value:
                waiting[place] = _timed(waiting[place], part, options)
    yield from waiting


def _sample(part: Found, user: str, options: Options, window: "_Window") -> Item:
    if not user:
        return Malformed(part.line, "a user without a name")
    if options.me and not options.is_me(user):
        return others_of(user)
    text = _text(part.value)
    if text is None:
        return Malformed(part.line, "a sample is no text")
    if not text.strip():
        return NO_TEXT
    return _OVERLAPPING if window.overlaps(text) else Message(user, text)


def _timed(item: Item, label: Found, options: Options) -> Item:
    time = when(label.value["time"], options.zone)
    if not isinstance(item, Message) or label.value["time"] is None:
        return item
    return Malformed(label.line, "the time is none") if time is None else replace(item, time=time)


def _text(sample: Any) -> str | None:
    if isinstance(sample, str):
        return sample
    if not isinstance(sample, list):
        return None
    if len(sample) in (5, 6) and all(isinstance(field, str) for field in sample) and _is_tweet(sample):
        return sample[4]
    words: list[str] = []
    for each in sample:
        inside = each if isinstance(each, list) else [each]
        if not all(isinstance(word, str) for word in inside):
            return None
        words += (word for word in inside if word not in _NO_WORDS)
    return " ".join(words)


def _is_tweet(fields: list[str]) -> bool:
    """Number, date, query, user, text."""
    return fields[0].isdecimal() and len(fields[0]) >= 9 and ":" in fields[1]


class _Window:
    """Tells windows that move over a text by one character from texts of their own."""

    def __init__(self) -> None:
        self._last, self._steps = "", 0

    def overlaps(self, text: str) -> bool:
        """Whether `text` repeats all but the first character of the one before, and of the last one kept."""
        last = self._last
        moved = len(text) >= SHORTEST_WINDOW and text != last and text[:-1] == last[1:]
        self._last, self._steps = text, self._steps + 1 if moved else 0
        return self._steps % len(text) != 0
