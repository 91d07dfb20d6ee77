"""Several coordinators that serve one task together, one at a time, end where one of them alone does, to the bit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.algorithms import Algorithm, FedBuff
from kbdfl.algorithms.selection import Uniform
from kbdfl.coordinator import STATE_CLASSES, Assignment
from kbdfl.rounds import MemoryStore, Saved
from kbdfl.snapshot import pack, unpack
from tests.kbdfl.test_coordinator_summed import ALGORITHMS, DEVICES, coordinate, frame_of, make_task, seen

SHARED = ALGORITHMS | {
    "asynchronous": Algorithm(mode=FedBuff(concurrency=4, max_staleness=3)),
    "remembered phones": Algorithm(selection=Uniform(min_separation=2)),
}


class KnowingStore(MemoryStore):
    """Keeps who was counted too, as a server's does."""

    def __init__(self):
        super().__init__()
        self.results = []

    def save(self, result, params, server_state, *, counted=()):
        before = self.saved.counted if self.saved else ()
        state = {name: array.copy() for name, array in server_state.items()}
        self.saved = Saved(result.round, result.version, params.copy(), state, (set(counted), *before))
        self.results.append(result)


class Together:
    """Coordinators over one store; each is killed and begun anew now and then, and its sums stay."""

    def __init__(self, task, count):
        self.task, self.store = task, KnowingStore()
        self.state, self.sums, self.born = None, {}, 0
        self.members = [self.begin() for _ in range(count)]
        self.initial = self.members[0].state()["saved"]

    def begin(self):
        coordinator = coordinate(self.task, self.store)
        coordinator.process = self.born = self.born + 1
        coordinator.elsewhere = lambda: [
            unpack(content, classes=STATE_CLASSES)
            for (number, process), content in self.sums.items()
            if number == coordinator.round and process != coordinator.process
        ]
        coordinator.based = self.store.saved.round if self.store.saved else -1
        return coordinator

    def kill(self, at):
        self.members[at] = self.begin()

    def turn(self, at, act):
        """Let one of them act on all that the others have done."""
        coordinator = self.members[at]
        newest = self.store.saved.round if self.store.saved else -1
        if coordinator.based != newest:
            coordinator.follow(self.store.load() or self.initial)
        if self.state is not None:
            coordinator.share(unpack(self.state, classes=STATE_CLASSES))
        try:
            return act(coordinator)
        finally:
            coordinator.based = coordinator.round - 1
            self.state = pack(coordinator.shared(), classes=STATE_CLASSES)
            content = pack(coordinator.sums(), classes=STATE_CLASSES)
            self.sums = {key: value for key, value in self.sums.items() if key[0] == coordinator.round}
            self.sums[coordinator.round, coordinator.process] = content


def told(act):
    """What an act gives, or the error that it raises."""
    try:
        return act()
    except Exception as error:
        return type(error), str(error)


def of_results(store):
    return [
        (r.round, r.status, r.version, r.reports, r.dropped, r.refused, r.tokens, r.uplink_bytes)
        for r in store.results
    ]


@pytest.mark.parametrize("algorithm", SHARED.values(), ids=SHARED)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_what_several_do_in_turns_ends_where_one_alone_does(algorithm, data):
    rule = {"cohort": 3, "min_reports": 0 if isinstance(algorithm.mode, FedBuff) else 2, "rounds": 4}
    task = make_task(algorithm, **rule)
    alone_store, together = KnowingStore(), Together(task, 3)
    alone, now, frames = coordinate(task, alone_store), 100.0, {}
    for number in range(data.draw(st.integers(5, 40))):
        at, device = data.draw(st.integers(0, 2)), data.draw(st.sampled_from(DEVICES))
        what = data.draw(st.sampled_from(["check in", "report", "report", "again", "bad", "wait", "kill"]))

        def both(act, at=at):
            return told(lambda: act(alone)), told(lambda: together.turn(at, act))

        if what == "check in":
            mine, theirs = both(lambda c, device=device, now=now: c.check_in(device, now))
            assert type(mine) is type(theirs)
            if isinstance(mine, Assignment):
                assert mine == theirs
                frames[device] = frame_of(task, mine, device, seed=number)
        elif what == "kill":
            together.kill(at)
        elif what == "wait":
            now += data.draw(st.sampled_from([1.0, 11.0]))
            mine, theirs = both(lambda c, now=now: c.tick(now))
            assert mine == theirs
        elif device in frames:
            frame = frames[device]
            if what == "bad":
                frame = frame[:-1] + bytes([frame[-1] ^ 1])
            mine, theirs = both(lambda c, d=device, f=frame, now=now: c.report(d, f, now))
            assert mine == theirs
    for coordinator in range(3):
        # What merely waits is not shared: a page of one server says who waits there.
        mine, theirs = (
            {name: value for name, value in shown[4].items() if name not in ("waiting", "dropped")}
            for shown in (seen(alone), together.turn(coordinator, seen))
        )
        assert mine == theirs
        assert seen(alone)[:4] == together.turn(coordinator, seen)[:4]
        assert seen(alone)[5:] == together.turn(coordinator, seen)[5:]
    assert of_results(alone_store) == of_results(together.store)
