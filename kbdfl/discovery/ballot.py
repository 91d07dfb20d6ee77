"""A phone's part of a search: which of its words it votes for, and its vote on a question."""

from collections.abc import Iterable

import numpy as np

from kbdfl.discovery.plan import Question, SearchPlan, can_be_found, counted
from kbdfl.errors import ConfigError
from kbdfl.privacy.mechanisms import skellam
from kbdfl.privacy.source import Source
from kbdfl.text import UNK, Vocabulary


class Voter:
    """A phone in one search. The words it votes for are chosen once: what it says in all rounds is about the same ones.

    It answers each round once and in order, for what is claimed holds for one answer a round. `texts` are its messages.
    """

    def __init__(self, texts: Iterable[str], vocabulary: Vocabulary, plan: SearchPlan) -> None:
        words = counted([word for text in texts for word in vocabulary.split(text)])
        wanted = (word for word in words if vocabulary.id(word) == UNK and can_be_found(word, plan.longest))
        self.words: tuple[str, ...] = tuple(word for word, _ in zip(wanted, range(plan.votes), strict=False))
        self._plan, self._answered = plan, -1

    def places(self, question: Question) -> np.ndarray:
        """int64 (k,), distinct: where its words go on from a prefix that is asked for.

        Raises ConfigError for a round that was answered, or one that the plan does not have.
        """
        if not self._answered < question.round < self._plan.rounds or question.block != self._plan.block:
            raise ConfigError(
                f"a phone answers rounds in order, {self._plan.rounds} in all, got round {question.round}"
            )
        self._answered = question.round
        found = {place for word in self.words if (place := question.place(word)) is not None}
        return np.array(sorted(found), np.int64)

    def vote(self, question: Question, source: Source | None = None) -> np.ndarray:
        """int64 (places,): ones at `places`, and this phone's share of the noise. It is masked before it is sent."""
        vector = skellam(self._plan.share, question.places, source)
        vector[self.places(question)] += 1
        return vector
