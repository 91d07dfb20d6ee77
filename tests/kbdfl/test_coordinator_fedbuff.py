"""Asynchronous rounds: slots, staleness, reports that come late, twice or from too far back."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kbdfl.algorithms import Algorithm, FedAdam, FedAvg, FedBuff, Synchronous
from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator, Finished, Wait
from kbdfl.errors import ConfigError, Conflict, ModelError, WireError
from kbdfl.model import CifgConfig, init_params
from kbdfl.params import digest
from kbdfl.rounds import MemoryStore, metrics_row
from kbdfl.task import RoundRule, Task
from kbdfl.transform import Update, encode_chain
from kbdfl.wire import encode_report

CONFIG = CifgConfig(vocab=8, embed=2, hidden=3)
DEVICES = [f"phone-{number}" for number in range(6)]


def make_task(mode=None, *, server=None, upload="float32", weights="examples", **rounds):
    return Task(
        name="test keyboard",
        config=CONFIG,
        algorithm=Algorithm(
            server=server or FedAvg(),
            upload=upload,
            weights=weights,
            mode=mode or FedBuff(concurrency=3, max_staleness=1),
        ),
        rule=RoundRule(**({"cohort": 2, "over_selection": 1.0, "deadline_s": 10.0, "rounds": 6} | rounds)),
        vocabulary_sha256="ab" * 32,
        seed=1,
    )


def coordinate(task, store=None):
    store = store or MemoryStore()
    return Coordinator(task, init_params(CONFIG, seed=1), store=store, random=np.random.default_rng(1))


def delta_of(seed):
    return (0.01 * np.random.default_rng(seed).standard_normal(CONFIG.spec.size)).astype(np.float32)


def frame_of(task, assignment, device, /, *, seed=0, update=None, **changes):
    fields = {
        "task": assignment.task,
        "round": assignment.round,
        "device": device,
        "model_sha256": assignment.model_sha256,
        "spec_hash": assignment.spec,
        "upload": assignment.upload,
        "examples": 3,
        "tokens": 10,
        "train_loss": 2.0,
    }
    update = update or encode_chain(task.algorithm.transforms, delta_of(seed), assignment.draws)
    return encode_report(update, **(fields | changes))


def seen(coordinator):
    """All that an observer sees of a coordinator."""
    return (
        coordinator.round,
        coordinator.version,
        coordinator.phase,
        coordinator.reports,
        coordinator.device_states(),
        coordinator.params.tobytes(),
    )


def play(coordinator, device, *, seed=0, now=1.0):
    """A phone checks in and reports at once."""
    frame = frame_of(coordinator.task, coordinator.check_in(device, now), device, seed=seed)
    return coordinator.report(device, frame, now)


class FedBuffMachine(RuleBasedStateMachine):
    """Phones and time in any order, against a model that recomputes every commit from the reports."""

    @initialize(
        cohort=st.integers(1, 3),
        concurrency=st.integers(1, 4),
        most=st.integers(0, 2),
        exponent=st.sampled_from([0.0, 0.5, 2.0]),
    )
    def begin(self, cohort, concurrency, most, exponent):
        self.mode = FedBuff(concurrency=concurrency, max_staleness=most, exponent=exponent)
        self.task = make_task(self.mode, server=FedAvg(0.5), cohort=cohort, rounds=5)
        self.coordinator, self.now = coordinate(self.task), 100.0
        self.params = self.coordinator.params.astype(np.float64)
        self.round = 0
        self.slots = {}  # device -> (assignment, when)
        self.old = []  # (device, assignment) that were replaced or let go
        self.sent = []  # (device, frame, round) that were counted, in order
        self.parts = Counter()  # taken, counted, dropped
        self.forget_round()

    def forget_round(self):
        self.buffer, self.reported, self.refused, self.dropped = [], set(), set(), 0

    @property
    def finished(self):
        return self.round == self.task.rule.rounds

    def let_go(self, device):
        self.old.append((device, self.slots.pop(device)[0]))
        self.dropped += 1
        self.parts["dropped"] += 1

    def expire(self):
        for device, (_, since) in list(self.slots.items()):
            if self.now - since >= self.task.rule.deadline_s:
                self.let_go(device)

    @rule(seconds=st.sampled_from([0.5, 4.0, 20.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def tick(self):
        assert self.coordinator.tick(self.now) is None
        if not self.finished:
            self.expire()

    @rule(device=st.sampled_from(DEVICES))
    def check_in(self, device):
        answer = self.coordinator.check_in(device, self.now)
        if self.finished:
            assert isinstance(answer, Finished)
            return
        self.expire()
        held, since = self.slots.get(device, (None, self.now))
        if held is not None and held.version == self.round:
            assert answer == replace(held, deadline_s=self.task.rule.deadline_s - (self.now - since))
            return
        full = len(self.slots) >= self.mode.concurrency
        if held is None and (full or device in self.reported):
            assert isinstance(answer, Wait)
            return
        assert isinstance(answer, Assignment)
        assert (answer.round, answer.version) == (
            self.round,
            self.round,
        )  # no round of this test is abandoned
        assert answer.model_sha256 == digest(self.coordinator.params)
        assert answer.deadline_s == self.task.rule.deadline_s
        if held is None:
            self.parts["taken"] += 1
        else:
            self.old.append((device, held))
        self.slots[device] = answer, self.now

    @precondition(lambda self: self.slots and not self.finished)
    @rule(data=st.data(), seed=st.integers(0, 99), examples=st.integers(1, 9))
    def report(self, data, seed, examples):
        device = data.draw(st.sampled_from(sorted(self.slots)))
        assignment, _ = self.slots[device]
        frame = frame_of(self.task, assignment, device, seed=seed, examples=examples)
        staleness = self.round - assignment.version
        if staleness > self.mode.max_staleness:
            with pytest.raises(Conflict, match=f"the report began {staleness} versions ago"):
                self.coordinator.report(device, frame, self.now)
            self.let_go(device)
            self.refused.add(device)
            return
        receipt = self.coordinator.report(device, frame, self.now)
        assert (receipt.round, receipt.duplicate) == (self.round, False)
        del self.slots[device]
        self.parts["counted"] += 1
        self.sent.append((device, frame, self.round))
        if assignment.round == self.round:
            self.reported.add(device)
        self.buffer.append((delta_of(seed).astype(np.float64), examples, staleness))
        assert (receipt.closed is not None) == (len(self.buffer) == self.task.rule.cohort)
        if receipt.closed is not None:
            self.close(receipt.closed)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def report_again(self, data):
        """Acknowledged for as long as one as stale could count, refused for ever after: counted twice never."""
        device, frame, counted_in = data.draw(st.sampled_from(self.sent))
        before = seen(self.coordinator)
        if self.round - counted_in <= self.mode.max_staleness + 1:
            receipt = self.coordinator.report(device, frame, self.now)
            assert (receipt.round, receipt.duplicate, receipt.closed) == (counted_in, True, None)
        else:
            with pytest.raises(Conflict):
                self.coordinator.report(device, frame, self.now)
        assert seen(self.coordinator) == before

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def report_of_an_assignment_that_is_gone(self, data):
        device, assignment = data.draw(st.sampled_from(self.old))
        now_has = self.slots.get(device, (None, 0))[0]
        if now_has is not None and now_has.round == assignment.round:
            assert replace(now_has, deadline_s=0) == replace(assignment, deadline_s=0)  # taken again
            return
        before = seen(self.coordinator)
        with pytest.raises(Conflict):
            self.coordinator.report(device, frame_of(self.task, assignment, device, seed=1000), self.now)
        assert seen(self.coordinator) == before

    def close(self, result):
        weights = np.array([examples for _, examples, _ in self.buffer], np.float64)
        staleness = np.array([s for _, _, s in self.buffer], np.float64)
        scaled = [w * (1 + s) ** -self.mode.exponent * d for d, w, s in self.buffer]
        self.params = self.params + 0.5 * sum(scaled) / weights.sum()
        np.testing.assert_allclose(self.coordinator.params, self.params, rtol=1e-4, atol=1e-6)
        self.params = self.coordinator.params.astype(np.float64)
        self.round += 1
        assert (result.status, result.round, result.version) == ("committed", self.round - 1, self.round)
        assert (result.reports, result.refused) == (len(self.buffer), len(self.refused))
        assert result.staleness == pytest.approx(staleness.mean())
        assert result.dropped == self.dropped + (len(self.slots) if self.finished else 0)
        self.forget_round()

    @invariant()
    def every_part_that_was_taken_is_accounted_for(self):
        if not hasattr(self, "coordinator"):
            return
        c, states = self.coordinator, self.coordinator.device_states()
        assert (c.round, c.version, c.reports) == (self.round, self.round, len(self.buffer))
        assert c.phase == ("finished" if self.finished else "open")
        assert states["training"] == (0 if self.finished else len(self.slots)) <= self.mode.concurrency
        assert self.parts["taken"] == self.parts["counted"] + self.parts["dropped"] + len(self.slots)
        assert self.parts["counted"] == self.round * self.task.rule.cohort + c.reports
        assert c.params.astype(np.float64).tobytes() == self.params.tobytes()


TestFedBuffMachine = FedBuffMachine.TestCase
TestFedBuffMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("upload", ["float32", "int8"])
@pytest.mark.parametrize("server", [FedAvg(), FedAdam()], ids=repr)
def test_a_cohort_that_is_never_stale_ends_in_the_bytes_of_synchronous_rounds(server, upload):
    ends = []
    for mode in (Synchronous(), FedBuff(concurrency=3)):
        task = make_task(mode, server=server, upload=upload, cohort=3, rounds=4)
        coordinator, frames, results = coordinate(task), [], []
        for number in range(4):
            assignments = {device: coordinator.check_in(device, number) for device in DEVICES[:3]}
            for i, (device, assignment) in enumerate(assignments.items()):
                frames.append(frame_of(task, assignment, device, seed=10 * number + i, examples=i + 1))
                closed = coordinator.report(device, frames[-1], number + 0.5).closed
            results.append(replace(closed, staleness=None, started_s=0.0))
        ends.append((assignments, frames, results, seen(coordinator)))
    assert ends[0] == ends[1]
    assert ends[0][-1][1] == 4


def test_the_mean_is_not_made_up_for_what_staleness_took():
    """By hand: 4 examples one version old and 1 fresh, (4 c / sqrt 2 + d) / 5."""
    task = make_task()
    coordinator = coordinate(task)
    stale = coordinator.check_in("c", 0.0)
    for device in ("a", "b"):
        first = play(coordinator, device).closed
    before = coordinator.params.astype(np.float64)
    coordinator.report("c", frame_of(task, stale, "c", seed=3, examples=4), 2.0)
    fresh = coordinator.check_in("d", 2.0)
    closed = coordinator.report("d", frame_of(task, fresh, "d", seed=4, examples=1), 3.0).closed
    assert (stale.version, fresh.version, fresh.round) == (0, 1, 1)
    expected = before + (4 / np.sqrt(2) * delta_of(3) + delta_of(4)) / 5
    np.testing.assert_allclose(coordinator.params, expected, rtol=1e-6, atol=1e-7)
    assert (first.staleness, closed.staleness) == (0.0, 0.5)
    assert metrics_row(closed, wall_s=0.0)["staleness"] == 0.5


def test_too_stale_a_report_is_refused_and_counted_and_its_slot_is_free():
    task = make_task()
    coordinator = coordinate(task)
    slow = coordinator.check_in("slow", 0.0)
    others = [coordinator.check_in(device, 0.0) for device in ("a", "b")]
    assert isinstance(coordinator.check_in("c", 0.0), Wait)
    for device, assignment in zip("ab", others, strict=True):
        coordinator.report(device, frame_of(task, assignment, device), 1.0)
    for device in ("a", "b"):
        play(coordinator, device, now=2.0)
    assert coordinator.version == 2
    for _ in range(2):
        with pytest.raises(Conflict, match=r"at most 1, the report began 2|no assignment") as refused:
            coordinator.report("slow", frame_of(task, slow, "slow"), 3.0)
        assert refused.value.status == 409
    assert coordinator.device_states()["training"] == 0
    for device in ("a", "b"):
        closed = play(coordinator, device, now=4.0).closed
    assert (closed.status, closed.refused, closed.dropped, closed.reports) == ("committed", 1, 1, 2)


def test_a_repeated_report_is_known_for_as_long_as_one_as_stale_would_count_and_then_forgotten():
    task = make_task(FedBuff(concurrency=2, max_staleness=2), cohort=1)
    coordinator = coordinate(task)
    frame = frame_of(task, coordinator.check_in("a", 0.0), "a")
    assert not coordinator.report("a", frame, 0.0).duplicate
    for number in range(1, 4):
        again = coordinator.report("a", frame, float(number))
        assert (again.round, again.duplicate, again.closed) == (0, True, None)
        play(coordinator, "b", now=float(number))
    with pytest.raises(Conflict, match="no assignment"):
        coordinator.report("a", frame, 5.0)
    assert coordinator.round == 4
    assert len(coordinator._before) == 3  # memory stays bounded


def test_a_phone_is_counted_once_for_a_rounds_assignment_and_may_add_a_stale_one():
    task = make_task(cohort=3)
    coordinator = coordinate(task)
    late = coordinator.check_in("a", 0.0)
    for device in ("b", "c", "d"):
        play(coordinator, device)
    assert not coordinator.report("a", frame_of(task, late, "a"), 2.0).duplicate
    fresh = coordinator.check_in("a", 2.0)
    assert (fresh.round, fresh.version) == (1, 1)
    assert fresh.seed != late.seed
    assert not coordinator.report("a", frame_of(task, fresh, "a"), 3.0).duplicate
    assert isinstance(coordinator.check_in("a", 3.0), Wait)
    with pytest.raises(Conflict, match="no assignment"):
        coordinator.report("a", frame_of(task, fresh, "a", seed=9), 3.0)
    assert coordinator.reports == 2


def test_a_phone_that_comes_back_gets_what_it_has_until_there_is_a_newer_version():
    task = make_task()
    coordinator = coordinate(task)
    first = coordinator.check_in("a", 0.0)
    assert coordinator.check_in("a", 4.0) == replace(first, deadline_s=6.0)
    for device in ("b", "c"):
        play(coordinator, device, now=5.0)
    second = coordinator.check_in("a", 6.0)
    assert (second.version, second.deadline_s) == (1, 10.0)
    assert coordinator.device_states()["training"] == 1  # in the slot that it had
    with pytest.raises(Conflict, match="has an assignment of round 1, the report is for round 0"):
        coordinator.report("a", frame_of(task, first, "a"), 7.0)
    assert not coordinator.report("a", frame_of(task, second, "a"), 7.0).duplicate
    assert play(coordinator, "b", now=8.0).closed.dropped == 0


@pytest.mark.parametrize("notices", ["tick", "check_in"])
def test_an_assignment_that_expires_frees_its_slot(notices):
    task = make_task(FedBuff(concurrency=1))
    coordinator = coordinate(task)
    first = coordinator.check_in("a", 0.0)
    assert coordinator.tick(9.9) is None
    assert isinstance(coordinator.check_in("b", 9.9), Wait)
    if notices == "tick":
        assert coordinator.tick(10.0) is None
        assert coordinator.device_states()["training"] == 0
    other = coordinator.check_in("b", 10.0)
    assert isinstance(other, Assignment)
    with pytest.raises(Conflict, match="its deadline is over"):
        coordinator.report("a", frame_of(task, first, "a"), 10.0)
    coordinator.report("b", frame_of(task, other, "b"), 11.0)
    assert coordinator.check_in("a", 11.0) == first  # nothing of it was counted, so the same draw again
    assert coordinator.report("a", frame_of(task, first, "a"), 12.0).closed.dropped == 1


def test_a_slot_that_moved_on_to_a_newer_version_expires_after_those_taken_before_it():
    coordinator = coordinate(make_task(cohort=1))
    coordinator.check_in("a", 0.0)
    coordinator.check_in("b", 1.0)
    play(coordinator, "c", now=2.0)
    assert coordinator.check_in("a", 3.0).version == 1
    for now, left in ((10.9, 2), (11.0, 1), (12.9, 1), (13.0, 0)):
        coordinator.tick(now)
        assert coordinator.device_states()["training"] == left


def test_updates_that_staleness_takes_all_from_leave_the_model_where_it_was():
    task = make_task(FedBuff(concurrency=2, exponent=1e6), cohort=1)
    coordinator = coordinate(task)
    late = coordinator.check_in("late", 0.0)
    play(coordinator, "a")
    before = coordinator.params.tobytes()
    closed = coordinator.report("late", frame_of(task, late, "late", seed=2), 2.0).closed
    assert (closed.status, closed.version, coordinator.params.tobytes()) == ("committed", 2, before)


def test_a_report_after_its_deadline_counts_until_somebody_looks_at_the_clock():
    task = make_task()
    coordinator = coordinate(task)
    assignment = coordinator.check_in("a", 0.0)
    assert not coordinator.report("a", frame_of(task, assignment, "a"), 11.0).duplicate


def test_the_buffer_itself_has_no_deadline():
    coordinator = coordinate(make_task())
    play(coordinator, "a", now=0.0)
    assert coordinator.tick(1e9) is None
    closed = play(coordinator, "b", now=1e9).closed
    assert (closed.status, closed.started_s, closed.ended_s) == ("committed", 0.0, 1e9)
    play(coordinator, "a", now=2e9)
    assert play(coordinator, "b", now=3e9).closed.started_s == 1e9


def test_a_report_that_is_not_finite_is_refused_and_counted_and_the_round_goes_on():
    task = make_task()
    coordinator = coordinate(task)
    assignment = coordinator.check_in("broken", 0.0)
    poisoned = delta_of(9)
    poisoned[7] = np.nan
    frame = frame_of(task, assignment, "broken", update=Update({"values": poisoned}))
    before = seen(coordinator)
    for _ in range(2):
        with pytest.raises(WireError, match="norm must be at most"):
            coordinator.report("broken", frame, 1.0)
    assert seen(coordinator) == before
    play(coordinator, "a")
    closed = play(coordinator, "b").closed
    assert (closed.status, closed.reports, closed.refused) == ("committed", 2, 1)
    assert not coordinator.report("broken", frame_of(task, assignment, "broken"), 2.0).duplicate


def test_a_report_of_an_older_model_must_name_that_model():
    task = make_task()
    coordinator = coordinate(task)
    late = coordinator.check_in("late", 0.0)
    for device in ("a", "b"):
        play(coordinator, device)
    newest = digest(coordinator.params)
    with pytest.raises(ModelError, match="another model"):
        coordinator.report("late", frame_of(task, late, "late", model_sha256=newest), 2.0)
    assert not coordinator.report("late", frame_of(task, late, "late"), 2.0).duplicate


def test_the_address_of_a_report_must_name_its_round():
    task = make_task()
    coordinator = coordinate(task)
    frame = frame_of(task, coordinator.check_in("a", 0.0), "a")
    with pytest.raises(Conflict, match="the address names round 1, the report round 0"):
        coordinator.report("a", frame, 1.0, number=1)
    assert coordinator.reports == 0
    assert not coordinator.report("a", frame, 1.0, number=0).duplicate


def test_a_round_that_is_abandoned_makes_nobody_stale():
    task = make_task(server=FedAvg(1e30), cohort=1)
    coordinator = coordinate(task)
    waiting = coordinator.check_in("a", 0.0)
    huge = np.zeros(CONFIG.spec.size, np.float32)
    huge[3] = 2.0**64
    assignment = coordinator.check_in("b", 0.0)
    frame = frame_of(task, assignment, "b", update=Update({"values": huge}))
    assert coordinator.report("b", frame, 1.0).closed.status == "abandoned"
    assert (coordinator.round, coordinator.version) == (1, 0)
    assert coordinator.check_in("a", 2.0) == replace(waiting, deadline_s=8.0)
    closed = coordinator.report("a", frame_of(task, waiting, "a"), 3.0).closed
    assert (closed.round, closed.staleness) == (1, 0.0)


def test_the_last_round_counts_those_still_at_work_as_dropped():
    task = make_task(cohort=1, rounds=1)
    coordinator = coordinate(task)
    assignments = {device: coordinator.check_in(device, 0.0) for device in ("a", "b", "c")}
    closed = coordinator.report("a", frame_of(task, assignments["a"], "a"), 1.0).closed
    assert (closed.dropped, coordinator.phase) == (2, "finished")
    assert coordinator.device_states()["training"] == 0
    assert isinstance(coordinator.check_in("b", 1.0), Finished)
    with pytest.raises(Conflict, match="all 1 rounds are over"):
        coordinator.report("b", frame_of(task, assignments["b"], "b"), 2.0)
    assert coordinator.tick(100.0) is None


def test_a_restart_forgets_who_was_at_work_and_keeps_the_model():
    task, store = make_task(server=FedAdam()), MemoryStore()
    coordinator = coordinate(task, store)
    lost = coordinator.check_in("lost", 0.0)
    for device in ("a", "b"):
        play(coordinator, device)
    again = coordinate(task, store)
    assert (again.version, again.params.tobytes()) == (1, coordinator.params.tobytes())
    with pytest.raises(Conflict, match="no assignment"):
        again.report("lost", frame_of(task, lost, "lost"), 2.0)
    assert again.check_in("lost", 2.0).version == 1


class FullDisk(MemoryStore):
    """Fails once."""

    failed = False

    def save(self, result, params, server_state, *, counted):
        if not self.failed:
            self.failed = True
            raise OSError("no space left on device")
        super().save(result, params, server_state)


def test_a_full_buffer_that_could_not_be_stored_is_stored_at_the_next_tick():
    task = make_task()
    coordinator = coordinate(task, FullDisk())
    play(coordinator, "a")
    with pytest.raises(OSError, match="no space"):
        play(coordinator, "b")
    assert (coordinator.round, coordinator.reports) == (0, 2)
    closed = coordinator.tick(2.0)
    assert (closed.status, closed.reports, coordinator.version) == ("committed", 2, 1)


def test_fedbuff_has_no_rounds_that_may_be_too_small():
    with pytest.raises(ConfigError, match=r"min_reports must be 0 with fedbuff, .*, got 1"):
        make_task(min_reports=1)
