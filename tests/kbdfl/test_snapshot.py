"""State as bytes: everything comes back as it was, of its own kind, and nothing else is read."""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.algorithms.roster import Roster, Tier
from kbdfl.errors import DataError
from kbdfl.snapshot import pack, unpack


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    near: tuple


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.text() | st.integers(-9, 9) | st.tuples(st.text(), st.binary())
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(keys, inner) | st.sets(st.text())
    ),
    max_leaves=20,
)


@given(trees)
def test_containers_come_back_as_they_were(tree):
    assert unpack(pack(tree)) == tree


def test_every_kind_of_container_keeps_its_kind_and_order():
    state = {
        "o": OrderedDict([("b", 1), ("a", 2)]),
        "c": Counter("aab"),
        "d": deque([{("x", b"1")}], maxlen=3),
        1 << 100: (1, [2]),
    }
    back = unpack(pack(state))
    assert back == state
    assert [type(value) for value in back.values()] == [OrderedDict, Counter, deque, tuple]
    assert list(back["o"]) == ["b", "a"]
    assert back["d"].maxlen == 3


@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "u4", "?", [("a", "f4"), ("b", "u1")]])
def test_arrays_come_back_to_the_bit(dtype):
    array = np.frombuffer(np.random.default_rng(1).bytes(240), np.uint8) % 2 if dtype == "?" else None
    if array is None:
        array = np.zeros(12, dtype)
        array.view(np.uint8)[:] = np.arange(array.nbytes) % 100
    array = array.astype(bool) if dtype == "?" else array.reshape(3, 4)
    back = unpack(pack([array]))[0]
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()
    assert back.shape == array.shape
    array.setflags(write=False)
    assert not unpack(pack(array)).flags.writeable


def test_objects_of_named_classes_come_back_with_their_attributes():
    assert unpack(pack(Point(1.5, (2, 3)), classes=[Point]), classes=[Point]) == Point(1.5, (2, 3))
    roster = Roster(epoch_s=1.5)
    for i in range(100):
        roster.seen(f"phone {i}", float(i), tier="old")
    back = unpack(pack(roster, classes=[Roster, Tier]), classes=[Roster, Tier])
    assert back.table.tobytes() == roster.table.tobytes()
    assert back.row("phone 7") == roster.row("phone 7")
    assert len(back.tiers) == 2


def test_a_generator_goes_on_where_it_was():
    random = np.random.default_rng(3)
    random.random(5)
    other = np.random.default_rng(4)
    other.bit_generator.state = unpack(pack(random.bit_generator.state))
    assert other.random() == random.random()


def test_classes_that_were_not_named_are_neither_written_nor_read():
    with pytest.raises(DataError, match="must not hold a Point"):
        pack([Point(1.0, ())])
    with pytest.raises(DataError, match="unknown 'Point'"):
        unpack(pack(Point(1.0, ()), classes=[Point]))


@given(st.data())
def test_a_cut_or_changed_snapshot_is_refused(data):
    whole = pack({"a": [1, 2, 3], "b": np.arange(9)})
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DataError, match="damaged"):
        unpack(whole[:cut])
    at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(whole)
    changed[at] ^= 1 << bit
    with pytest.raises(DataError, match="damaged"):
        unpack(bytes(changed))
