"""The messages between a server and its devices: frozen, checked when made, and compact msgpack on the wire.

A message is a msgpack array: its kind, the session, and its fields in order. No message but an `Advert` names its
sender: whoever carries them knows it (a signed request), and hands it over beside the message. Reading refuses what
is longer than any such message may be before it looks inside, and whatever deviates in type, length or range.

Devices are numbered by their place in the `Roster`. A bitmap over them has bit i % 8 of byte i // 8 for device i.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Self, cast

import msgpack

from kbdfl.errors import ConfigError, TooLarge, WireError
from kbdfl.secagg.crypto import KEY, SIGNATURE, TAG, Context, digest
from kbdfl.secagg.field import BYTES
from kbdfl.secagg.graph import Plan
from kbdfl.secagg.payload import MOST_BITS, bits_for, packed_bytes

SESSION, SHA256 = 16, 32  # bytes
MOST_DEVICES, MOST_WORDS = 1 << 14, 1 << 26
ENTRY = KEY + 16  # a device in a roster: its identity, and the first half of its advert's sha256
NEIGHBOUR = 2 * KEY + SIGNATURE  # a neighbour's advert without its identity
BOX = 2 * BYTES + TAG  # two sealed shares
MAP = MOST_DEVICES // 8

Form = tuple[Callable[[Any], bool], str]


def _exactly(size: int) -> Form:
    return lambda value: type(value) is bytes and len(value) == size, f"{size} bytes"


def _pieces(size: int, least: int, most: int) -> Form:
    return (
        lambda value: type(value) is bytes and len(value) % size == 0 and least <= len(value) // size <= most,
        f"{least} to {most} pieces of {size} bytes",
    )


def _count(least: int, most: int) -> Form:
    return lambda value: type(value) is int and least <= value <= most, f"a whole number in [{least}, {most}]"


def _name(most: int) -> Form:
    return (
        lambda value: type(value) is str and 1 <= len(value) <= most and value.isprintable(),
        f"1 to {most} printable characters",
    )


@dataclass(frozen=True)
class Message:
    """What all have in common: the session, 16 bytes that never came before. (No slots: some keep what they derive.)"""

    session: bytes
    kind: ClassVar[int]
    largest: ClassVar[int]  # bytes on the wire
    forms: ClassVar[dict[str, Form]] = {}

    def __post_init__(self) -> None:
        for name, (accepts, wanted) in ({"session": _exactly(SESSION)} | self.forms).items():
            if not accepts(getattr(self, name)):
                raise WireError(f"{name} of a {type(self).__name__.lower()} must be {wanted}")

    def encode(self) -> bytes:
        """The message as bytes."""
        values = [getattr(self, field.name) for field in fields(self)]
        return cast(bytes, msgpack.packb([self.kind, *values], use_bin_type=True))  # None is for streams

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The message in `data`, which must be exactly one of this class. Raises TooLarge or WireError."""
        what = cls.__name__.lower()
        if len(data) > cls.largest:
            raise TooLarge(f"a {what} must be at most {cls.largest} bytes, got {len(data)}")
        try:
            content = msgpack.unpackb(data, raw=False, max_array_len=32, max_map_len=0, max_ext_len=0)
        except (ValueError, TypeError, msgpack.UnpackException):
            raise WireError(f"a {what} must be msgpack") from None
        names = [field.name for field in fields(cls)]
        if type(content) is not list or len(content) != 1 + len(names):
            raise WireError(f"a {what} must be an array of {1 + len(names)}")
        if type(content[0]) is not int or content[0] != cls.kind:
            raise WireError(f"a {what} must be of kind {cls.kind}")
        message = cls(*content[1:])
        if message.encode() != data:
            raise WireError(f"a {what} must be written in the shortest way")
        return message


