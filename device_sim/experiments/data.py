"""The text of an experiment and its three parts: users who train, users who choose settings, users who judge."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from kbdfl.device_sim.population import Population, drawn_sentences, held_out_users, open_logs
from kbdfl.device_sim.store import TypingLog
from kbdfl.device_sim.typing.records import Message
from kbdfl.device_sim.typing.sources import Source, is_held_out, open_source
from kbdfl.errors import ConfigError, DataError
from kbdfl.metrics import evaluation_set
from kbdfl.model import preset
from kbdfl.text import PackedBatches, Vocabulary, counted_vocabulary, public_vocabulary

_EVERY = 8  # of the users who are not held out, one in so many validates


def is_validation(user: str) -> bool:
    """Whether settings are chosen on this user: every eighth of those who are not held out, by the name's hash.

    Such a user neither trains nor judges, so a setting is never chosen on what it is reported on.
    """
    # The hash's remainder by 5 says who is held out, so what is left after a division by 5 knows nothing of it.
    return not is_held_out(user) and int(sha256(user.encode()).hexdigest(), 16) // 5 % _EVERY == 0


@dataclass(frozen=True, slots=True)
class Selected:
    """A source of some of another's users."""

    source: Source
    kept: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.source.name

    def users(self) -> Sequence[str]:
        return self.kept

    def messages(self, user: str, *, keystrokes: bool = False) -> list[Message]:
        return self.source.messages(user, keystrokes=keystrokes)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Users who do not train: `words` to ask for, those of the messages `sentences`, and each one's `log`.

    `seed` is what the messages were drawn by.
    """

    users: Sequence[str]
    sentences: Sequence[Sequence[int]]
    words: PackedBatches
    source: Source
    vocabulary: Vocabulary
    seed: int = 0

    def known_to(self, vocabulary: Vocabulary) -> "Part":
        """The same messages as a model with another vocabulary sees them: what it does not know is a miss."""
        count = sum(len(sentence) - 2 for sentence in self.sentences)
        sentences = drawn_sentences(self.source, self.users, vocabulary, words=count, seed=self.seed)
        return Part(self.users, sentences, evaluation_set(sentences), self.source, vocabulary, self.seed)

    def log(self, user: str) -> list[list[int]]:
        """Token ids of the messages that have a word, oldest first; no more of them than a phone keeps."""
        return _log(self.source, user, self.vocabulary)


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """What all settings of an experiment share: the phones that train, and words of the users who do not.

    The words are drawn once, under the experiment's first seed, so that all runs answer the same questions.

    vocabulary   what every model knows, its words with these
    frequencies  float64 (V - 4,)
    public       text that anyone may read, of all its users, if there is any
    """

    source: str
    preset: str
    population: Population
    validation: Part
    held_out: Part
    vocabulary: Vocabulary
    frequencies: np.ndarray
    public: Source | None = None

    def phones_text(self) -> Iterator[list[int]]:
        """Token ids of all training phones' messages, user by user."""
        for user in self.population.users:
            yield from self.population.log(user).sentences(self.vocabulary)

    def public_text(self) -> Iterator[list[int]]:
        """Token ids of the public text's messages, no more of one user than a phone keeps.

        Raises ConfigError when there is none.
        """
        if self.public is None:
            raise ConfigError("there must be public text to train on, got none")
        for user in self.public.users():
            yield from _log(self.public, user, self.vocabulary)


def open_data(logs: str, *, preset_name: str, seed: int, words: int, public: str | None = None) -> Data:
    """Open the source `logs` and draw about `words` words of held-out users, a third as many for validation.

    The vocabulary is a public list, or with the source `public` the words that are most frequent there.
    Raises ConfigError or DataError.
    """
    source = open_logs(logs, seed=seed, devices=0)
    size, text = preset(preset_name).vocab, None
    if public is None:
        vocabulary, frequencies = public_vocabulary(size)
    else:
        text = open_source(public, seed=seed)
        messages = (message.text for user in text.users() for message in text.messages(user))
        vocabulary, frequencies = counted_vocabulary(
            messages, size, f"words counted on public text, {text.name}"
        )
    validation = [user for user in source.users() if is_validation(user)]
    training = tuple(user for user in source.users() if not is_held_out(user) and not is_validation(user))
    held_out = held_out_users(source)
    if not validation:
        raise DataError(f"the source {source.name} has no users for validation (about one in ten is)")

    def part(users: Sequence[str], count: int) -> Part:
        sentences = drawn_sentences(source, users, vocabulary, words=count, seed=seed)
        return Part(users, sentences, evaluation_set(sentences), source, vocabulary, seed)

    return Data(
        source=logs,
        preset=preset_name,
        population=Population(Selected(source, training)),
        validation=part(validation, -(-words // 3)),
        held_out=part(held_out, words),
        vocabulary=vocabulary,
        frequencies=frequencies,
        public=text,
    )


def _log(source: Source, user: str, vocabulary: Vocabulary) -> list[list[int]]:
    log = TypingLog()
    log.extend(source.messages(user))
    return log.sentences(vocabulary)
