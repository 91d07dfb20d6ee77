"""What happens to an update on its way: a chain of two-sided transforms.

The device encodes with the first transform to the last, the server decodes with the last to the first. A
transform is a frozen dataclass; what it does not override is the identity. It states four things others build on:
whether its output can be summed without being decoded, how far it can stretch a Euclidean norm, which form of an
update it takes and gives, and how many values it leaves.

An update has one vector, the section "delta", until a codec takes it; what a step must tell the other side besides
stands in sections of its own, which the steps after it carry along.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np

from kbdfl.errors import ConfigError, ModelError, WireError
from kbdfl.kernels.accumulate import accumulate_float32, l2_norm
from kbdfl.rng import seed_of

VECTOR = "delta"  # the section with what is not encoded yet
# Forms of an update: all of a delta's values; some of them, or others that stand for them; a codec's sections.
DELTA, VALUES, CODED = "delta", "values", "coded"

# No honest update comes near; below it a weighted sum over any cohort stays far inside float32.
LARGEST_NORM = 2.0**64


@dataclass(frozen=True, slots=True)
class Draws:
    """The seeds (uint64) of what a chain draws: both sides know them, so nothing drawn need be sent.

    report  of what this report draws alone
    round   of what all reports of a round draw alike
    """

    report: int
    round: int

    def of(self, name: str) -> "Draws":
        """The streams of one transform."""
        return Draws(seed_of(self.report, "transform", name), seed_of(self.round, "transform", name))


@dataclass(frozen=True, slots=True)
class Update:
    """An update in some form: named arrays. It starts as {"delta": float32 (P,)}."""

    sections: dict[str, np.ndarray]

    @classmethod
    def of_delta(cls, delta: np.ndarray) -> "Update":
        return cls({VECTOR: delta})

    @property
    def delta(self) -> np.ndarray:
        """The flat float32 vector (P,) of an update that is not encoded. Raises WireError if it is."""
        (delta,) = take_sections(self, {VECTOR: np.float32})
        return delta

    @property
    def vector(self) -> np.ndarray:
        """What is not encoded yet, float32 of one axis, whatever travels beside it. Raises WireError if all is."""
        (vector,), _ = split_sections(self, {VECTOR: np.float32})
        return vector

    def coded(self, sections: dict[str, np.ndarray]) -> "Update":
        """With `sections` in the vector's place, before those that travel beside it."""
        return Update(sections | {name: array for name, array in self.sections.items() if name != VECTOR})


class Transform:
    """One step of the chain. Subclasses are frozen dataclasses and override what they change.

    `takes` are the forms an update may have before `encode`, `gives` its form after it.
    """

    __slots__ = ()
    name: ClassVar[str]
    takes: ClassVar[tuple[str, ...]] = (DELTA,)
    gives: ClassVar[str] = DELTA
    summable: ClassVar[bool] = True

    @property
    def kept(self) -> float:
        """About which share of the values it leaves."""
        return 1.0

    @property
    def bits_each(self) -> float:
        """About how many bits its own sections take for each value that it is given."""
        return 0.0

    @property
    def norm_stretch(self) -> float:
        """The largest ||decode(encode(x))|| / ||x||."""
        return 1.0

    def encode(self, update: Update, draws: Draws) -> Update:
        """The device's side; `draws` are the transform's own."""
        return update

    def size_after(self, size: int, update: Update) -> int:
        """How many values `encode` leaves of `size`, if need be by the sections of the `update` that came."""
        return size

    def decode(self, update: Update, size: int, draws: Draws) -> Update:
        """The server's side: `size` values. Raises WireError for what `encode` cannot have given."""
        return update

    def decode_span(self, update: Update, span: slice, size: int, draws: Draws) -> Update:
        """The coordinates `span` of what `decode` gives; a codec that need not decode the others overrides this."""
        return Update.of_delta(self.decode(update, size, draws).delta[span])

    def accumulate(self, update: Update, draws: Draws, *, weight: float, acc: np.ndarray) -> None:
        """acc (P,) float64 += weight * decoded delta, as `kbdfl.kernels.accumulate` adds.

        A codec that can do both in one pass overrides this.
        """
        add_delta(self.decode(update, acc.size, draws), weight=weight, acc=acc)


def split_sections(update: Update, wanted: dict[str, type]) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """The sections named in `wanted` (name -> dtype), all one-dimensional, and the others. Raises WireError."""
    rest = dict(update.sections)
    if missing := wanted.keys() - rest.keys():
        raise WireError(f"the update must have sections {sorted(wanted)}, and has no {sorted(missing)[0]}")
    taken = [rest.pop(name) for name in wanted]
    for (name, dtype), array in zip(wanted.items(), taken, strict=True):
        if array.dtype != dtype or array.ndim != 1:
            raise WireError(
                f"section {name} must be {np.dtype(dtype)} of one axis, got {array.dtype} {array.shape}"
            )
    return taken, rest


