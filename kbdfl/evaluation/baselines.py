"""The counting baselines under the same questions as a model."""

from collections.abc import Iterable, Sequence

from kbdfl.errors import DataError
from kbdfl.evaluation.keystrokes import Completion, Scores, Tally
from kbdfl.ngram import Trigram, Unigram


def evaluate_baseline(model: Trigram | Unigram, messages: Iterable[Sequence[str]]) -> Scores:
    """Predict every word of every message (a list of words) from the words before it.

    Raises DataError when there is no word at all.
    """
    completion, tally = Completion(model.words), Tally()
    known: dict[tuple[str, ...], tuple[int, int, int] | None] = {}  # chat repeats itself
    for message in messages:
        for place, word in enumerate(message):
            question = (*message[max(0, place - 2) : place], word)
            if question not in known:
                known[question] = _ask(model, completion, question)
            answer = known[question]
            if answer is None:
                tally.unknown(len(word))
            else:
                length, rank, letters = answer
                tally.ranked(length, rank=rank, letters=letters)
    if not tally.words:
        raise DataError("there must be at least one word to predict, the messages have none")
    return tally.scores()


def _ask(
    model: Trigram | Unigram, completion: Completion, question: tuple[str, ...]
) -> tuple[int, int, int] | None:
    """The length of the question's last word, its rank after the others, and the letters until it shows."""
    *context, word = question
    better = model.better(context, word)
    if better is None:
        return None
    return len(word), len(better), completion.letters(model.ids[word], better)
