"""What a search asks for, how loud its noise is, and where in a vector a prefix and the letters after it stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import asinh, ceil, expm1, log, pi, sqrt

from kbdfl.errors import ConfigError
from kbdfl.privacy.accounting import epsilon_of_skellam

END = "\0"  # follows a word's last letter, and fills its last block
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789'"
SYMBOLS = LETTERS + END
MOST_PLACES = 1 << 24  # of a question: 64 MB of int32


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """One search.

    votes             words that a phone votes for in all rounds, at most; the ones that it typed most
    block             letters that a round adds to a prefix
    longest           letters of a word; longer ones are not looked for
    prefixes          that are followed from one round to the next, at most: those with the most votes
    least_votes       a prefix, or a word, with fewer is dropped, however little noise there is
    noise_multiplier  standard deviation of the noise on a place's sum, in units of sqrt(votes), what one phone moves
    phones            whose noise makes that much: a sum of fewer is not opened
    errors            places of a round that noise alone may bring above the threshold, on average
    """

    votes: int = 100
    block: int = 2
    longest: int = 12
    prefixes: int = 400
    least_votes: int = 20
    noise_multiplier: float = 1.0
    phones: int = 500
    errors: float = 0.1

    def __post_init__(self) -> None:
        for name in ("votes", "longest", "prefixes", "least_votes", "phones"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 1 <= self.block <= 3:
            raise ConfigError(f"block must lie in [1, 3], got {self.block}")
        if self.prefixes * self.blocks > MOST_PLACES:
            raise ConfigError(
                f"prefixes must be at most {MOST_PLACES // self.blocks} with blocks of {self.block} letters, "
                f"got {self.prefixes}"
            )
        if not 0 < self.noise_multiplier < 1_000:
            raise ConfigError(f"noise_multiplier must lie in (0, 1000), got {self.noise_multiplier}")
        if not 0 < self.errors < 1:
            raise ConfigError(f"errors must lie in (0, 1), got {self.errors}")

    @property
    def blocks(self) -> int:
        """How many ways there are to go on from a prefix."""
        return len(SYMBOLS) ** self.block

    @property
    def rounds(self) -> int:
        """After which every word that is looked for has ended."""
        return ceil((self.longest + 1) / self.block)

    @property
    def variance(self) -> float:
        """Of the noise on a place's sum, with the fewest phones."""
        return self.noise_multiplier**2 * self.votes

    @property
    def share(self) -> float:
        """The variance of the noise that one phone adds."""
        return self.variance / self.phones

    def threshold(self, places: int, *, phones: int) -> int:
        """Votes that a place must have, where `phones` added noise to so many places."""
        return max(self.least_votes, least_unlikely(self.share * phones, chance=self.errors / places))

    def epsilon(self, delta: float) -> float:
        """What is claimed of a phone that votes in every round: all that it says is out, or in, or zeros (zero-out).

        A phone's votes are at most `votes` ones in a round, so their L1 norm and squared L2 norm are at most that.
        """
        return epsilon_of_skellam(
            variance=self.variance,
            squared_l2=float(self.votes),
            l1=float(self.votes),
            delta=delta,
            times=self.rounds,
        )


def least_unlikely(variance: float, *, chance: float) -> int:
    """The smallest t >= 1 that Skellam noise of this variance reaches with at most this chance.

    By the saddlepoint approximation of a lattice tail (Daniels 1987): with lambda = asinh(t / v) and s = sqrt(t^2 +
    v^2), P(X >= t) is about exp(s - v - lambda t) / ((1 - exp(-lambda)) sqrt(2 pi s)). For small variances a normal
    distribution's tail would be far too short.
    """

    def log_tail(t: int) -> float:
        slope, root = asinh(t / variance), sqrt(t * t + variance * variance)
        return root - variance - slope * t - log(-expm1(-slope)) - log(2 * pi * root) / 2

    low, high = 0, 1
    while log_tail(high) > log(chance):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if log_tail(middle) > log(chance) else (low, middle)
    return high


@dataclass(frozen=True)
class Question:
    """What a round asks: of each of these prefixes, how your words go on. A place of a vote is a way of one of them."""

    round: int
    prefixes: tuple[str, ...]
    block: int

    @property
    def places(self) -> int:
        """The length of a vote."""
        return len(self.prefixes) * len(SYMBOLS) ** self.block

    @cached_property
    def _first(self) -> dict[str, int]:
        each = len(SYMBOLS) ** self.block
        return {prefix: number * each for number, prefix in enumerate(self.prefixes)}

    def place(self, word: str) -> int | None:
        """Where a vote for `word` stands; None if its prefix is not asked for, or the word has ended in it."""
        start = self.round * self.block
        first = self._first.get(word[:start])
        if first is None or start > len(word):
            return None
        letters = (word[start:] + END * self.block)[: self.block]
        number = 0
        for letter in letters:
            number = number * len(SYMBOLS) + SYMBOLS.index(letter)
        return first + number

    def prefix_at(self, place: int) -> str:
        """The prefix that stands at a place, with the letters that the round adds, ends and all."""
        which, number = divmod(place, len(SYMBOLS) ** self.block)
        letters = []
        for _ in range(self.block):
            number, last = divmod(number, len(SYMBOLS))
            letters.append(SYMBOLS[last])
        return self.prefixes[which] + "".join(reversed(letters))


def can_be_found(word: str, longest: int) -> bool:
    """Whether a search can come across `word`: all its letters are known, and there are not too many."""
    return 1 <= len(word) <= longest and not set(word) - set(LETTERS)


def well_ended(prefix: str) -> bool:
    """Whether nothing follows an end but ends; noise alone votes otherwise."""
    return END not in prefix.rstrip(END)


def counted(words: Sequence[str]) -> dict[str, int]:
    """How often each of `words` stands there, the most frequent first, then by spelling."""
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
