"""The one door to `cryptography` here: agreement, derivation, sealing, signatures and the stream of mask words.

X25519 (RFC 7748), HKDF-SHA256 (RFC 5869), ChaCha20-Poly1305 (RFC 8439), Ed25519 (RFC 8032), AES-256 in counter mode
(NIST SP 800-38A). Each derived key is for one purpose, one session and round, and one pair in one order; it encrypts
one message, so nonces and counters start at zero. Keys, seeds and public keys are 32 raw bytes.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kbdfl.errors import WireError
from kbdfl.kernels.masking import mask_add, mask_subtract
from kbdfl.secagg.field import draw_element, to_bytes

KEY, SIGNATURE, TAG = 32, 64, 16  # bytes
DOMAIN = b"kbdfl secagg 1 "
SEALING, PAIRWISE, OWN = "seal", "pairwise mask", "own mask"  # purposes
CHUNK = 1 << 16  # words of a stream that are made at once: they stay in the second cache
_ZEROS = bytes(4 * CHUNK)


@dataclass(frozen=True, slots=True)
class Context:
    """What every key, seal and signature of a session is bound to.

    `session` 16 bytes, `model` and `terms` 32: the sha256 of the model and of all terms of the session.
    """

    session: bytes
    round: int
    model: bytes
    terms: bytes

    @property
    def label(self) -> bytes:
        """88 bytes."""
        return self.session + self.round.to_bytes(8, "little") + self.model + self.terms


def new_secret() -> bytes:
    """32 bytes from the operating system's randomness that are an element of the field, little-endian."""
    return to_bytes(draw_element())


class Agreement:
    """An X25519 private key, ready to agree with many."""

    def __init__(self, secret: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(secret)

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self._private.public_key().public_bytes_raw()

    def with_peer(self, public: bytes) -> bytes:
        """The secret shared with the owner of `public`, 32 bytes. Raises WireError for a key of small order."""
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise WireError("a public key must not be of small order") from None


def derive(secret: bytes, purpose: str, context: Context, *owners: bytes) -> bytes:
    """32 bytes for one `purpose` in one `context`, of those whose identities (32 bytes each) are `owners`, in order."""
    info = b"".join([DOMAIN, purpose.encode(), b"\0", context.label, *owners])
    return HKDF(SHA256(), KEY, salt=None, info=info).derive(secret)


def seal(key: bytes, message: bytes, associated: bytes) -> bytes:
    """`message` and a tag of 16 bytes; `key` must never seal another message."""
    return ChaCha20Poly1305(key).encrypt(bytes(12), message, associated)


def unseal(key: bytes, box: bytes, associated: bytes) -> bytes:
    """The message in `box`. Raises WireError if a byte of it or of `associated` is another."""
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), box, associated)
    except InvalidTag:
        raise WireError("a sealed share does not open: it was altered, or is of another session") from None


def sign(identity: bytes, purpose: str, message: bytes) -> bytes:
    """The Ed25519 signature, 64 bytes, of `message` for one `purpose` by the private key `identity`."""
    return Ed25519PrivateKey.from_private_bytes(identity).sign(_signed(purpose, message))


def identity_of(identity: bytes) -> bytes:
    """The Ed25519 public key of the private key `identity`."""
    return Ed25519PrivateKey.from_private_bytes(identity).public_key().public_bytes_raw()


def signed_by(public: bytes, signature: bytes, purpose: str, message: bytes) -> bool:
    """Whether the owner of the Ed25519 key `public` signed `message` for this `purpose`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _signed(purpose, message))
    except (InvalidSignature, ValueError):
        return False
    return True


def digest(purpose: str, *parts: bytes) -> bytes:
    """The sha256 of `parts`, for one `purpose`; each part is preceded by its length."""
    running = hashlib.sha256(DOMAIN + purpose.encode() + b"\0")
    for part in parts:
        running.update(len(part).to_bytes(8, "little") + part)
    return running.digest()


def key_stream(seed: bytes, count: int) -> bytes:
    """The first `count` bytes of the AES-256-CTR key stream of `seed`, from counter zero."""
    return Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor().update(bytes(count))


def apply_mask(words: np.ndarray, seed: bytes, *, bits: int, subtract: bool = False) -> None:
    """words (m,) uint32 plus, or minus, the mask words of `seed` (32 bytes), modulo 2^bits, in place.

    The mask words are those of `key_stream` in fours of bytes, little-endian, of which the lowest `bits` bits count.
    """
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    change = mask_subtract if subtract else mask_add
    room = np.empty(min(CHUNK, len(words)), "<u4")
    for start in range(0, len(words), CHUNK):
        part = words[start : start + CHUNK]
        made = room[: len(part)]
        stream.update_into(memoryview(_ZEROS)[: made.nbytes], made.view(np.uint8).data)
        change(part, made.astype(np.uint32, copy=False), bits=bits)


def _signed(purpose: str, message: bytes) -> bytes:
    return DOMAIN + purpose.encode() + b"\0" + message
