"""What phones sum under secure aggregation: the levels of an upload, and after them how much they trained, as digits.

The chain of a secure task ends in `fixed`, and all that it draws for a round is drawn by all phones alike; what one
draws for itself, the rounding, is done once it is encoded. So the levels' sum, decoded once, is the sum of the updates.

Messages, words and loss follow as numbers in base `levels` + 1, lowest digit first, each digit a word of its own: sums
of digits are as bounded as sums of levels, and what they stand for adds up. Each number is cut to what its digits hold.

Phones that add noise (`kbdfl.privacy.distributed`) round by themselves, and send no such numbers: they have none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite, sqrt

import numpy as np

from kbdfl.codec.fixed import SPREAD, Fixed
from kbdfl.errors import ConfigError, WireError
from kbdfl.privacy import Shares, Source
from kbdfl.secagg import Rule
from kbdfl.secagg.graph import honest_of, quorum_of
from kbdfl.secagg.payload import summable_levels
from kbdfl.transform import Draws, Transform, Update, decode_chain, encode_chain, take_sections
from kbdfl.wire import Report

LOSS_STEP = 2.0**-10  # nats
EXAMPLES, TOKENS, LOSS = (1 << 16) - 1, (1 << 20) - 1, (1 << 36) - 1  # the largest; the loss in LOSS_STEPs
STEPS = 5  # of a session, each of which may take a phase's deadline


@dataclass(frozen=True, slots=True)
class SecureAggregation:
    """Whether a round's updates are summed unseen (`kbdfl.secagg`), and how.

    on                whether they are
    devices           fewer phones are not summed up; phones have a floor of their own
    dropout           the share of phones that may fall silent in a session without losing it, as it is planned
    phase_deadline_s  how long each step of a session waits for phones
    """

    on: bool = False
    devices: int = 32
    dropout: float = 1 / 3
    phase_deadline_s: float = 15.0

    def __post_init__(self) -> None:
        if not 0 < self.phase_deadline_s < float("inf"):
            raise ConfigError(f"phase_deadline_s must be > 0 and finite, got {self.phase_deadline_s}")
        if not isfinite(self.dropout):
            raise ConfigError(f"secure dropout must be finite, got {self.dropout}")
        for field in fields(self):
            if not self.on and getattr(self, field.name) != field.default:
                raise ConfigError(f"{field.name} must come with secure aggregation")
        if self.on:
            self.rule  # noqa: B018  refuses what cannot be planned for

    @property
    def rule(self) -> Rule:
        """What a session is planned by."""
        return Rule(devices=self.devices, dropout=self.dropout)

    def quorum(self, devices: int) -> int:
        """How many of so many phones must agree on who is in the sum."""
        return quorum_of(devices, self.rule.corrupt)

    @property
    def honest(self) -> int:
        """How many phones that do not collude are in any sum, at least: noise is calibrated to so many."""
        return honest_of(self.devices, self.rule.corrupt)


@dataclass(frozen=True, slots=True)
class Noise:
    """What phones add, together at least a `multiplier` of clip norms, however few of the `devices` that are invited
    survive: `survivors` honest ones are enough for it. A multiplier of 0 is none."""

    multiplier: float = 0.0
    survivors: int = 1
    devices: int = 1


@dataclass(frozen=True, slots=True)
class Tally:
    """How much phones trained: messages, words, and what was lost on them in LOSS_STEPs of a nat."""

    examples: int
    tokens: int
    loss: int

    @classmethod
    def of(cls, report: Report) -> "Tally":
        """One phone's, cut to what fits."""
        loss = round(min(report.train_loss * report.tokens / LOSS_STEP, LOSS))
        return cls(min(report.examples, EXAMPLES), min(report.tokens, TOKENS), loss)

    def each(self, devices: int) -> list[tuple[int, int, float]]:
        """Examples, tokens and nats a token of so many phones, as alike as whole numbers are, with these sums.

        Numbers that are none, which phones that lie can make of a sum, become the nearest that are.
        """
        examples, tokens = max(self.examples, devices), max(self.tokens, 0)
        loss = max(self.loss, 0) * LOSS_STEP / tokens if tokens else 0.0
        return [
            (
                examples // devices + (place < examples % devices),
                tokens // devices + (place < tokens % devices),
                loss,
            )
            for place in range(devices)
        ]