def take_sections(update: Update, wanted: dict[str, type]) -> list[np.ndarray]:
    """The sections named in `wanted` (name -> dtype), all one-dimensional; WireError if there are others."""
    if update.sections.keys() != wanted.keys():
        raise WireError(
            f"the update must have sections {sorted(wanted)}, got {sorted(update.sections)}"[:300]
        )
    return split_sections(update, wanted)[0]


def decoded(vector: np.ndarray, rest: dict[str, np.ndarray]) -> Update:
    """An update whose vector was read from sections, beside the `rest` of them. Raises WireError if it has one."""
    if VECTOR in rest:
        raise WireError(f"an encoded update must have no section {VECTOR}")
    return Update({VECTOR: vector} | rest)


def check_size(size: int, wanted: int) -> None:
    """Raise WireError unless an update has as many values as are wanted."""
    if size != wanted:
        raise WireError(f"an update of {wanted} values is needed, got {size}")


def add_delta(update: Update, *, weight: float, acc: np.ndarray) -> None:
    """acc (P,) float64 += weight * the update's plain delta."""
    delta = update.delta
    check_size(delta.size, acc.size)
    accumulate_float32(acc, delta, weight)


def check_chain(transforms: Sequence[Transform]) -> None:
    """Raise ConfigError unless each step takes what the one before gives and the last one is a codec."""
    form, names = DELTA, set()
    for transform in transforms:
        if transform.name in names:
            raise ConfigError(f"a transform must stand once in a chain, got {transform.name} twice")
        if form not in transform.takes:
            raise ConfigError(
                f"{transform.name} must come where an update is {' or '.join(transform.takes)}, it is {form} there"
            )
        names.add(transform.name)
        form = transform.gives
    if form != CODED:
        raise ConfigError(f"a chain must end in a codec, got {[transform.name for transform in transforms]}")


def encode_chain(transforms: Sequence[Transform], delta: np.ndarray, draws: Draws) -> Update:
    """Encode `delta` (P,) float32, which is left as it is.

    Raises ModelError if `delta` is not finite or its norm is above LARGEST_NORM, before anything is encoded.
    """
    delta = np.ascontiguousarray(delta, np.float32)
    # Written so that a NaN fails it.
    if not (norm := l2_norm(delta)) <= LARGEST_NORM:
        raise ModelError(
            f"an update's norm must be at most {LARGEST_NORM:.3g}, got {norm:.3g}: the training diverged"
        )
    update = Update.of_delta(delta)
    for transform in transforms:
        update = transform.encode(update, draws.of(transform.name))
    return update


def _sizes(transforms: Sequence[Transform], update: Update, size: int) -> Iterator[int]:
    """How many values each transform was given."""
    for transform in transforms:
        yield size
        size = transform.size_after(size, update)


def nominal_bytes(transforms: Sequence[Transform], size: int) -> int:
    """About how long an update of `size` values is on the wire, not knowing what is in it."""
    bits, values = 0.0, float(size)
    for transform in transforms:
        bits += transform.bits_each * values
        values *= transform.kept
    return ceil(bits / 8)


def decode_chain(transforms: Sequence[Transform], update: Update, size: int, draws: Draws) -> np.ndarray:
    """The delta (size,) float32 that the server reads from `update`. Raises WireError."""
    sizes = list(_sizes(transforms, update, size))
    for transform, given in zip(reversed(transforms), reversed(sizes), strict=True):
        update = transform.decode(update, given, draws.of(transform.name))
    check_size(update.delta.size, size)
    return update.delta


def _reads_last(transforms: Sequence[Transform], place: int) -> bool:
    """Whether only identities are left to decode after the transform at `place`."""
    return all(type(earlier).decode is Transform.decode for earlier in transforms[:place])


def decode_span(
    transforms: Sequence[Transform], update: Update, span: slice, size: int, draws: Draws
) -> np.ndarray:
    """The coordinates `span` of what `decode_chain` gives, float32, without the others where a codec can.

    Raises WireError for an `update` that is not whole; whether its other coordinates are finite may go unnoticed.
    """
    sizes = list(_sizes(transforms, update, size))
    for place in range(len(transforms) - 1, -1, -1):
        transform, own = transforms[place], draws.of(transforms[place].name)
        if _reads_last(transforms, place):
            return transform.decode_span(update, span, sizes[place], own).delta
        update = transform.decode(update, sizes[place], own)
    return update.delta[span]


def accumulate_chain(
    transforms: Sequence[Transform], update: Update, draws: Draws, *, weight: float, acc: np.ndarray
) -> None:
    """acc (P,) float64 += weight * the decoded update, without the intermediate vector where a codec can.

    Raises WireError before `acc` is touched.
    """
    sizes = list(_sizes(transforms, update, acc.size))
    for place in range(len(transforms) - 1, -1, -1):
        transform, own = transforms[place], draws.of(transforms[place].name)
        if _reads_last(transforms, place):
            transform.accumulate(update, own, weight=weight, acc=acc)
            return
        update = transform.decode(update, sizes[place], own)
    add_delta(update, weight=weight, acc=acc)
