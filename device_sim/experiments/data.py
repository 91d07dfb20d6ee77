"""The text of an experiment and its three parts: users who train, users who choose settings, users who judge."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from kbdfl.device_sim.population import Population, drawn_sentences, held_out_users, open_logs
from kbdfl.device_sim.store import TypingLog
from kbdfl.device_sim.typing.records import Message
from kbdfl.device_sim.typing.sources import Source, is_held_out
from kbdfl.errors import DataError
from kbdfl.metrics import evaluation_set
from kbdfl.model import preset
from kbdfl.text import PackedBatches, Vocabulary, public_vocabulary

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
    """Users who do not train: `words` of theirs to ask for, and each one's `log`."""

    users: Sequence[str]
    words: PackedBatches
    source: Source
    vocabulary: Vocabulary

    def log(self, user: str) -> list[list[int]]:
        """Token ids of the messages that have a word, oldest first; no more of them than a phone keeps."""
        log = TypingLog()
        log.extend(self.source.messages(user))
        return log.sentences(self.vocabulary)


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """What all settings of an experiment share: the phones that train, and words of the users who do not.

    The words are drawn once, under the experiment's first seed, so that all runs answer the same questions.
    """

    source: str
    preset: str
    population: Population
    validation: Part
    held_out: Part


def open_data(logs: str, *, preset_name: str, seed: int, words: int) -> Data:
    """Open the source `logs` and draw about `words` words of held-out users, a third as many for validation.

    Raises ConfigError or DataError.
    """
    source = open_logs(logs, seed=seed, devices=0)
    vocabulary, _ = public_vocabulary(preset(preset_name).vocab)
    validation = [user for user in source.users() if is_validation(user)]
    training = tuple(user for user in source.users() if not is_held_out(user) and not is_validation(user))
    held_out = held_out_users(source)
    if not validation:
        raise DataError(f"the source {source.name} has no users for validation (about one in ten is)")

    def part(users: Sequence[str], count: int) -> Part:
        sentences = drawn_sentences(source, users, vocabulary, words=count, seed=seed)
        return Part(users, evaluation_set(sentences), source, vocabulary)

    return Data(
        source=logs,
        preset=preset_name,
        population=Population(Selected(source, training)),
        validation=part(validation, -(-words // 3)),
        held_out=part(held_out, words),
    )
