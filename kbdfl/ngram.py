"""Counting baselines: a back-off trigram that suggests the next word, and how far users' words are their own.

    >>> model = Trigram.train([["see", "you", "soon"], ["see", "you", "later"], ["see", "him", "later"]])
    >>> model.suggest(["see"], 2)
    ['you', 'him']

The back-off is Brants et al. 2007, "Large language models in machine translation" ("stupid back-off"), for
ranking alone: words seen after the last two words by count, then those seen after the last one, then the most
frequent of all, until k distinct words are found; ties go to the word that is more frequent in all. A message
begins in its own begin-of-message context.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from math import log2

import numpy as np

from kbdfl.errors import ConfigError, DataError


class _Ranked:
    """For every context (a whole number) the words seen after it, most frequent first, ties by lower id."""

    def __init__(self, contexts: np.ndarray, words: np.ndarray, size: int) -> None:
        pairs, counts = np.unique(contexts * size + words, return_counts=True)
        context, word = pairs // size, pairs % size
        self._words = word[np.lexsort((word, -counts, context))]
        distinct, first = np.unique(context, return_index=True)
        ends = np.append(first[1:], len(context))
        self._spans = dict(
            zip(distinct.tolist(), zip(first.tolist(), ends.tolist(), strict=True), strict=True)
        )

    def after(self, context: int) -> np.ndarray:
        """The words seen after `context`, best first, int64 (K,)."""
        start, end = self._spans.get(context, (0, 0))
        return self._words[start:end]


class Trigram:
    """A back-off trigram over a closed vocabulary. Make one with `Trigram.train`; it never changes."""

    def __init__(self, words: tuple[str, ...], after_two: _Ranked, after_one: _Ranked) -> None:
        self.words = words  # most frequent first; a word's place is its id
        self.ids = {word: i for i, word in enumerate(words)}
        self._unknown, self._begin = len(words), len(words) + 1
        self._after_two, self._after_one = after_two, after_one
        self._best: dict[tuple[int, int], tuple[int, ...]] = {}

    @classmethod
    def train(
        cls,
        messages: Iterable[Sequence[str]],
        *,
        vocabulary: int = 10_000,
        words: Sequence[str] | None = None,
    ) -> "Trigram":
        """Count `messages` (lists of words); only the `vocabulary` most frequent words are ever suggested.

        With `words` these are known and no others, whatever `vocabulary` says: a trigram that is compared with
        a model then predicts from the model's own vocabulary. Of equally frequent ones the first in `words`
        comes first. Other words share one "unknown" place in contexts.
        Raises DataError when there is no word at all.
        """
        if vocabulary < 1:
            raise ConfigError(f"the vocabulary of a trigram must be >= 1, got {vocabulary}")
        texts = [message for message in messages if message]
        if not texts:
            raise DataError("a trigram needs at least one message with a word, got none")
        counts = Counter(word for text in texts for word in text)
        words = _by_frequency(counts, words) if words is not None else _by_frequency(counts)[:vocabulary]
        unknown, begin, size = len(words), len(words) + 1, len(words) + 2
        ids = {word: i for i, word in enumerate(words)}
        flat: list[int] = []
        for text in texts:
            flat += (begin, begin)
            flat += [ids.get(word, unknown) for word in text]
        stream = np.array(flat, np.int64)
        targets = np.flatnonzero(stream < unknown)
        word, one, two = stream[targets], stream[targets - 1], stream[targets - 2]
        return cls(words, _Ranked(two * size + one, word, size), _Ranked(one, word, size))

    def suggest(self, context: Sequence[str], k: int = 3) -> list[str]:
        """The k most likely next words after `context`, the words of this message so far (may be empty)."""
        return [self.words[i] for i in self._top(*self._last_two(context), k)]

    def recall(self, messages: Iterable[Sequence[str]]) -> dict[str, float]:
        """`top1` and `top3`: the share of all words that were the first, or among the three, suggestions.

        Every word of every message is a target and a word outside the vocabulary is a miss.
        Raises DataError when there is no word to predict.
        """
        best, ids, unknown = self._best, self.ids, self._unknown
        targets = first = among = 0
        for message in messages:
            two = one = self._begin
            for word in message:
                target = ids.get(word, unknown)
                top = best.get((two, one))
                if top is None:
                    top = best[two, one] = self._top(two, one, 3)
                if target != unknown and target in top:
                    among += 1
                    first += top[0] == target
                two, one = one, target
            targets += len(message)
        if not targets:
            raise DataError("recall needs at least one word to predict, got none")
        return {"top1": first / targets, "top3": among / targets}

    def better(self, context: Sequence[str], word: str) -> np.ndarray | None:
        """The ids of all words that are suggested before `word` after `context`; None if it is unknown."""
        target = self.ids.get(word)
        if target is None:
            return None
        two, one = self._last_two(context)
        after_two, after_one = self._seen(two, one), self._after_one.after(one)
        if (place := np.flatnonzero(after_two == target)).size:
            return after_two[: place[0]]
        if (place := np.flatnonzero(after_one == target)).size:
            return _union(after_two, after_one[: place[0]])
        return _union(after_one, np.arange(target))  # what followed two words also followed the last of them

    def _last_two(self, context: Sequence[str]) -> tuple[int, int]:
        ids = [self._begin, self._begin, *(self.ids.get(word, self._unknown) for word in context[-2:])]
        return ids[-2], ids[-1]

    def _seen(self, two: int, one: int) -> np.ndarray:
        return self._after_two.after(two * (len(self.words) + 2) + one)

    def _top(self, two: int, one: int, k: int) -> tuple[int, ...]:
        found = self._seen(two, one)[:k].tolist()
        if len(found) < k:
            found += [word for word in self._after_one.after(one)[: 2 * k].tolist() if word not in found]
        if len(found) < k:
            found += [word for word in range(min(2 * k, len(self.words))) if word not in found]
        return tuple(found[:k])


class Unigram:
    """The same most frequent words whatever was typed before: the floor below every model."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words  # most frequent first; a word's place is its id
        self.ids = {word: i for i, word in enumerate(words)}

    @classmethod
    def train(cls, messages: Iterable[Sequence[str]], *, words: Sequence[str] | None = None) -> "Unigram":
        """Rank the words of `messages` by how often they occur, ties alphabetically.

        With `words` these are ranked and no others, of equally frequent ones the first in `words` first.
        """
        counts = Counter(word for message in messages for word in message)
        if not counts:
            raise DataError("a unigram needs at least one message with a word, got none")
        return cls(_by_frequency(counts, words))

    def suggest(self, context: Sequence[str], k: int = 3) -> list[str]:
        """The k most frequent words; `context` is not looked at."""
        return list(self.words[:k])

    def better(self, context: Sequence[str], word: str) -> np.ndarray | None:
        """As `Trigram.better`; `context` is not looked at."""
        return np.arange(self.ids[word]) if word in self.ids else None


