"""What is summed cannot overflow, and is packed to the bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from kbdfl.codec import upload_chain
from kbdfl.errors import ConfigError, WireError
from kbdfl.secagg.payload import bits_for, pack, packed_bytes, summable_levels, to_sum, to_words, unpack
from kbdfl.transform import Draws, Update, encode_chain


@pytest.mark.parametrize(
    ("devices", "bound", "bits"),
    [
        (1, 1, 2),
        (2, 127, 9),
        (258, 127, 16),
        (259, 127, 17),
        (1_024, 127, 18),
        (1_024, 32_767, 26),
        (3, 1, 3),
    ],
)
def test_the_bits_are_the_fewest_that_hold_every_sum(devices, bound, bits):
    assert bits_for(devices, bound) == bits
    assert 2 ** (bits - 1) > devices * bound >= 2 ** (bits - 2)


@pytest.mark.parametrize("devices", [2, 3, 7, 128, 258, 259, 1_024, 16_384])
@pytest.mark.parametrize("level", [127, -127])
def test_the_sum_of_all_extremes_is_exact(devices, level):
    bits = bits_for(devices, 127)
    words = to_words(np.full(5, level), bound=127, bits=bits)
    total = (words.astype(np.uint64) * devices % 2**bits).astype(np.uint32)
    assert_array_equal(to_sum(total, bits=bits), np.full(5, devices * level))


def test_one_bit_fewer_would_overflow():
    bits = bits_for(258, 127) - 1
    total = np.full(1, 258 * 127 % 2**bits, np.uint32)
    assert to_sum(total, bits=bits)[0] != 258 * 127


@given(
    levels=st.lists(st.lists(st.integers(-130, 130), min_size=3, max_size=3), min_size=1, max_size=40),
)
def test_sums_with_noise_are_exact(levels):
    bits = bits_for(len(levels), 127 + 3)
    total = np.zeros(3, np.uint32)
    for row in levels:
        total = (total + to_words(np.array(row), bound=130, bits=bits)) & np.uint32(2**bits - 1)
    assert_array_equal(to_sum(total, bits=bits), np.sum(levels, axis=0))


@given(data=st.data(), bits=st.integers(2, 32), size=st.integers(1, 60))
def test_words_are_packed_lowest_bit_first(data, bits, size):
    words = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=size, max_size=size))
    packed = pack(np.array(words, np.uint32), bits)
    number = sum(word << place * bits for place, word in enumerate(words))
    assert packed == number.to_bytes(packed_bytes(size, bits), "little")
    assert_array_equal(unpack(packed, size, bits), words)


def test_packed_words_of_another_length_or_with_bits_left_over_are_refused():
    packed = pack(np.array([1, 2, 3], np.uint32), 5)
    for wrong in (packed[:-1], packed + b"\0", b""):
        with pytest.raises(WireError, match="must be 2 bytes"):
            unpack(wrong, 3, 5)
    with pytest.raises(WireError, match="zero"):
        unpack(packed[:-1] + b"\x80", 3, 5)


@pytest.mark.parametrize(
    "levels", [np.array([128]), np.array([-128]), np.array([1.0]), np.array([[1]]), np.array([2**40])]
)
def test_levels_beyond_the_bound_or_not_integers_are_refused(levels):
    with pytest.raises(ConfigError, match="levels must be"):
        to_words(levels, bound=127, bits=10)


@pytest.mark.parametrize(("devices", "bound"), [(0, 1), (1, 0), (2, 2**31), (2**20, 2**13)])
def test_impossible_sums_are_refused(devices, bound):
    with pytest.raises(ConfigError):
        bits_for(devices, bound)


def test_the_summable_uploads_levels_are_taken_as_they_are():
    chain = upload_chain("summable", 1.0)
    delta = np.linspace(-1, 1, 4_096, dtype=np.float32)
    update = encode_chain(chain, delta / np.linalg.norm(delta), Draws(report=1, round=2))
    levels = summable_levels(update)
    assert levels.size == 512
    assert_array_equal(levels.view(np.uint8), update.sections["levels"])
    words = to_words(levels, bound=127, bits=20)
    assert_array_equal(to_sum(words, bits=20), levels.astype(np.int64))


def test_an_update_that_would_not_add_up_is_refused():
    levels = np.zeros(4, np.uint8)
    with pytest.raises(WireError, match="levels alone"):
        summable_levels(Update({"levels": levels, "places": levels}))
    with pytest.raises(WireError):
        summable_levels(Update({"delta": np.zeros(4, np.float32)}))
