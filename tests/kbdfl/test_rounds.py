"""An open round as bytes and back."""

import pytest

from kbdfl.algorithms.aggregate import RunningSum
from kbdfl.rounds import OpenRound
from kbdfl.snapshot import pack, unpack


@pytest.mark.parametrize(
    "counted",
    [
        set(),
        {("phone 1", b"1" * 32)},
        {
            ("one", b"\n" * 32),
            ("one", b"\0" * 32),
            ("é, by name", b"3" * 32),
        },  # twice one phone, as in FedBuff
    ],
)
def test_who_was_counted_is_the_same_after_a_snapshot(counted):
    before, after = (OpenRound(RunningSum((), 3, 0.0)) for _ in range(2))
    before.counted, before.tokens = set(counted), 7
    after.restore(unpack(pack(before.state())))
    assert after.counted == counted
    assert after.tokens == 7


def test_a_snapshot_of_a_large_round_is_not_made_phone_by_phone():
    """Two values, however many were counted: a tree of thousands would be packed one by one, for every report."""
    open_ = OpenRound(RunningSum((), 3, 0.0))
    open_.counted = {(f"phone {number}", bytes(32)) for number in range(1_000)}
    assert len(open_.state()["counted"]) == 2