@dataclass(frozen=True, slots=True)
class SecurePayload:
    """The words of one phone's update of `size` values through `transforms`, and what a sum of such says."""

    transforms: Sequence[Transform]
    size: int
    noise: Noise = Noise()

    @property
    def levels(self) -> int:
        """The largest magnitude of a word, but for its noise."""
        return self._codec.levels

    @property
    def noise_bound(self) -> int:
        """The largest magnitude of that."""
        return self.shares.noise_bound(self.noise.multiplier) if self.noise.multiplier else 0

    @property
    def clip_norm(self) -> float:
        """What bounds one phone's values, as they are summed."""
        return self._codec.whole_norm

    @property
    def words(self) -> int:
        """How many there are."""
        return self._values + sum(self._digits)

    @property
    def shares(self) -> Shares:
        """How phones share the noise."""
        codec, size, noise = self._codec, self._values, self.noise
        steps = codec.levels * sqrt(size) / SPREAD
        return Shares(steps, codec.levels, size, survivors=noise.survivors, devices=noise.devices)

    @property
    def _codec(self) -> Fixed:
        codec = self.transforms[-1]
        if not isinstance(codec, Fixed):
            raise ConfigError(f"a chain that is summed unseen must end in fixed, got {codec.name}")
        return codec

    @property
    def _values(self) -> int:
        size = self.size
        for transform in self.transforms:
            size = transform.size_after(size, Update({}))
        return size

    @property
    def _digits(self) -> list[int]:
        """Digits of the largest number of each kind."""
        if self.noise.multiplier:
            return []
        return [len(_in_digits(most, self.levels + 1)) for most in (EXAMPLES, TOKENS, LOSS)]

    def encode(self, delta: np.ndarray, draws: Draws, *, source: Source | None = None) -> Update:
        """A phone's `delta` float32 (P,), with its share of the noise: section "levels" int32 (k,).

        Clipped where it is summed, once the steps before have turned and sampled it, and rounded there. Raises
        ModelError as `encode_chain` does.
        """
        vector = encode_chain(self.transforms[:-1], delta, draws).vector
        values = vector.astype(float) / self._codec.step(len(vector))
        levels = self.shares.encode(values, self.noise.multiplier, source)
        return Update({"levels": levels.astype(np.int32)})

    def of(self, report: Report) -> np.ndarray:
        """A phone's words, int64 (m,). Raises WireError for another update than such."""
        if self.noise.multiplier:
            (values,) = take_sections(report.update, {"levels": np.int32})
        else:
            values = summable_levels(report.update)
        if len(values) != self._values:
            raise WireError(f"an update of {self._values} values is needed, got {len(values)}")
        if self.noise.multiplier:
            return values.astype(np.int64)
        tally = Tally.of(report)
        digits = [
            _in_digits(number, self.levels + 1, count)
            for number, count in zip((tally.examples, tally.tokens, tally.loss), self._digits, strict=True)
        ]
        return np.concatenate([values.astype(np.int64), *(np.array(row, np.int64) for row in digits)])

    def read(self, total: np.ndarray, draws: Draws) -> tuple[np.ndarray, Tally]:
        """The sum of the updates float32 (P,), and all tallies together, of a sum of words int64 (m,).

        Of the `draws` those of the round are looked at. Raises WireError for another number of words.
        """
        if len(total) != self.words:
            raise WireError(f"a sum of {self.words} words is needed, got {len(total)}")
        values = self._codec.decode_sum(total[: self._values])
        delta = decode_chain(self.transforms[:-1], Update.of_delta(values), self.size, draws)
        numbers, at = [], self._values
        for count in self._digits:
            digits = total[at : at + count].tolist()
            numbers.append(sum(digit * (self.levels + 1) ** place for place, digit in enumerate(digits)))
            at += count
        return delta, Tally(*(numbers or (0, 0, 0)))


def _in_digits(number: int, base: int, count: int = 0) -> list[int]:
    """The digits of `number`, lowest first, and zeros until there are `count`."""
    digits: list[int] = []
    while number or len(digits) < count:
        number, digit = divmod(number, base)
        digits.append(digit)
    return digits


def check_summable(transforms: Sequence[Transform]) -> None:
    """Raise ConfigError unless what the chain gives can be summed without being seen."""
    for transform in transforms:
        if not transform.summable:
            raise ConfigError(
                f"upload must be summable with secure aggregation, as rotate-shared+shared:0.125+fixed is; "
                f"{transform.name} differs from phone to phone"
            )
    SecurePayload(transforms, 1).levels  # noqa: B018  refuses another codec
