"""Text by topic without labels: spherical k-means over tf-idf (Dhillon and Modha 2001, Machine Learning 42)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from kbdfl.device_sim.store import Retention
from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import DataError
from kbdfl.rng import stream
from kbdfl.text import SPECIALS

ITERATIONS = 10
SLACK = 1.1  # a topic holds at most this many times its even share of the words, so that none is tiny
EVERYTHING = Retention(max_messages=1 << 40, max_bytes=1 << 40, max_age_s=inf)


@dataclass(frozen=True, slots=True)
class Regrouped:
    """A source of messages that are dealt anew, to whoever: by user, or phone, or organisation."""

    logs: Mapping[str, list[Message]]
    name: str = "regrouped"

    def users(self) -> Sequence[str]:
        return tuple(self.logs)

    def messages(self, user: str, *, keystrokes: bool = False) -> list[Message]:
        return self.logs[user]


@dataclass(frozen=True, slots=True, eq=False)
class Topics:
    """What a word counts, idf float64 (V,), and the topics' centres, float64 (K, V) of unit length."""

    idf: np.ndarray
    centres: np.ndarray

    def nearest(self, documents: Sequence[Sequence[int]]) -> np.ndarray:
        """The topic of each document of token ids, int64 (N,); topic 0 for one that shares no word with any."""
        return _Words.of(documents, len(self.idf)).weighed(self.idf).similar(self.centres).argmax(1)


def find_topics(
    documents: Sequence[Sequence[int]], count: int, *, vocabulary_size: int, seed: int
) -> tuple[Topics, np.ndarray]:
    """`count` topics of documents of token ids, and each one's topic, int64 (N,).

    A word weighs (1 + ln tf) ln(N / df). Centres begin as documents drawn by k-means++ (Arthur and Vassilvitskii 2007)
    from the stream "topics" of `seed`. No topic holds more words than SLACK times its even share: documents choose in
    order of how much closer their nearest centre is than the second, and one whose topic is full takes the next.
    Raises DataError when no document has a word of the vocabulary.
    """
    words = _Words.of(documents, vocabulary_size)
    sizes = np.bincount(words.document, words.value, minlength=len(documents))
    if not sizes.any():
        raise DataError("text without any word of the vocabulary has no topics")
    found = np.bincount(words.word, minlength=vocabulary_size)
    idf = np.log(len(documents) / np.maximum(found, 1))
    rows, random = words.weighed(idf), stream(seed, "topics")
    centres = rows.one(int(random.choice(np.flatnonzero(sizes))))[None]
    while len(centres) < count:
        # A document without words is at distance 1 from all others, but it is no centre.
        distance = np.where(sizes > 0, np.maximum(1 - rows.similar(centres).max(1), 1e-12), 0)
        drawn = int(random.choice(len(documents), p=distance / distance.sum()))
        centres = np.vstack([centres, rows.one(drawn)])
    topics = _assigned(rows.similar(centres), sizes)
    for _ in range(ITERATIONS - 1):
        topics = _assigned(rows.similar(rows.means(topics, count)), sizes)
    return Topics(idf, rows.means(topics, count)), topics


def _assigned(similar: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """A topic for each row of `similar` (N, K), int64 (N,): the most similar one that has room for its size.

    One that fits nowhere goes where there is most room.
    """
    count = similar.shape[1]
    room = [SLACK * sizes.sum() / count] * count
    wishes = np.argsort(-similar, axis=1, kind="stable")
    first, second = (
        np.take_along_axis(similar, wishes[:, [i]], axis=1)[:, 0] for i in (0, min(1, count - 1))
    )
    topics = np.zeros(len(sizes), np.int64)
    for document in np.argsort(second - first, kind="stable"):
        size = sizes[document]
        fitting = (topic for topic in wishes[document].tolist() if room[topic] >= size)
        topic = next(fitting, None)
        if topic is None:
            topic = room.index(max(room))
        topics[document] = topic
        room[topic] -= size
    return topics


@dataclass(frozen=True, slots=True, eq=False)
class _Words:
    """A sparse matrix (N, V): `value` of a `word` in a `document`, entry by entry."""

    document: np.ndarray
    word: np.ndarray
    value: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def of(cls, documents: Sequence[Sequence[int]], vocabulary_size: int) -> "_Words":
        """How often each document has each word of the vocabulary; specials are none."""
        document = np.repeat(np.arange(len(documents)), [len(one) for one in documents])
        word = np.concatenate([np.asarray(one, np.int64) for one in documents])
        known = word >= len(SPECIALS)
        entries, times = np.unique(document[known] * vocabulary_size + word[known], return_counts=True)
        return cls(*np.divmod(entries, vocabulary_size), times, (len(documents), vocabulary_size))

    def weighed(self, idf: np.ndarray) -> "_Words":
        """tf-idf, each row of unit length; one without words stays zero."""
        value = (1 + np.log(self.value)) * idf[self.word]
        norm = np.sqrt(np.bincount(self.document, value**2, minlength=self.shape[0]))
        return _Words(self.document, self.word, value / np.maximum(norm, 1e-12)[self.document], self.shape)

    def similar(self, centres: np.ndarray) -> np.ndarray:
        """The product of each row with each centre, float64 (N, K)."""
        columns = (
            np.bincount(self.document, self.value * centre[self.word], minlength=self.shape[0])
            for centre in centres
        )
        return np.stack(list(columns), axis=1)

    def one(self, document: int) -> np.ndarray:
        """A row, float64 (V,)."""
        mine = self.document == document
        return np.bincount(self.word[mine], self.value[mine], minlength=self.shape[1])

    def means(self, topics: np.ndarray, count: int) -> np.ndarray:
        """The mean direction of each topic's rows, float64 (K, V)."""
        at = topics[self.document] * self.shape[1] + self.word
        sums = np.bincount(at, self.value, minlength=count * self.shape[1]).reshape(count, -1)
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
