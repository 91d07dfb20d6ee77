"""Bits that nobody can repeat."""

import copy
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from kbdfl.errors import DataError
from kbdfl.privacy import Source
from kbdfl.snapshot import pack


def test_words_are_the_keystream_of_aes_256_in_counter_mode():
    key = bytes(range(32))
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(80))
    source = Source.of_key(key)
    assert source.words(3).tobytes() + source.words(7).tobytes() == stream


def test_no_word_is_given_out_twice_and_no_two_sources_agree():
    sources = [Source() for _ in range(4)]
    words = np.concatenate([source.words(1_000) for _ in range(3) for source in sources])
    assert len(np.unique(words)) == len(words)


@pytest.mark.parametrize("copies", [copy.copy, copy.deepcopy, pickle.dumps, pack])
def test_a_source_cannot_be_copied(copies):
    with pytest.raises((TypeError, AttributeError, DataError)):
        copies(Source())


def test_words_cannot_be_overwritten(source):
    with pytest.raises(ValueError, match="read-only"):
        source.words(2)[0] = 0