def _by_frequency(counts: Counter[str], words: Sequence[str] | None = None) -> tuple[str, ...]:
    """`words` (default: all that were counted, alphabetically) in the order of their counts."""
    if words is not None and not any(word in counts for word in words):
        raise DataError("at least one word must be known, the messages have none that is")
    return tuple(sorted(sorted(counts) if words is None else words, key=lambda word: -counts[word]))


def _union(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.concatenate([first, second[~np.isin(second, first)]])


def own_unigram_bits_saved(
    users: Mapping[str, Sequence[Sequence[str]]], *, min_messages: int = 10
) -> float | None:
    """How many bits a word a user's own word counts save over another user's, on the user's later messages.

    `users` maps a user to their messages in order, each a list of words. The first half of a user's messages
    is counted, the second half scored by log2 of (own + everyone's) / 2 against (another's + everyone's) / 2,
    where everyone's is the share of a word in all first halves, at least one count. The other user is the
    next in the order of the names' hashes. The mean is over all scored words; 0 means that all users write
    alike. Users with fewer than `min_messages` messages are left out; None when fewer than two are left.
    """
    names = sorted(
        (u for u in users if len(users[u]) >= min_messages), key=lambda u: sha256(u.encode()).digest()
    )
    first: list[Counter[str]] = []
    for name in names:
        half = len(users[name]) // 2
        first.append(Counter(word for message in users[name][:half] for word in message))
    kept = [(name, counts) for name, counts in zip(names, first, strict=True) if counts]
    if len(kept) < 2:
        return None
    everyone: Counter[str] = Counter()
    for _, counts in kept:
        everyone.update(counts)
    total = everyone.total() + 1
    saved, scored = 0.0, 0
    for (name, own), (_, other) in zip(kept, [*kept[1:], kept[0]], strict=True):
        own_total, other_total = own.total(), other.total()
        for word, times in Counter(_second_half(users[name])).items():
            shared = max(everyone[word], 1) / total
            ratio = (own[word] / own_total + shared) / (other[word] / other_total + shared)
            saved += times * log2(ratio)
            scored += times
    return saved / scored if scored else None


def _second_half(messages: Sequence[Sequence[str]]) -> Iterator[str]:
    return (word for message in messages[len(messages) // 2 :] for word in message)
