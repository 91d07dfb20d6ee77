"""How well a bundle predicts held-out words, measured through the very graph that a phone runs.

recall@k is the share of all target words that are among the first k suggestions; a word outside the
vocabulary counts as a miss. Perplexity is over the target words that the vocabulary knows, among its words.
"""

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kbdfl.errors import ConfigError, DataError
from kbdfl.export.bundle import Bundle
from kbdfl.export.runtime import Stepper, open_session
from kbdfl.kernels import reference
from kbdfl.model import CifgConfig
from kbdfl.text import UNK


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Recall in 0..1, perplexity (None if no target word is known), and what they were measured on."""

    recall_top1: float
    recall_top3: float
    perplexity: float | None
    oov_rate: float
    tokens: int
    users: int


@dataclass(slots=True)
class _Counts:
    tokens: int = 0
    known: int = 0
    first: int = 0
    top3: int = 0
    loss: float = 0.0


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
    pairs = iter(messages_by_user.items() if isinstance(messages_by_user, Mapping) else messages_by_user)
    session, mutex, stop = open_session(bundle), threading.Lock(), threading.Event()

    def take() -> tuple[str, Sequence[str]] | None:
        with mutex:
            return None if stop.is_set() else next(pairs, None)

    def work() -> list[_Counts]:
        stepper, counts = Stepper(session, bundle), []
        try:
            while (pair := take()) is not None:
                sentences = bundle.vocabulary.encode_many(pair[1][:max_messages_per_user])
                counts.append(_measure(stepper, sentences))
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
    tokens = sum(count.tokens for count in counts)
    known = sum(count.known for count in counts)
    if not tokens:
        raise DataError("there must be at least one word to predict, the log has none")
    return Evaluation(
        recall_top1=sum(count.first for count in counts) / tokens,
        recall_top3=sum(count.top3 for count in counts) / tokens,
        # fsum is exact, so the users' order does not show; beyond exp(700) a float64 ends
        perplexity=math.exp(min(math.fsum(count.loss for count in counts) / known, 700.0)) if known else None,
        oov_rate=1 - known / tokens,
        tokens=tokens,
        users=sum(count.tokens > 0 for count in counts),
    )


def _measure(stepper: Stepper, sentences: Iterable[Sequence[int]]) -> _Counts:
    """One user's sentences `[<bos>, word, ..., <eos>]`."""
    counts = _Counts()
    logits, top_ids = stepper.logits[0], stepper.top_ids[0]
    firsts, gaps = (
        [],
        [],
    )  # of each known target: the probability of the first suggestion, and its lead in logits
    for sentence in sentences:
        targets = sentence[1:-1]
        counts.tokens += len(targets)
        while targets and targets[-1] == UNK:
            targets.pop()  # nothing that is counted comes after them
        if not targets:
            continue
        stepper.begin()
        for place, target in enumerate(targets):
            if place:
                stepper.step(targets[place - 1])
            if target == UNK:
                continue
            ids = top_ids.tolist()
            counts.known += 1
            counts.first += ids[0] == target
            counts.top3 += target in ids
            firsts.append(stepper.top_probs[0, 0])
            gaps.append(logits[ids[0]] - logits[target])
    # -log p(target) = its distance to the first suggestion - log p(first): no sum over all words needed
    counts.loss = float(np.sum(np.array(gaps, np.float64) - np.log(np.array(firsts, np.float64))))
    return counts


def agreement(
    bundle: Bundle, params: np.ndarray, config: CifgConfig, sentences: Iterable[Sequence[int]]
) -> float:
    """The largest absolute difference of logits between bundle and trained model over whole sentences.

    params float32 (P,); sentences of ids as `Vocabulary.encode` gives them. The trained model is the plain
    numpy transcription of its equations in float64, so the figure is the exported graph's rounding.
    """
    views = {name: view.astype(np.float64) for name, view in config.spec.views(params).items()}
    stepper = Stepper(open_session(bundle), bundle)
    worst = 0.0
    for tokens in _inputs(sentences):
        expected = reference.logits(views, np.array(tokens), np.ones(len(tokens), np.int32))
        stepper.begin()
        for place, token in enumerate(tokens):
            if place:
                stepper.step(token)
            worst = max(worst, float(np.abs(expected[place] - stepper.logits[0]).max()))
    return worst


def _inputs(sentences: Iterable[Sequence[int]]) -> Iterator[Sequence[int]]:
    """All but the closing `<eos>`, which is never an input."""
    found = False
    for sentence in sentences:
        if len(sentence) > 1:
            found = True
            yield sentence[:-1]
    if not found:
        raise DataError("an agreement must be measured on at least one sentence, got none")