@dataclass(frozen=True)
class Terms(Message):
    """Server to device: what is to be summed, in which session. All keys and signatures are bound to all of it.

    At most `devices` may take part; each gives `words` integers of magnitude at most `levels` + `noise_bound`.
    `issued_s` is in seconds since 1970.
    """

    task: str
    round: int
    model_sha256: bytes
    issued_s: int
    devices: int
    words: int
    levels: int
    noise_bound: int
    kind = 1
    largest = 512
    forms: ClassVar[dict[str, Form]] = {
        "task": _name(64),
        "round": _count(0, (1 << 53) - 1),
        "model_sha256": _exactly(SHA256),
        "issued_s": _count(0, (1 << 53) - 1),
        "devices": _count(2, MOST_DEVICES),
        "words": _count(1, MOST_WORDS),
        "levels": _count(1, (1 << 31) - 1),
        "noise_bound": _count(0, (1 << 31) - 1),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            bits_for(self.devices, self.bound)
        except ConfigError as error:
            raise WireError(str(error)) from None

    @property
    def bound(self) -> int:
        """The largest magnitude of a device's integers."""
        return self.levels + self.noise_bound

    @cached_property
    def bits(self) -> int:
        """b of the words on the wire."""
        return bits_for(self.devices, self.bound)

    @property
    def payload_bytes(self) -> int:
        """How long a device's masked words are."""
        return packed_bytes(self.words, self.bits)

    @cached_property
    def context(self) -> Context:
        """What keys and signatures are bound to."""
        return Context(self.session, self.round, self.model_sha256, digest("terms", self.encode()))


@dataclass(frozen=True)
class Advert(Message):
    """Device to server: its Ed25519 identity, two fresh X25519 keys, and its signature over them and the terms."""

    identity: bytes
    sealing: bytes
    masking: bytes
    signature: bytes
    kind = 2
    largest = 256
    forms: ClassVar[dict[str, Form]] = {
        "identity": _exactly(KEY),
        "sealing": _exactly(KEY),
        "masking": _exactly(KEY),
        "signature": _exactly(SIGNATURE),
    }

    @property
    def entry(self) -> bytes:
        """The device in a roster."""
        return self.identity + digest("advert", self.session, *self.keys)[: ENTRY - KEY]

    @property
    def keys(self) -> tuple[bytes, bytes, bytes]:
        """What the signature covers, beside the terms."""
        return self.identity, self.sealing, self.masking


@dataclass(frozen=True)
class Roster(Message):
    """Server to device: all who take part, ascending by identity, the plan, and the adverts of the device's
    neighbours.

    `neighbours` are in order of their places; which places those are, the device works out.
    """

    entries: bytes
    degree: int
    threshold: int
    quorum: int
    neighbours: bytes
    kind = 3
    largest = MOST_DEVICES * (ENTRY + NEIGHBOUR) + 64
    forms: ClassVar[dict[str, Form]] = {
        "entries": _pieces(ENTRY, 2, MOST_DEVICES),
        "degree": _count(1, MOST_DEVICES),
        "threshold": _count(1, MOST_DEVICES),
        "quorum": _count(1, MOST_DEVICES),
        "neighbours": _pieces(NEIGHBOUR, 1, MOST_DEVICES),
    }

    @property
    def identities(self) -> list[bytes]:
        """The Ed25519 keys, in order."""
        return [self.entries[at : at + KEY] for at in range(0, len(self.entries), ENTRY)]


@dataclass(frozen=True)
class Shares(Message):
    """Device to server: a sealed pair of shares for each neighbour, by place, and the own mask's commitment."""

    commitment: bytes
    boxes: bytes
    kind = 4
    largest = MOST_DEVICES * BOX + 128
    forms: ClassVar[dict[str, Form]] = {
        "commitment": _exactly(SHA256),
        "boxes": _pieces(BOX, 1, MOST_DEVICES),
    }


@dataclass(frozen=True)
class Inbox(Message):
    """Server to device: the boxes of those neighbours, a bitmap, that gave shares, in order of place."""

    senders: bytes
    boxes: bytes
    kind = 5
    largest = MOST_DEVICES * BOX + MAP + 64
    forms: ClassVar[dict[str, Form]] = {
        "senders": _pieces(1, 1, MAP),
        "boxes": _pieces(BOX, 0, MOST_DEVICES),
    }


@dataclass(frozen=True)
class Masked(Message):
    """Device to server: its words with all masks added, packed."""

    words: bytes
    kind = 6
    largest = MOST_WORDS * MOST_BITS // 8 + 64
    forms: ClassVar[dict[str, Form]] = {"words": _pieces(1, 1, MOST_WORDS * MOST_BITS // 8)}


@dataclass(frozen=True)
class Survivors(Message):
    """Server to device: bitmaps of those whose words are in the sum, and of those who gave shares and then no words."""

    alive: bytes
    dropped: bytes
    kind = 7
    largest = 2 * MAP + 64
    forms: ClassVar[dict[str, Form]] = {"alive": _pieces(1, 1, MAP), "dropped": _pieces(1, 1, MAP)}

    def signed(self, terms: Terms, roster: bytes) -> bytes:
        """What a confirmation signs: the terms, the digest of the `roster`, and both sets."""
        return digest("survivors", terms.context.label, roster, self.alive, self.dropped)


@dataclass(frozen=True)
class Confirmation(Message):
    """Device to server: its signature over the survivors that it was told of."""

    signature: bytes
    kind = 8
    largest = 128
    forms: ClassVar[dict[str, Form]] = {"signature": _exactly(SIGNATURE)}


@dataclass(frozen=True)
class Quorum(Message):
    """Server to device: the signatures of those in the bitmap, in order of place, over one set of survivors."""

    signers: bytes
    signatures: bytes
    kind = 9
    largest = MOST_DEVICES * SIGNATURE + MAP + 64
    forms: ClassVar[dict[str, Form]] = {
        "signers": _pieces(1, 1, MAP),
        "signatures": _pieces(SIGNATURE, 0, MOST_DEVICES),
    }


@dataclass(frozen=True)
class Unmasked(Message):
    """Device to server: one share of each neighbour that gave it any, in order of place.

    Of the seed of its own mask, if that neighbour survived; else of its masking key.
    """

    shares: bytes
    kind = 10
    largest = MOST_DEVICES * BYTES + 64
    forms: ClassVar[dict[str, Form]] = {"shares": _pieces(BYTES, 1, MOST_DEVICES)}


def roster_digest(session: bytes, entries: bytes, plan: Plan) -> bytes:
    """The sha256 of what all devices must have got alike; the ring follows from it."""
    numbers = (plan.degree, plan.threshold, plan.quorum)
    return digest("roster", session, entries, *(number.to_bytes(4, "little") for number in numbers))


def to_bitmap(places: Iterable[int], devices: int) -> bytes:
    """The bitmap of `places` among `devices`."""
    bitmap = bytearray((devices + 7) // 8)
    for place in places:
        bitmap[place // 8] |= 1 << place % 8
    return bytes(bitmap)


def from_bitmap(bitmap: bytes, devices: int) -> list[int]:
    """The places in `bitmap`, ascending. Raises WireError for another length, or one that is not among `devices`."""
    number = int.from_bytes(bitmap, "little")
    if len(bitmap) != (devices + 7) // 8 or number >> devices:
        raise WireError(f"a bitmap must name some of {devices} devices and nobody else")
    return [place for place in range(devices) if number >> place & 1]


def in_pieces(data: bytes, size: int) -> list[bytes]:
    """`data` cut into pieces of `size` bytes."""
    return [data[at : at + size] for at in range(0, len(data), size)]
