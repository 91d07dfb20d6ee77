"""What a keyboard asks of a model: the next word, or the rest of the one being typed.

    predictor = Predictor(load_bundle("runs/demo/model"), blocked=["darn"])
    predictor.suggest("See you ")      # the next word after "see you"
    predictor.suggest("See Yo")        # words that begin with "yo", as likely as they are after "see": "You"

Logits depend on committed words only, so the model runs once a committed word and a typed letter merely
filters what it said. A text counts as one message, as in training.
"""

import math
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.export.bundle import Bundle, load_bundle
from kbdfl.export.casing import cased
from kbdfl.export.runtime import INPUTS, OUTPUTS, open_session
from kbdfl.tables import facts_table
from kbdfl.text import BOS, SPECIALS, Vocabulary

_WINDOW = 64  # of a long text the model sees the last 64 to 127 committed words: a bound on one call's work
_KEPT = 128  # contexts that are kept, 4 V bytes each


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A word as it should be inserted, and its probability in 0..1 as the word after the committed ones.

    A word that the model does not know, offered because it was typed, has probability 0.
    """

    word: str
    probability: float


@dataclass(frozen=True, slots=True)
class Context:
    """The model's outputs after some committed words; never written to, so threads may share it.

    top_ids int64 (1,3), top_probs float32 (1,3), logits float32 (1,V), state_r (1,E) and state_c (1,H).
    """

    top_ids: np.ndarray
    top_probs: np.ndarray
    logits: np.ndarray
    state_r: np.ndarray
    state_c: np.ndarray

    def probability(self, id: int) -> float:
        # The graph's first suggestion gives the normaliser, without a sum over the vocabulary.
        first = float(self.top_probs[0, 0])
        return first * math.exp(float(self.logits[0, id]) - float(self.logits[0, self.top_ids[0, 0]]))


def typed(vocabulary: Vocabulary, text: str) -> tuple[list[str], str]:
    """The committed words of `text`, and the letters of the word it ends in ("" between words), normalised."""
    # A letter at the end joins the word in progress or begins a new one: the vocabulary decides.
    *committed, last = vocabulary.split(text + "x")
    return committed, last[:-1]


def as_typed(vocabulary: Vocabulary, text: str) -> str:
    """The word in progress at the end of `text` as it stands there, in the user's case ("" between words)."""
    return text[vocabulary.spans(text + "x")[-1][0] :]


