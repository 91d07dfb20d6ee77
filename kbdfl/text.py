"""Words, the vocabulary and batches: from a typed message to the packed token ids that a kernel trains on.

Policy: Unicode NFKC, lower case, curly apostrophes made straight; a word is a run of letters and digits with
apostrophes inside (`don't`), everything else separates and is dropped. A mask such as `<email>` counts as one
word that no vocabulary knows. The same rules are inside `tokenizer.json`, so plain `tokenizers` agrees.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypedDict

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from kbdfl.errors import DataError
from kbdfl.params import write_atomically

SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")
PAD, UNK, BOS, EOS = range(4)
IGNORED = -1  # a target that is not learned: unknown words, which a keyboard never offers
# A mark alone is no word: emoji carry U+FE0F, which is one.
_WORD = r"<(?:email|url|#)>|[\p{L}\p{N}][\p{L}\p{M}\p{N}]*(?:'[\p{L}\p{N}][\p{L}\p{M}\p{N}]*)*"
_PROBE, _PROBE_WORDS = (
    "Don\u2019t, \uff2fK<#>",
    ["don't", "ok", "<#>"],
)  # shows whether a tokenizer has these rules


class Vocabulary:
    """A closed list of words on a Hugging Face word-level tokenizer; ids 0 to 3 are the specials."""

    def __init__(self, tokenizer: Tokenizer, source: str = "unstated") -> None:
        self._tokenizer = tokenizer
        self.source = source
        size = tokenizer.get_vocab_size()
        self.tokens: tuple[str, ...] = tuple(tokenizer.id_to_token(i) or "" for i in range(size))
        # Hash of the tokens in order: what a task names and a device checks.
        self.sha256: str = hashlib.sha256("\n".join(self.tokens).encode()).hexdigest()
        if self.tokens[:4] != SPECIALS:
            raise DataError(
                f"a vocabulary must begin with {' '.join(SPECIALS)}, got {' '.join(self.tokens[:4])}"
            )

    @classmethod
    def of_words(cls, words: Sequence[str], source: str) -> "Vocabulary":
        """A vocabulary of exactly these distinct words (already lower-cased), in this order.

        `source` says where they come from and travels in the bundle's manifest.
        """
        ids = {token: i for i, token in enumerate((*SPECIALS, *words))}
        if len(ids) != len(words) + len(SPECIALS):
            raise DataError("the words of a vocabulary must be distinct and none of them a special token")
        tokenizer = Tokenizer(models.WordLevel(ids, unk_token=SPECIALS[UNK]))
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.NFKC(),
                normalizers.Lowercase(),
                normalizers.Replace(Regex("[\u2018\u2019\u02bc]"), "'"),
            ]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A <eos>", special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
        )
        return cls(tokenizer, source)

    @classmethod
    def load(cls, path: Path, source: str = "unstated") -> "Vocabulary":
        """Read a `tokenizer.json`. Raises DataError when it is missing or not one."""
        if not Path(path).is_file():
            raise DataError(f"no vocabulary at {path}")
        try:
            return cls.from_bytes(Path(path).read_bytes(), source)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    @classmethod
    def from_bytes(cls, content: bytes, source: str = "unstated") -> "Vocabulary":
        """Read the content of a `tokenizer.json`. Raises DataError, also when it splits words by other rules."""
        try:
            vocabulary = cls(Tokenizer.from_str(content.decode()), source)
            agrees = vocabulary._follows_policy()
        except DataError:
            raise
        except Exception as error:  # the library raises bare Exception for a malformed document
            raise DataError(f"not a tokenizer.json: {' '.join(str(error).split())[:100]}") from None
        if not agrees:
            raise DataError("the tokenizer.json splits words by other rules than kbdfl's")
        return vocabulary

    def _follows_policy(self) -> bool:
        if self._tokenizer.normalizer is None or self._tokenizer.pre_tokenizer is None:
            return False
        ids = [BOS, *map(self.id, _PROBE_WORDS), EOS]
        return self.split(_PROBE) == _PROBE_WORDS and self.encode(_PROBE) == ids

    def save(self, path: Path) -> None:
        write_atomically(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """The content of `tokenizer.json`; equal vocabularies give equal bytes."""
        return json.dumps(json.loads(self._tokenizer.to_str()), ensure_ascii=False, indent=1).encode()

    def __len__(self) -> int:
        return len(self.tokens)

    def split(self, text: str) -> list[str]:
        """The words of `text` under the policy above, known or not."""
        normal = self._tokenizer.normalizer.normalize_str(text)
        return [word for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(normal)]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where the words of `text` stand in it as it was typed: the (start, end) of each."""
        return self._tokenizer.encode(text, add_special_tokens=False).offsets

    def encode(self, text: str) -> list[int]:
        """`<bos>`, the ids of the words (UNK where unknown), `<eos>`."""
        return self._tokenizer.encode(text).ids

    def encode_many(self, texts: Iterable[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def id(self, word: str) -> int:
        """The id of one normalised word, UNK if it is not in the list."""
        found = self._tokenizer.token_to_id(word)
        return UNK if found is None else found


def public_words(count: int) -> tuple[list[str], np.ndarray]:
    """The `count` most frequent English words of the `wordfreq` package and their frequencies, float64 (count,).

    wordfreq merges subtitles, news, books, web text and social media; no user's log is looked at.
    """
    import wordfreq

    splitter = Vocabulary.of_words([], "")
    words: list[str] = []
    for word in wordfreq.top_n_list("en", count * 2):
        if splitter.split(word) == [word]:
            words.append(word)
        if len(words) == count:
            return words, np.array([wordfreq.word_frequency(word, "en") for word in words])
    raise DataError(f"the public word list holds fewer than {count} usable words")


def public_vocabulary(size: int) -> tuple[Vocabulary, np.ndarray]:
    """A vocabulary of `size` tokens (specials included) from the public list, and its words' frequencies."""
    words, frequencies = public_words(size - len(SPECIALS))
    return Vocabulary.of_words(
        words, "the most frequent English words of the public list wordfreq"
    ), frequencies


def training_vocabulary(texts: Iterable[str], size: int) -> tuple[Vocabulary, np.ndarray]:
    """A vocabulary of at most `size` tokens counted on the phones' own messages, and its words' counts.

    It tells which words these users type, so its source says where it comes from.
    """
    return counted_vocabulary(texts, size, "words counted on the training users' own logs")


def counted_vocabulary(texts: Iterable[str], size: int, source: str) -> tuple[Vocabulary, np.ndarray]:
    """A vocabulary of at most `size` tokens, the most frequent words of `texts`, and their counts, float64 (V - 4,).

    `source` says whose texts they are. Raises DataError when they hold no words.
    """
    splitter = Vocabulary.of_words([], "")
    counts = Counter(word for text in texts for word in splitter.split(text) if not word.startswith("<"))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: size - len(SPECIALS)]
    if not ranked:
        raise DataError(f"the texts hold no words to make a vocabulary of: {source}")
    vocabulary = Vocabulary.of_words([word for word, _ in ranked], source)
    return vocabulary, np.array([count for _, count in ranked], np.float64)


class Arrays(TypedDict):
    """The four arrays of `PackedBatches` as the kernels take them: `f(params, **batches.arrays)`."""

    inputs: np.ndarray
    targets: np.ndarray
    active: np.ndarray
    steps: np.ndarray


@dataclass(frozen=True, slots=True)
class PackedBatches:
    """Sentences packed without padding, as one kernel call takes them.

    Batch k holds sentences sorted by length, longest first, laid out time-major: first all sentences' first
    tokens, then the second tokens of those that have one, and so on. Nothing is padded, so nothing needs a mask.

    inputs, targets   int32 (N,)  all batches' rows one after another; target IGNORED (-1) is not learned
    active            int32       how many sentences are alive at each time step, batch after batch
    steps             int32 (K,)  the number of time steps of each batch
    """

    inputs: np.ndarray
    targets: np.ndarray
    active: np.ndarray
    steps: np.ndarray

    @property
    def arrays(self) -> Arrays:
        """The four arrays by name, as the kernels take them."""
        return {"inputs": self.inputs, "targets": self.targets, "active": self.active, "steps": self.steps}

    @property
    def nbytes(self) -> int:
        """What the four arrays take in memory."""
        return self.inputs.nbytes + self.targets.nbytes + self.active.nbytes + self.steps.nbytes

    def first(self, count: int) -> "PackedBatches":
        """The first `count` batches."""
        active = self.active[: self.steps[:count].sum()]
        rows = active.sum()
        return PackedBatches(self.inputs[:rows], self.targets[:rows], active, self.steps[:count])

    @property
    def learned(self) -> np.ndarray:
        """int64 (K,): how many targets each batch learns; one without any makes no step."""
        rows = np.add.reduceat(self.active, np.cumsum(self.steps) - self.steps)
        return np.add.reduceat((self.targets != IGNORED).astype(np.int64), np.cumsum(rows) - rows)

    @property
    def tokens(self) -> int:
        """How many targets are learned."""
        return int((self.targets != IGNORED).sum())


def pack(batches: Sequence[Sequence[Sequence[int]]]) -> PackedBatches:
    """Pack batches of sentences `[<bos>, word, ..., <eos>]`: each word is predicted from those before it.

    The closing `<eos>` is neither an input nor a target, and unknown words are inputs but not targets.
    """
    inputs: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    active: list[np.ndarray] = []
    steps: list[int] = []
    for batch in batches:
        lengths = np.array([len(sentence) - 2 for sentence in batch], np.int64)
        order = np.argsort(-lengths, kind="stable")
        order = order[lengths[order] > 0]
        if not len(order):
            continue
        longest = int(lengths[order[0]])
        padded = np.zeros((len(order), longest + 1), np.int32)
        # All rows at once: an assignment a row would take longer than the rest together.
        filled = np.arange(longest + 1) <= lengths[order, None]
        padded[filled] = np.fromiter(
            chain.from_iterable(batch[index][:-1] for index in order), np.int32, int(filled.sum())
        )
        alive = filled[:, 1:].T
        inputs.append(padded[:, :-1].T[alive])
        targets.append(padded[:, 1:].T[alive])
        active.append(alive.sum(1).astype(np.int32))
        steps.append(longest)
    empty = np.zeros(0, np.int32)
    target = np.concatenate(targets) if targets else empty
    return PackedBatches(
        inputs=np.concatenate(inputs) if inputs else empty,
        targets=np.where(target < len(SPECIALS), np.int32(IGNORED), target),
        active=np.concatenate(active) if active else empty,
        steps=np.array(steps, np.int32),
    )


def training_batches(
    sentences: Sequence[Sequence[int]],
    *,
    batch_size: int,
    epochs: int,
    max_words: int,
    random: np.random.Generator,
    steps: int = 0,
) -> PackedBatches:
    """A client's whole local run: `epochs` passes over shuffled batches of `batch_size` sentences.

    Sentences are cut to `max_words` words and shuffled anew in every epoch. `steps` > 0 are the most batches there are.
    """
    usable = [
        [*sentence[: max_words + 1], EOS] for sentence in (s[:-1] for s in sentences) if len(sentence) > 1
    ]
    batches: list[list[list[int]]] = []
    for _ in range(epochs):
        if 0 < steps <= len(batches):
            break
        order = random.permutation(len(usable))
        batches += [
            [usable[i] for i in order[start : start + batch_size]]
            for start in range(0, len(order), batch_size)
        ]
    return pack(batches[: steps or None])
