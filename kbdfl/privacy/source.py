"""Random bits that nobody can repeat: the keystream of AES-256 in counter mode under a key of the operating system.

Noise that hides people must not follow from a run's seed: who knows the seed could take it off again. So this is the
one stream of the house without a name (`kbdfl.rng`), and a release begins a new one. `Source.of_key` is for tests.
"""

import os
from typing import Self

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY_BYTES = 32


class Source:
    """Uniform 64-bit words. It cannot be copied, packed or asked for its key."""

    __slots__ = ("_keystream",)

    def __init__(self) -> None:
        self._begin(os.urandom(KEY_BYTES))

    @classmethod
    def of_key(cls, key: bytes) -> Self:
        """The same words for the same 32 bytes: a seam for tests, and for nothing that is released."""
        source = cls.__new__(cls)
        source._begin(key)
        return source

    def _begin(self, key: bytes) -> None:
        # A key is used once, so its counter may begin at 0.
        self._keystream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def words(self, count: int) -> np.ndarray:
        """uint64 (count,), read-only, never given out before."""
        return np.frombuffer(self._keystream.update(bytes(8 * count)), np.uint64)

    def __reduce__(self) -> str:
        raise TypeError("a source of noise is not to be copied")
