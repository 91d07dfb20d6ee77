"""What a memory of nonces knows again, what it lets go of, and how much of it there may be."""

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.errors import Conflict, ServerUnavailable
from kbdfl.identity import FRESH_S
from kbdfl.server.nonces import MINUTE_S, LocalNonces

NOW = 1_800_000_000.0


def meet(nonces, nonce, *, device="a", request=b"r" * 32, at=NOW, now=NOW):
    return nonces.meet(device, nonce, signed_s=int(at), request=request, now=now)


@pytest.fixture
def nonces():
    return LocalNonces(began_s=NOW - 3_600)


def test_the_first_of_a_nonce_is_fresh_and_no_other(nonces):
    assert meet(nonces, "n").fresh
    again = [meet(nonces, "n") for _ in range(3)]
    assert [(use.first, use.fresh) for use in again] == [(False, False)] * 3
    assert meet(nonces, "n", device="b").fresh
    assert meet(nonces, "m").fresh
    assert len(nonces) == 3


def test_a_nonce_with_another_request_is_refused(nonces):
    meet(nonces, "n")
    for request in (b"s" * 32, b"", b"r" * 31):
        with pytest.raises(Conflict, match="the nonce came before, with another request"):
            meet(nonces, "n", request=request)
    assert not meet(nonces, "n").fresh


def test_a_mark_is_seen_by_what_comes_again(nonces):
    use = meet(nonces, "n")
    assert not meet(nonces, "n").marked
    nonces.mark(use)
    assert meet(nonces, "n").marked
    assert not meet(nonces, "m").marked


@given(
    arrivals=st.lists(
        st.tuples(st.integers(0, 7), st.integers(-FRESH_S, FRESH_S), st.integers(0, 120)), max_size=60
    )
)
def test_a_request_is_fresh_once_for_as_long_as_its_time_is(arrivals):
    nonces, now, seen = LocalNonces(began_s=NOW - 3_600), NOW, {}
    for name, off_s, pause_s in arrivals:
        now += pause_s
        signed = seen.setdefault(name, [int(now) + off_s, False])
        if abs(now - signed[0]) > FRESH_S:
            continue  # the signature's time is refused before a nonce is looked at
        assert meet(nonces, f"{name}", at=signed[0], now=now).fresh == (not signed[1])
        signed[1] = True


def test_what_is_no_longer_fresh_is_forgotten_a_minute_at_a_time(nonces):
    for second in range(0, 1_200, 5):
        meet(nonces, f"{second}", at=NOW + second, now=NOW + second)
    assert len(nonces) <= (FRESH_S + 2 * MINUTE_S) // 5
    meet(nonces, "last", at=NOW + 9_000, now=NOW + 9_000)
    assert len(nonces) == 1


def test_what_was_signed_before_the_memory_began_is_not_known_to_be_new():
    nonces = LocalNonces(began_s=NOW)
    use = meet(nonces, "n", at=NOW - 1)
    assert (use.first, use.fresh) == (True, False)
    assert meet(nonces, "m", at=NOW).fresh


def test_a_clock_that_is_set_back_makes_nothing_new(nonces):
    meet(nonces, "n")
    meet(nonces, "m", at=NOW + 3_600, now=NOW + 3_600)
    assert not meet(nonces, "n").fresh


def test_when_it_is_full_nothing_new_is_taken_and_what_is_known_still_is():
    nonces = LocalNonces(began_s=NOW, most=5)
    for number in range(5):
        meet(nonces, f"{number}")
    with pytest.raises(ServerUnavailable, match="5 requests are remembered"):
        meet(nonces, "5")
    assert not meet(nonces, "4").first
    later = NOW + 2 * FRESH_S
    assert meet(nonces, "5", at=later, now=later).fresh


def test_an_entry_takes_64_bytes_at_most(nonces):
    count = 20_000
    for number in range(count):
        meet(nonces, f"{number:032x}")
    (table,) = nonces._minutes.values()
    assert table._cells.nbytes <= 64 * count
    assert sys.getsizeof(table._cells) < 1_000  # and nothing beside the cells


def test_of_many_threads_with_one_request_one_is_first(nonces):
    barrier, firsts = threading.Barrier(8), []

    def run():
        barrier.wait()
        firsts.extend(number for number in range(500) if meet(nonces, f"{number}").first)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(firsts) == list(range(500))
