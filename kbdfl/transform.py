"""What happens to an update on its way: a chain of two-sided transforms.

The device encodes with the first transform to the last, the server decodes with the last to the first. A
transform is a frozen dataclass; what it does not override is the identity. It states three things others
build on: whether its output can be summed without being decoded, how far it can stretch a Euclidean norm, and
which form of an update it takes and gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kbdfl.errors import ConfigError, ModelError, WireError
from kbdfl.kernels.accumulate import accumulate_float32, l2_norm
from kbdfl.rng import seed_of

DELTA = "delta"

# No honest update comes near; below it a weighted sum over any cohort stays far inside float32.
LARGEST_NORM = 2.0**64


@dataclass(frozen=True, slots=True)
class Update:
    """An update in some form: named arrays. It starts as {"delta": float32 (P,)}."""

    sections: dict[str, np.ndarray]

    @classmethod
    def of_delta(cls, delta: np.ndarray) -> "Update":
        return cls({DELTA: delta})

    @property
    def delta(self) -> np.ndarray:
        """The flat float32 vector (P,) of an update that is not encoded. Raises WireError if it is."""
        (delta,) = take_sections(self, {DELTA: np.float32})
        return delta


class Transform:
    """One step of the chain. Subclasses are frozen dataclasses and override what they change.

    `takes` and `gives` name the form of the update before and after `encode`: "delta" is the plain vector,
    any other name the form of one codec.
    """

    __slots__ = ()
    name: ClassVar[str]
    takes: ClassVar[str] = DELTA
    gives: ClassVar[str] = DELTA
    summable: ClassVar[bool] = True

    @property
    def norm_stretch(self) -> float:
        """The largest ||decode(encode(x))|| / ||x||."""
        return 1.0

    def encode(self, update: Update, *, seed: int) -> Update:
        """The device's side; `seed` (uint64) decides whatever it draws."""
        return update

    def decode(self, update: Update) -> Update:
        """The server's side. Raises WireError for what `encode` cannot have given."""
        return update

    def decode_span(self, update: Update, span: slice) -> Update:
        """The coordinates `span` of what `decode` gives; a codec that need not decode the others overrides this."""
        return Update.of_delta(self.decode(update).delta[span])

    def accumulate(self, update: Update, *, weight: float, acc: np.ndarray) -> None:
        """acc (P,) += weight * decoded delta; a codec that can do both in one pass overrides this."""
        add_delta(self.decode(update), weight=weight, acc=acc)


def take_sections(update: Update, wanted: dict[str, type]) -> list[np.ndarray]:
    """The sections named in `wanted` (name -> dtype), all one-dimensional; WireError if there are others."""
    if update.sections.keys() != wanted.keys():
        raise WireError(f"the update must have sections {sorted(wanted)}, got {sorted(update.sections)}")
    for name, dtype in wanted.items():
        array = update.sections[name]
        if array.dtype != dtype or array.ndim != 1:
            raise WireError(
                f"section {name} must be {np.dtype(dtype)} of one axis, got {array.dtype} {array.shape}"
            )
    return [update.sections[name] for name in wanted]


def add_delta(update: Update, *, weight: float, acc: np.ndarray) -> None:
    """acc (P,) += weight * the update's plain delta, in float32."""
    delta = update.delta
    if delta.shape != acc.shape:
        raise WireError(f"an update of {acc.size} values is needed, got {delta.size}")
    accumulate_float32(acc, delta, weight)


def check_chain(transforms: Sequence[Transform]) -> None:
    """Raise ConfigError unless each step takes what the one before gives and the last one is a codec."""
    form, names = DELTA, set()
    for transform in transforms:
        if transform.name in names:
            raise ConfigError(f"a transform must stand once in a chain, got {transform.name} twice")
        if transform.takes != form:
            raise ConfigError(
                f"{transform.name} must come where an update is {transform.takes}, it is {form} there"
            )
        names.add(transform.name)
        form = transform.gives
    if form == DELTA:
        raise ConfigError(f"a chain must end in a codec, got {[transform.name for transform in transforms]}")


def encode_chain(transforms: Sequence[Transform], delta: np.ndarray, *, seed: int) -> Update:
    """Encode `delta` (P,) float32, which is left as it is; each transform has its own stream under `seed`.

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
        update = transform.encode(update, seed=seed_of(seed, "transform", transform.name))
    return update


def decode_chain(transforms: Sequence[Transform], update: Update, size: int) -> np.ndarray:
    """The delta (size,) float32 that the server reads from `update`. Raises WireError."""
    for transform in reversed(transforms):
        update = transform.decode(update)
    if update.delta.shape != (size,):
        raise WireError(f"an update of {size} values is needed, got {update.delta.size}")
    return update.delta


def decode_span(transforms: Sequence[Transform], update: Update, span: slice) -> np.ndarray:
    """The coordinates `span` of what `decode_chain` gives, float32, without the others where a codec can.

    Raises WireError for an `update` that is not whole; whether its other coordinates are finite may go unnoticed.
    """
    for place in range(len(transforms) - 1, -1, -1):
        if all(type(earlier).decode is Transform.decode for earlier in transforms[:place]):
            return transforms[place].decode_span(update, span).delta
        update = transforms[place].decode(update)
    return update.delta[span]


def accumulate_chain(
    transforms: Sequence[Transform], update: Update, *, weight: float, acc: np.ndarray
) -> None:
    """acc (P,) float32 += weight * the decoded update, without the intermediate vector where a codec can.

    Raises WireError before `acc` is touched.
    """
    for place in range(len(transforms) - 1, -1, -1):
        if all(type(earlier).decode is Transform.decode for earlier in transforms[:place]):
            transforms[place].accumulate(update, weight=weight, acc=acc)
            return
        update = transforms[place].decode(update)
    add_delta(update, weight=weight, acc=acc)
