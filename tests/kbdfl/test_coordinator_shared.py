"""Several coordinators that serve one task together, one at a time, end where one of them alone does, to the bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.algorithms import Algorithm, FedBuff
from kbdfl.algorithms.selection import Uniform
from kbdfl.coordinator import STATE_CLASSES, Assignment, Coordinator
from kbdfl.model import init_params
from kbdfl.privacy import MemoryBooks, Privacy, Source
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


@pytest.mark.parametrize("name", ["as it is", "control variates", "noise"])
def test_what_others_have_summed_is_added_once_however_often_the_round_is_closed(name):
    """The store refuses a round twice; meanwhile one more report is counted elsewhere."""
    algorithm = SHARED.get(name) or Algorithm(
        upload="float32", update_clip_norm=0.1, weights="uniform", privacy=Privacy("gaussian", noise_multiplier=1.0)
    )  # fmt: skip
    task = make_task(algorithm, cohort=3, min_reports=2, over_selection=1.0)

    def begin(store):
        privacy = task.central(MemoryBooks(), source=lambda: Source.of_key(bytes(32)))
        params = init_params(task.config, seed=1)
        random = np.random.default_rng(1)
        return Coordinator(task, params, store=store, random=random, privacy=privacy)

    class Refusing(KnowingStore):
        refuse = 0

        def save(self, *of, **more):
            if self.refuse:
                self.refuse -= 1
                raise OSError("no space left")
            super().save(*of, **more)

    alone, here, there = begin(KnowingStore()), begin(Refusing()), begin(KnowingStore())
    parts = [[c.check_in(device, 0.0) for device in DEVICES[:3]] for c in (alone, here, there)]
    frames = [frame_of(task, part, device) for part, device in zip(parts[0], DEVICES, strict=False)]
    for device, frame in zip(DEVICES[:2], frames, strict=False):
        alone.report(device, frame, 1.0)
    closed = alone.tick(11.0)
    there.report(DEVICES[0], frames[0], 1.0)
    here.share(unpack(pack(there.shared(), classes=STATE_CLASSES), classes=STATE_CLASSES))
    here.elsewhere = lambda: [unpack(pack(there.sums(), classes=STATE_CLASSES), classes=STATE_CLASSES)]
    here.report(DEVICES[1], frames[1], 1.0)
    before = pack(here.sums(), classes=STATE_CLASSES)
    here._store.refuse = 2
    for _ in range(2):
        with pytest.raises(OSError, match="no space left"):
            here.tick(11.0)
        assert pack(here.sums(), classes=STATE_CLASSES) == before
    assert here.tick(11.0) == closed
    np.testing.assert_array_equal(here.params, alone.params)
    for name, array in alone._server_state.items():
        np.testing.assert_array_equal(here._server_state[name], array)
