"""Who sends a request: every phone has an Ed25519 key (RFC 8032) and signs what it sends.

The server knows the public key from enrolment. A signature covers the method, the path, the body, the time
and a nonce; a server that remembers nonces for as long as a timestamp stays fresh cannot be replayed to.
Private and public keys are 32 raw bytes. They come from the operating system's randomness, never from a seed.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kbdfl.errors import Unauthorised

DEVICE, TIME, NONCE, SIGNATURE = "X-Kbdfl-Device", "X-Kbdfl-Time", "X-Kbdfl-Nonce", "X-Kbdfl-Signature"
FRESH_S = 300
NONCE_FORM = re.compile("[0-9a-f]{16,64}")


def generate_key() -> bytes:
    """A new private key (32 bytes)."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def public_key(key: bytes) -> bytes:
    """The public key (32 bytes) of the private `key`."""
    return Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()


def device_id(public: bytes) -> str:
    """The device's name: the first 16 hex digits of the sha256 of its public key (32 bytes)."""
    if len(public) != 32:
        raise Unauthorised(f"a public key must be 32 bytes, got {len(public)}")
    return hashlib.sha256(public).hexdigest()[:16]


def new_nonce() -> str:
    """32 random hex digits."""
    return secrets.token_hex(16)


def _message(*, method: str, path: str, body: bytes, timestamp: str, nonce: str) -> bytes:
    """What is signed; refuses line breaks, which would let two requests share one message."""
    if any(mark in part for part in (method, path) for mark in "\r\n"):
        raise Unauthorised("method and path must be one line each")
    lines = ("kbdfl-request-v1", method.upper(), path, hashlib.sha256(body).hexdigest(), timestamp, nonce)
    return "\n".join(lines).encode()


class Signer:
    """A phone's private key (32 bytes), ready to sign many requests; `device` is the phone's id."""

    def __init__(self, key: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(key)
        self.device = device_id(self._private.public_key().public_bytes_raw())

    def sign(
        self, *, method: str, path: str, body: bytes, timestamp: float, nonce: str | None = None
    ) -> dict[str, str]:
        """The four headers that prove who sends `body` to `path` (without a query).

        `timestamp` is in seconds since 1970; `nonce` is 16 to 64 hex digits, fresh for every request (drawn here
        if not given).
        """
        nonce = new_nonce() if nonce is None else nonce
        if not NONCE_FORM.fullmatch(nonce):
            raise Unauthorised("a nonce must be 16 to 64 lower-case hex digits")
        stamp = str(int(timestamp))
        message = _message(method=method, path=path, body=body, timestamp=stamp, nonce=nonce)
        signature = self._private.sign(message).hex()
        return {DEVICE: self.device, TIME: stamp, NONCE: nonce, SIGNATURE: signature}


def sign_request(
    key: bytes, *, method: str, path: str, body: bytes, timestamp: float, nonce: str | None = None
) -> dict[str, str]:
    """What a `Signer` of the private `key` gives for one request."""
    return Signer(key).sign(method=method, path=path, body=body, timestamp=timestamp, nonce=nonce)


@lru_cache(maxsize=1 << 14)
def _loaded(public: bytes) -> Ed25519PublicKey:
    """A phone asks again and again, and a key takes a fifth of a signature's time to read."""
    return Ed25519PublicKey.from_public_bytes(public)


def verify_request(
    public: bytes, *, method: str, path: str, body: bytes, headers: Mapping[str, str], now: float
) -> None:
    """Raise Unauthorised unless `headers` sign this request with the key of `public` (32 bytes).

    `now` is in seconds since 1970; a timestamp more than FRESH_S away from it, either way, is refused.
    Whether a nonce came before is for the caller to remember.
    """
    device, stamp, nonce, signature = (headers.get(name) for name in (DEVICE, TIME, NONCE, SIGNATURE))
    if device is None or stamp is None or nonce is None or signature is None:
        raise Unauthorised(f"a request must carry {DEVICE}, {TIME}, {NONCE} and {SIGNATURE}")
    if device != device_id(public):
        raise Unauthorised("the request names another device than the key belongs to")
    if not re.fullmatch("[0-9]{1,12}", stamp) or not NONCE_FORM.fullmatch(nonce):
        raise Unauthorised(f"{TIME} must be whole seconds and {NONCE} 16 to 64 hex digits")
    if not re.fullmatch("[0-9a-f]{128}", signature):
        raise Unauthorised(f"{SIGNATURE} must be 128 hex digits")
    if abs(now - int(stamp)) > FRESH_S:
        raise Unauthorised(f"the request must be at most {FRESH_S} s old, check the device's clock")
    message = _message(method=method, path=path, body=body, timestamp=stamp, nonce=nonce)
    try:
        _loaded(public).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        raise Unauthorised("the signature does not fit the request") from None
