import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.errors import Unauthorised
from kbdfl.identity import (
    Signer,
    device_id,
    generate_key,
    new_nonce,
    public_key,
    sign_request,
    verify_request,
)

KEY = bytes(range(32))
PUBLIC = public_key(KEY)
NOW = 1_700_000_000.75
REQUEST = {"method": "POST", "path": "/v1/reports?task=demo", "body": b"frame"}


def headers(**changes):
    return sign_request(KEY, **REQUEST, timestamp=NOW, nonce="00ff" * 8) | changes


def test_a_signed_request_is_accepted():
    verify_request(PUBLIC, **REQUEST, headers=headers(), now=NOW)


def test_the_signed_message_is_the_documented_one():
    text = "kbdfl-request-v1\nPOST\n/v1/reports?task=demo\n{}\n1700000000\n{}".format(
        hashlib.sha256(b"frame").hexdigest(), "00ff" * 8
    )
    signature = bytes.fromhex(headers()["X-Kbdfl-Signature"])
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(signature, text.encode())


def test_keys_follow_rfc_8032():
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert public_key(secret) == public
    assert device_id(public) == hashlib.sha256(public).hexdigest()[:16]


def test_keys_and_nonces_are_fresh():
    assert len({generate_key() for _ in range(20)} | {new_nonce() for _ in range(20)}) == 40
    first, second = (sign_request(KEY, **REQUEST, timestamp=NOW) for _ in range(2))
    assert first["X-Kbdfl-Nonce"] != second["X-Kbdfl-Nonce"]


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"path": "/v1/reports?task=other"},
        {"path": "/v1/reports"},
        {"body": b"frame."},
        {"body": b""},
    ],
)
def test_a_signature_fits_one_request_only(change):
    with pytest.raises(Unauthorised, match="signature does not fit"):
        verify_request(PUBLIC, **REQUEST | change, headers=headers(), now=NOW)


@given(place=st.integers(0, 127), digit=st.sampled_from("0123456789abcdef"))
def test_a_signature_with_another_digit_is_refused(place, digit):
    signature = headers()["X-Kbdfl-Signature"]
    altered = signature[:place] + digit + signature[place + 1 :]
    if altered != signature:
        with pytest.raises(Unauthorised):
            verify_request(PUBLIC, **REQUEST, headers=headers(**{"X-Kbdfl-Signature": altered}), now=NOW)


def test_another_devices_key_is_refused():
    other = public_key(generate_key())
    with pytest.raises(Unauthorised, match="another device"):
        verify_request(other, **REQUEST, headers=headers(), now=NOW)
    renamed = headers(**{"X-Kbdfl-Device": device_id(other)})
    with pytest.raises(Unauthorised, match="signature"):
        verify_request(other, **REQUEST, headers=renamed, now=NOW)


@pytest.mark.parametrize(
    ("age", "fresh"), [(0, True), (299, True), (-299, True), (302, False), (-302, False)]
)
def test_a_timestamp_is_good_for_300_seconds(age, fresh):
    if fresh:
        verify_request(PUBLIC, **REQUEST, headers=headers(), now=NOW + age)
    else:
        with pytest.raises(Unauthorised, match="clock"):
            verify_request(PUBLIC, **REQUEST, headers=headers(), now=NOW + age)


@pytest.mark.parametrize("name", ["X-Kbdfl-Device", "X-Kbdfl-Time", "X-Kbdfl-Nonce", "X-Kbdfl-Signature"])
@pytest.mark.parametrize(
    "value", [None, "", "x", "é" * 16, "0" * 500, "-1", "1e9", "１７００００００００", "0\n0"]
)
def test_a_malformed_header_is_refused_in_one_line(name, value):
    sent = headers()
    if value is None:
        del sent[name]
    else:
        sent[name] = value
    with pytest.raises(Unauthorised) as caught:
        verify_request(PUBLIC, **REQUEST, headers=sent, now=NOW)
    assert "\n" not in str(caught.value)


def test_line_breaks_cannot_move_text_between_the_signed_parts():
    with pytest.raises(Unauthorised, match="one line"):
        sign_request(KEY, method="GET", path="/a\n/b", body=b"", timestamp=NOW)
    with pytest.raises(Unauthorised, match="one line"):
        verify_request(PUBLIC, method="GET", path="/a\n", body=b"", headers=headers(), now=NOW)


def test_keys_and_nonces_of_other_forms_are_refused():
    with pytest.raises(Unauthorised, match="32 bytes"):
        device_id(b"short")
    with pytest.raises(Unauthorised, match="nonce"):
        sign_request(KEY, **REQUEST, timestamp=NOW, nonce="short")


def test_a_signer_signs_as_its_key_does():
    signer = Signer(KEY)
    assert signer.device == device_id(PUBLIC)
    signed = signer.sign(**REQUEST, timestamp=NOW, nonce="0" * 16)
    assert signed == sign_request(KEY, **REQUEST, timestamp=NOW, nonce="0" * 16)
    verify_request(PUBLIC, **REQUEST, headers=signed, now=NOW)
