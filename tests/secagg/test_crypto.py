"""The primitives on published vectors, and what keys are bound to."""

import hashlib
import hmac

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.errors import WireError
from kbdfl.secagg import crypto
from kbdfl.secagg.crypto import Agreement, Context

CONTEXT = Context(b"s" * 16, 7, b"m" * 32, b"t" * 32)
OTHERS = {
    "session": Context(b"S" * 16, 7, b"m" * 32, b"t" * 32),
    "round": Context(b"s" * 16, 8, b"m" * 32, b"t" * 32),
    "model": Context(b"s" * 16, 7, b"M" * 32, b"t" * 32),
    "terms": Context(b"s" * 16, 7, b"m" * 32, b"T" * 32),
}


def hkdf(secret, info, size=32):
    """RFC 5869 with an empty salt, in two lines of hmac."""
    key, block, out = hmac.digest(bytes(32), secret, "sha256"), b"", b""
    for counter in range(1, -(-size // 32) + 1):
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        out += block
    return out[:size]


def test_agreement_follows_rfc_7748():
    nine = bytes([9]) + bytes(31)  # section 5.2: one iteration
    shared = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert Agreement(nine).with_peer(nine).hex() == shared
    assert Agreement(nine).public.hex() == shared  # nine is the base point as well


def test_both_sides_agree():
    one, other = Agreement(crypto.new_secret()), Agreement(crypto.new_secret())
    assert one.with_peer(other.public) == other.with_peer(one.public)


@pytest.mark.parametrize("point", [bytes(32), bytes([1]) + bytes(31)])
def test_a_key_of_small_order_is_refused(point):
    with pytest.raises(WireError, match="small order"):
        Agreement(crypto.new_secret()).with_peer(point)


def test_derivation_is_hkdf_with_everything_in_info():
    case_3 = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert hkdf(bytes([0x0B]) * 22, b"", 42).hex() == case_3  # RFC 5869, appendix A.3
    info = b"kbdfl secagg 1 seal\0" + b"s" * 16 + (7).to_bytes(8, "little") + b"m" * 32 + b"t" * 32
    derived = crypto.derive(b"k" * 32, crypto.SEALING, CONTEXT, b"a" * 32, b"b" * 32)
    assert derived == hkdf(b"k" * 32, info + b"a" * 32 + b"b" * 32)


def test_keys_differ_by_purpose_session_round_model_terms_and_direction():
    def key(purpose=crypto.SEALING, context=CONTEXT, owners=(b"a" * 32, b"b" * 32)):
        return crypto.derive(b"k" * 32, purpose, context, *owners)

    keys = {key(), key(purpose=crypto.PAIRWISE), key(purpose=crypto.OWN), key(owners=(b"b" * 32, b"a" * 32))}
    keys |= {key(context=context) for context in OTHERS.values()}
    assert len(keys) == 4 + len(OTHERS)


def test_a_box_opens_with_its_key_and_associated_data_alone():
    box = crypto.seal(b"k" * 32, b"x" * 64, b"for you")
    assert crypto.unseal(b"k" * 32, box, b"for you") == b"x" * 64
    for key, associated in ((b"K" * 32, b"for you"), (b"k" * 32, b"for me")):
        with pytest.raises(WireError, match="does not open"):
            crypto.unseal(key, box, associated)


@given(place=st.integers(0, 79), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_a_box_is_noticed(place, bit):
    box = bytearray(crypto.seal(b"k" * 32, b"x" * 64, b""))
    box[place] ^= 1 << bit
    with pytest.raises(WireError, match="does not open"):
        crypto.unseal(b"k" * 32, bytes(box), b"")


def test_a_signature_is_for_one_purpose_message_and_key():
    key = crypto.new_secret()
    signature = crypto.sign(key, "advert", b"text")
    assert crypto.signed_by(crypto.identity_of(key), signature, "advert", b"text")
    assert not crypto.signed_by(crypto.identity_of(key), signature, "survivors", b"text")
    assert not crypto.signed_by(crypto.identity_of(key), signature, "advert", b"texts")
    assert not crypto.signed_by(crypto.identity_of(crypto.new_secret()), signature, "advert", b"text")
    assert not crypto.signed_by(b"\xff" * 32, signature, "advert", b"text")


def test_a_digest_tells_its_parts_apart():
    found = {
        crypto.digest(*parts) for parts in (("a", b"bc"), ("a", b"b", b"c"), ("b", b"bc"), ("a", b"bc", b""))
    }
    assert len(found) == 4
    assert (
        crypto.digest("a", b"b")
        == hashlib.sha256(b"kbdfl secagg 1 a\0" + (1).to_bytes(8, "little") + b"b").digest()
    )


def test_the_key_stream_is_aes_256_in_counter_mode():
    # The block cipher of a zero key and a zero block, as in NIST's known answers.
    assert crypto.key_stream(bytes(32), 16).hex() == "dc95c078a2408989ad48a21492842087"
    assert crypto.key_stream(b"k" * 32, 100) == crypto.key_stream(b"k" * 32, 200)[:100]


@pytest.mark.parametrize("size", [0, 1, crypto.CHUNK - 1, crypto.CHUNK, 2 * crypto.CHUNK + 3])
@pytest.mark.parametrize("bits", [2, 17, 32])
def test_a_mask_is_the_streams_little_endian_words_and_can_be_taken_off(size, bits):
    words = np.arange(size, dtype=np.uint32) & np.uint32(2**bits - 1)
    masked = words.copy()
    crypto.apply_mask(masked, b"k" * 32, bits=bits)
    stream = np.frombuffer(crypto.key_stream(b"k" * 32, 4 * size), "<u4")
    np.testing.assert_array_equal(masked, (words + stream) & np.uint32(2**bits - 1))
    crypto.apply_mask(masked, b"k" * 32, bits=bits, subtract=True)
    np.testing.assert_array_equal(masked, words)


def test_a_seeds_every_bit_counts():
    """No seed is folded: each of the 256 bits changes the stream."""
    seeds = [bytes(32)] + [(1 << bit).to_bytes(32, "little") for bit in range(256)]
    assert len({crypto.key_stream(seed, 16) for seed in seeds}) == 257
    assert len({crypto.new_secret() for _ in range(50)}) == 50
