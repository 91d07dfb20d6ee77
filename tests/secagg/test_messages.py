"""Every message through its bytes, and whatever is not exactly one refused in one line."""

from dataclasses import asdict

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.errors import KbdflError, TooLarge, WireError
from kbdfl.secagg import messages
from kbdfl.secagg.messages import from_bitmap, to_bitmap

S = b"s" * 16
TERMS = messages.Terms(S, "demo", 7, b"m" * 32, 1_700_000_000, 1_024, 1_000, 127, 0)
ALL = [
    TERMS,
    messages.Advert(S, b"i" * 32, b"c" * 32, b"k" * 32, b"x" * 64),
    messages.Roster(S, bytes(96), 1, 1, 2, bytes(128)),
    messages.Shares(S, bytes(32), bytes(160)),
    messages.Inbox(S, b"\x03", bytes(160)),
    messages.Masked(S, b"words"),
    messages.Survivors(S, b"\x03", b"\x04"),
    messages.Confirmation(S, bytes(64)),
    messages.Quorum(S, b"\x03", bytes(128)),
    messages.Unmasked(S, bytes(64)),
]


def name(message):
    return type(message).__name__


@pytest.mark.parametrize("message", ALL, ids=name)
def test_a_message_goes_through_its_bytes(message):
    data = message.encode()
    assert type(message).decode(data) == message
    assert len(data) <= type(message).largest
    assert msgpack.unpackb(data)[:2] == [message.kind, S]


def test_each_kind_has_its_own_number():
    assert len({message.kind for message in ALL}) == len(ALL)


@pytest.mark.parametrize("message", ALL, ids=name)
def test_truncated_longer_or_other_messages_are_refused(message):
    data, cls = message.encode(), type(message)
    for wrong in (data[:-1], data + b"\0", b"", b"\xc1", msgpack.packb({}), msgpack.packb([message.kind])):
        with pytest.raises(WireError):
            cls.decode(wrong)
    for other in ALL:
        if other.kind != message.kind:
            with pytest.raises((WireError, TooLarge)):
                cls.decode(other.encode())


@pytest.mark.parametrize("message", ALL, ids=name)
def test_a_message_longer_than_any_may_be_is_not_looked_into(message):
    class Short(type(message)):
        largest = 10

    with pytest.raises(TooLarge, match="at most 10 bytes"):
        Short.decode(message.encode())


@pytest.mark.parametrize("message", ALL, ids=name)
@given(data=st.data())
def test_a_flipped_bit_is_refused_or_says_something_else(message, data):
    changed = bytearray(message.encode())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read = type(message).decode(bytes(changed))
    except KbdflError:
        pass
    else:
        assert read != message
        assert read.encode() == bytes(changed)


@pytest.mark.parametrize("cls", [type(message) for message in ALL], ids=lambda cls: cls.__name__)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line(cls, data):
    with pytest.raises(
        KbdflError
    ) as caught:  # a message is longer than what is drawn, or these bytes are no session
        cls.decode(data)
    assert "\n" not in str(caught.value)


def test_the_shortest_writing_alone_is_read():
    long = msgpack.packb([8, S, bytes(64)]).replace(b"\xc4\x40", b"\xc5\x00\x40")
    with pytest.raises(WireError, match="shortest"):
        messages.Confirmation.decode(long)


@pytest.mark.parametrize(
    "change",
    [
        {"session": b"s" * 15}, {"session": "s" * 16}, {"task": ""}, {"task": "a\nb"}, {"task": "a" * 65},
        {"round": -1}, {"round": 1.0}, {"round": True}, {"model_sha256": b""}, {"issued_s": -1},
        {"devices": 1}, {"devices": messages.MOST_DEVICES + 1}, {"words": 0}, {"levels": 0},
        {"levels": 2**31 - 1, "devices": 2}, {"noise_bound": -1}, {"words": messages.MOST_WORDS + 1},
    ],
)  # fmt: skip
def test_terms_out_of_range_are_refused(change):
    fields = asdict(TERMS)
    with pytest.raises(WireError):
        messages.Terms(**fields | change)


def test_terms_say_how_long_a_payload_is():
    assert (TERMS.bits, TERMS.payload_bytes) == (18, 2_250)
    assert messages.Terms(S, "demo", 7, b"m" * 32, 0, 1_024, 1_000, 127, 200).bits == 20


def test_any_other_term_is_another_context():
    fields = asdict(TERMS)
    changes = {
        "session": b"S" * 16, "task": "other", "round": 8, "model_sha256": b"M" * 32, "issued_s": 1,
        "devices": 1_023, "words": 999, "levels": 126, "noise_bound": 1,
    }  # fmt: skip
    assert changes.keys() == fields.keys()
    labels = {messages.Terms(**fields | {name: value}).context.label for name, value in changes.items()}
    assert len(labels | {TERMS.context.label}) == len(changes) + 1


@given(places=st.sets(st.integers(0, 40)), devices=st.integers(41, 60))
def test_bitmaps_hold_places(places, devices):
    bitmap = to_bitmap(places, devices)
    assert from_bitmap(bitmap, devices) == sorted(places)
    assert len(bitmap) == (devices + 7) // 8


@pytest.mark.parametrize(("bitmap", "devices"), [(b"", 1), (b"\0\0", 8), (b"\x20", 5), (b"\x80", 7)])
def test_a_bitmap_of_unknown_devices_is_refused(bitmap, devices):
    with pytest.raises(WireError, match="nobody else"):
        from_bitmap(bitmap, devices)
