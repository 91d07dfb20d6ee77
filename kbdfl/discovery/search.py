"""A server's part of a search: it asks, gets sums of votes, follows prefixes that have many, and ends with words."""

import numpy as np

from kbdfl.discovery.plan import END, Question, SearchPlan, well_ended
from kbdfl.errors import ConfigError


class Search:
    """A search from its first question to its last: `question` is None when all words have ended.

    `found` are the words so far with their votes, noise included.
    """

    def __init__(self, plan: SearchPlan) -> None:
        self.plan = plan
        self.found: dict[str, int] = {}
        self.question: Question | None = Question(0, ("",), plan.block)

    def close(self, total: np.ndarray, *, phones: int) -> None:
        """Take the sum of the noised votes of `phones` phones, int (places,), and ask the next question.

        Raises ConfigError, and opens nothing, for a sum of fewer phones than the noise was made for, or one that is not
        of this question.
        """
        question, plan = self.question, self.plan
        if question is None:
            raise ConfigError("the search is over")
        if phones < plan.phones:
            raise ConfigError(f"votes of at least {plan.phones} phones must be in a sum, got {phones}")
        if total.shape != (question.places,):
            raise ConfigError(f"a sum must have {question.places} places, got {total.shape}")
        above = np.flatnonzero(total >= plan.threshold(question.places, phones=phones))
        going_on: dict[str, int] = {}
        for place in above[np.argsort(-total[above], kind="stable")].tolist():
            prefix = question.prefix_at(place)
            if not well_ended(prefix):
                continue
            if END in prefix:
                self.found[prefix.rstrip(END)] = int(total[place])
            else:
                going_on[prefix] = int(total[place])
        self.found.pop("", None)  # no word: noise alone votes for it
        last = question.round + 1 == plan.rounds
        kept = tuple(list(going_on)[: plan.prefixes])
        self.question = None if last or not kept else Question(question.round + 1, kept, plan.block)
