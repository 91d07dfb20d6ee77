"""How well a bundle predicts held-out words, measured through the very graph that a phone runs.

Perplexity is over the target words that the vocabulary knows, among its words; for the other figures see
`kbdfl.evaluation.keystrokes`.
"""

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kbdfl.errors import ConfigError, DataError
from kbdfl.evaluation.keystrokes import Completion, Scores, Tally
from kbdfl.export.bundle import Bundle
from kbdfl.export.runtime import Stepper, open_session
from kbdfl.text import SPECIALS, UNK, Vocabulary


@dataclass(frozen=True, slots=True)
class Evaluation(Scores):
    """Scores, perplexity (None if no target word is known), and what they were measured on."""

    perplexity: float | None
    oov_rate: float
    tokens: int
    users: int


def evaluate_bundle(
    bundle: Bundle,
    messages_by_user: Mapping[str, Sequence[str]] | Iterable[tuple[str, Sequence[str]]],
    *,
    max_messages_per_user: int | None = None,
    threads: int = 1,
) -> Evaluation:
    """Predict every word of every message from the words before it.

    `messages_by_user` is a dict or pairs (user, messages), which are taken one at a time; of each user the
    first `max_messages_per_user` count. `threads` share out the users; the result does not depend on it, nor
    on the order of the users. Raises DataError when there is no word at all.
    """
    if threads < 1:
        raise ConfigError(f"threads must be >= 1, got {threads}")
    if max_messages_per_user is not None and max_messages_per_user < 1:
        raise ConfigError(f"max_messages_per_user must be >= 1, got {max_messages_per_user}")
    pairs: Iterator[Any] = iter(
        messages_by_user.items() if isinstance(messages_by_user, Mapping) else messages_by_user
    )
    session, mutex, stop = open_session(bundle), threading.Lock(), threading.Event()
    completion = Completion(bundle.vocabulary.tokens[len(SPECIALS) :])

    def take() -> tuple[str, Sequence[str]] | None:
        with mutex:
            return None if stop.is_set() else next(pairs, None)

    def work() -> list[tuple[Tally, float]]:
        stepper, counts = Stepper(session, bundle), []
        try:
            while (pair := take()) is not None:
                texts = pair[1][:max_messages_per_user]
                counts.append(_measure(stepper, completion, bundle.vocabulary, texts))
        finally:
            stop.set()  # after the last user, or after an error: the others need not go on
        return counts

    if threads == 1:
        counts = work()
    else:
        with ThreadPoolExecutor(threads) as pool:
            counts = [
                count for future in [pool.submit(work) for _ in range(threads)] for count in future.result()
            ]
    tallies, losses = zip(*counts, strict=True) if counts else ((), ())
    total = Tally.total(tallies)
    if not total.words:
        raise DataError("there must be at least one word to predict, the log has none")
    return Evaluation(
        **asdict(total.scores()),
        # beyond exp(700) a float64 ends
        perplexity=math.exp(min(math.fsum(losses) / total.known, 700.0)) if total.known else None,
        oov_rate=1 - total.known / total.words,
        tokens=total.words,
        users=sum(tally.words > 0 for tally in tallies),
    )


def _measure(
    stepper: Stepper, completion: Completion, vocabulary: Vocabulary, texts: Iterable[str]
) -> tuple[Tally, float]:
    """One user's messages: the tally, and the sum of -log p over the known targets."""
    tally, logits = Tally(), stepper.logits[0, len(SPECIALS) :]
    # of each known target: the probability of the first suggestion, and its lead in logits
    firsts, gaps = [], []
    for text in texts:
        words = vocabulary.split(text)
        ids = [vocabulary.id(word) for word in words]
        for word, id in zip(words, ids, strict=True):
            if id == UNK:
                tally.unknown(len(word))
        while ids and ids[-1] == UNK:
            ids.pop()  # no known target comes after them
        if not ids:
            continue
        stepper.begin()
        for place, id in enumerate(ids):
            if place:
                stepper.step(ids[place - 1])
            if id == UNK:
                continue
            target = id - len(SPECIALS)
            own = logits[target]
            better = np.flatnonzero(logits >= own)
            # of equals the lower id comes first, as in the strip
            better = better[(logits[better] > own) | (better < target)]
            letters = completion.letters(target, better)
            tally.ranked(completion.lengths[target], rank=len(better), letters=letters)
            firsts.append(stepper.top_probs[0, 0])
            gaps.append(stepper.logits[0, stepper.top_ids[0, 0]] - own)
    # -log p(target) = its distance to the first suggestion - log p(first): no sum over all words needed
    loss = np.sum(np.array(gaps, np.float64) - np.log(np.array(firsts, np.float64)))
    return tally, float(loss)
