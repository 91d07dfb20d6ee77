"""What a ranking of words is worth to somebody who types: recall, reciprocal rank and keystrokes saved.

The user is ideal: before each letter they look at the three slots and take the word as soon as it is there.
Taking it is one key, the space after it included. A word that never appears, and every word outside the
vocabulary, is typed in full with its space. Capitals, punctuation and the choice of a slot cost nothing, so
the text is its words, each with one space.

    keystroke saving rate       ksr  = 1 - keys / characters
    keystrokes per character    kspc = keys / characters      (MacKenzie 2002, "KSPC as a characteristic of
                                                               text entry techniques")

While a word is being typed, the slots hold the best ranked words that begin with its typed letters.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

SLOTS = 3


@dataclass(frozen=True, slots=True)
class Scores:
    """Shares of all target words or of all characters; a word outside the vocabulary is a miss everywhere.

    `mrr` is the mean over all target words of 1 / rank among all words of the vocabulary.
    """

    recall_top1: float
    recall_top3: float
    mrr: float
    ksr: float
    kspc: float


class Completion:
    """How soon a word shows in the strip, for words numbered 0..N-1 as in `words`."""

    def __init__(self, words: Sequence[str]) -> None:
        self.lengths = [len(word) for word in words]
        # uint32 (N, longest): code points, zeros behind the end
        self._letters = np.array(words, f"U{max(self.lengths)}").view(np.uint32).reshape(len(words), -1)

    def letters(self, word: int, better: np.ndarray) -> int:
        """How many letters of `word` must be typed until it is in a slot; its length if it never is.

        `better` int (K,) are all words that rank before it where the word begins, in any order. Typing n
        letters leaves those of them that share its first n letters. So a word shows up one letter after the
        longest beginning that it has in common with three better ones.
        """
        if len(better) < SLOTS:
            return 0
        own = self._letters[word]
        rivals = better[self._letters[better, 0] == own[0]]
        if len(rivals) < SLOTS:
            return 1
        shared = np.argmin(self._letters[rivals] == own, axis=1)  # distinct words differ somewhere
        return min(int(np.partition(shared, -SLOTS)[-SLOTS]) + 1, self.lengths[word])


@dataclass(slots=True)
class Tally:
    """Sums over target words. They do not depend on the order in which tallies are added up."""

    words: int = 0
    known: int = 0
    first: int = 0
    top3: int = 0
    reciprocal: float = 0.0
    keys: int = 0
    characters: int = 0

    def unknown(self, length: int) -> None:
        """A target word of `length` letters that is in no vocabulary."""
        self.words += 1
        self.keys += length + 1
        self.characters += length + 1

    def ranked(self, length: int, *, rank: int, letters: int) -> None:
        """A target word that had `rank` (0 is best) and showed after `letters` of its `length` letters."""
        self.words += 1
        self.known += 1
        self.first += rank < 1
        self.top3 += rank < SLOTS
        self.reciprocal += 1 / (rank + 1)
        self.keys += letters + 1
        self.characters += length + 1

    @classmethod
    def total(cls, tallies: Iterable["Tally"]) -> "Tally":
        rows = [
            (t.words, t.known, t.first, t.top3, t.reciprocal, t.keys, t.characters) for t in (cls(), *tallies)
        ]
        words, known, first, top3, reciprocal, keys, characters = zip(*rows, strict=True)
        # fsum is exact, so the order does not show
        return cls(
            sum(words), sum(known), sum(first), sum(top3), math.fsum(reciprocal), sum(keys), sum(characters)
        )

    def scores(self) -> Scores:
        """The shares; at least one word must have been counted."""
        return Scores(
            recall_top1=self.first / self.words,
            recall_top3=self.top3 / self.words,
            mrr=self.reciprocal / self.words,
            ksr=1 - self.keys / self.characters,
            kspc=self.keys / self.characters,
        )