class Predictor:
    """Suggestions of one bundle through onnxruntime; safe to share between threads.

    Blocked words are never suggested, in whatever case they were named; typed out, they are still context.
    """

    def __init__(self, bundle: Bundle | Path, threads: int = 1, *, blocked: Iterable[str] = ()) -> None:
        """`bundle` may be its folder; `threads` is how many one step uses. Raises ModelError, ConfigError."""
        self.bundle: Bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self._vocabulary = self.bundle.vocabulary
        self._session = open_session(self.bundle, threads=threads)
        words = sorted((word, id) for id, word in enumerate(self._vocabulary.tokens) if id >= len(SPECIALS))
        self._words = [word for word, _ in words]
        self._ids = np.array([id for _, id in words])
        self._contexts: OrderedDict[tuple[int, ...], Context] = OrderedDict()
        self._mutex = threading.Lock()
        self.blocked = frozenset[str]()
        self.block(*blocked)

    def __repr__(self) -> str:
        about = f"{len(self._vocabulary):,} tokens, {self.bundle.precision}, {len(self.blocked):,} blocked"
        return f"<Predictor of {self.bundle.folder}: {about}>"

    def _repr_html_(self) -> str:
        rows = {
            "bundle": str(self.bundle.folder),
            "vocabulary": f"{len(self._vocabulary):,} tokens",
            "precision": self.bundle.precision,
            "blocked words": f"{len(self.blocked):,}",
        }
        return facts_table("kbdfl predictor", rows)

    def block(self, *words: str) -> None:
        """Suggest none of `words` from now on. Raises ConfigError for what is not one word."""
        self._set_blocked(self.blocked.union(map(self._normal, words)))

    def unblock(self, *words: str) -> None:
        """Suggest `words` again; those that were not blocked are passed over."""
        self._set_blocked(self.blocked.difference(map(self._normal, words)))

    def suggest(self, text: str, k: int = 3) -> list[Suggestion]:
        """At most `k` words, the likeliest first, in the case in which they should be inserted.

        After a space (or other separator, or nothing) they are the next word. Inside a word they are words
        that begin with the typed letters; while those are fewer than `k`, words that share one letter less
        are added, down to the first letter, so that a slip of the finger does not empty the strip. Letters
        that begin no word of the vocabulary are themselves the first suggestion, exactly as typed: a keyboard
        must be able to keep a word that it does not know.
        """
        if k < 1:
            raise ConfigError(f"k must be >= 1, got {k}")
        committed, prefix = typed(self._vocabulary, text)
        start = max(0, len(committed) // _WINDOW - 1) * _WINDOW
        context = self._context((BOS, *(self._vocabulary.id(word) for word in committed[start:])))
        partial = as_typed(self._vocabulary, text)
        before = text[: len(text) - len(partial)]
        unknown = prefix and not self._known(prefix) and prefix not in self.blocked
        kept = [Suggestion(partial, 0.0)] if unknown else []
        if prefix:
            chosen = self._completions(context, prefix, k - len(kept))
        elif k <= context.top_ids.shape[1] and not self._hidden[context.top_ids[0, :k]].any():
            chosen = context.top_ids[0, :k].tolist()
        else:
            chosen = self._likeliest(context, self._ids, k)
        tokens = self._vocabulary.tokens
        return kept + [
            Suggestion(cased(tokens[id], partial, before), context.probability(id)) for id in chosen
        ]

    def step(self, token: int, before: Context | None = None) -> Context:
        """Run the model once: the context after `before` (None: nothing) and one more committed token."""
        config = self.bundle.config
        r = before.state_r if before else np.zeros((1, config.embed), np.float32)
        c = before.state_c if before else np.zeros((1, config.hidden), np.float32)
        inputs = dict(zip(INPUTS, (np.array([token], np.int64), r, c), strict=True))
        outputs: Any = self._session.run(OUTPUTS, inputs)
        return Context(*outputs)

    def _normal(self, word: str) -> str:
        words = self._vocabulary.split(word)
        if len(words) != 1:
            raise ConfigError(f"a blocked word must be one word, got {word!r}")
        return words[0]

    def _set_blocked(self, words: frozenset[str]) -> None:
        hidden = np.zeros(len(self._vocabulary), bool)
        hidden[[self._vocabulary.id(word) for word in words]] = True
        self.blocked, self._hidden = words, hidden  # replaced, never written to: other threads may be reading

    def _known(self, prefix: str) -> bool:
        """Whether a word of the vocabulary begins with `prefix`."""
        begin, end = self._span(prefix)
        return begin < end

    def _span(self, prefix: str) -> tuple[int, int]:
        """Where the words that begin with `prefix` stand in alphabetical order."""
        begin = bisect_left(self._words, prefix)
        return begin, bisect_left(self._words, prefix[:-1] + chr(ord(prefix[-1]) + 1), begin)

    def _completions(self, context: Context, prefix: str, k: int) -> list[int]:
        chosen: list[int] = []
        for length in range(len(prefix), 0, -1):
            if len(chosen) == k:
                break
            begin, end = self._span(prefix[:length])
            ids = self._ids[begin:end]
            chosen += self._likeliest(context, ids[~np.isin(ids, chosen)], k - len(chosen))
        return chosen

    def _likeliest(self, context: Context, ids: np.ndarray, count: int) -> list[int]:
        """The `count` of `ids` with the largest logits; of equals the lower id first, as in the graph."""
        ids = ids[~self._hidden[ids]]
        logits = context.logits[0, ids]
        if len(ids) > count:
            least = np.partition(logits, len(ids) - count)[len(ids) - count]
            ids, logits = ids[logits >= least], logits[logits >= least]
        return ids[np.lexsort((ids, -logits))][:count].tolist()

    def _context(self, tokens: tuple[int, ...]) -> Context:
        """The context of `tokens` from the longest kept beginning of it, one step a token that is new."""
        with self._mutex:
            known = len(tokens)
            while known and tokens[:known] not in self._contexts:
                known -= 1
            context = self._contexts.get(tokens[:known])
            if context is not None:
                self._contexts.move_to_end(tokens[:known])
        # The lock is not held while the model runs; two threads may make one context twice, to equal values.
        for end in range(known + 1, len(tokens) + 1):
            context = self.step(tokens[end - 1], context)
            with self._mutex:
                self._contexts[tokens[:end]] = context
                while len(self._contexts) > _KEPT:
                    self._contexts.popitem(last=False)
        return cast(Context, context)  # of one token at least
