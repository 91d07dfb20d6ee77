from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kbdfl.algorithms import (
    Algorithm,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    Krum,
    Mean,
    Median,
    TrimmedMean,
)
from kbdfl.assignment import Assignment
from kbdfl.codec import upload_chain
from kbdfl.coordinator import Coordinator, Finished, Wait
from kbdfl.errors import ConfigError, Conflict, KbdflError, ModelError, TooLarge, WireError
from kbdfl.model import CifgConfig, init_params
from kbdfl.params import digest
from kbdfl.rounds import MemoryStore
from kbdfl.task import RoundRule, Task
from kbdfl.transform import Draws, Update, decode_chain, encode_chain
from kbdfl.wire import decode_report, encode_report

CONFIG = CifgConfig(vocab=8, embed=2, hidden=3)
DEVICES = [f"phone-{number}" for number in range(5)]


def make_task(*, server=None, upload="float32", max_weight=5, aggregate=None, update_clip_norm=0.0, **rounds):
    return Task(
        name="test keyboard",
        config=CONFIG,
        algorithm=Algorithm(
            server=server or FedAvg(),
            upload=upload,
            max_weight=max_weight,
            aggregate=aggregate or Mean(),
            update_clip_norm=update_clip_norm,
        ),
        rule=RoundRule(**({"cohort": 2, "over_selection": 1.5, "deadline_s": 10.0, "rounds": 4} | rounds)),
        vocabulary_sha256="ab" * 32,
        seed=1,
    )


def coordinate(task, store=None, params=None):
    params = init_params(CONFIG, seed=1) if params is None else params
    return Coordinator(task, params, store=store or MemoryStore(), random=np.random.default_rng(1))


def delta_of(seed, scale=0.01):
    return (scale * np.random.default_rng(seed).standard_normal(CONFIG.spec.size)).astype(np.float32)


def frame_of(task, assignment, device, /, *, delta=None, seed=0, **changes):
    """A report of `delta`, honest but for `changes`."""
    delta = delta_of(seed) if delta is None else delta
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
    update = encode_chain(
        upload_chain(task.algorithm.upload), delta, assignment.draws
    )  # a liar does not clip
    return encode_report(update, **(fields | changes))


def seen(coordinator):
    """All that an observer sees of a coordinator."""
    phase, states = coordinator.phase, coordinator.device_states()
    return (
        coordinator.round,
        coordinator.version,
        phase,
        coordinator.reports,
        states,
        coordinator.params.tobytes(),
    )


class CoordinatorMachine(RuleBasedStateMachine):
    """Phones, time and crashes in any order, against a model that recomputes every commit from the reports."""

    @initialize(
        cohort=st.integers(1, 3),
        over=st.sampled_from([1.0, 1.3, 2.0]),
        enough=st.integers(0, 3),
        upload=st.sampled_from(["float32", "int8"]),
        adam=st.booleans(),
    )
    def begin(self, cohort, over, enough, upload, adam):
        self.adam = FedAdam(learning_rate=0.1, final_learning_rate=0.05, decay_rounds=2) if adam else None
        self.task = make_task(
            server=self.adam or FedAvg(0.5),
            upload=upload,
            cohort=cohort,
            over_selection=over,
            min_reports=min(enough, cohort),
        )
        self.store, self.now = MemoryStore(), 100.0
        self.coordinator = coordinate(self.task, self.store)
        self.params = self.coordinator.params.astype(np.float64)
        self.m, self.v = np.zeros_like(self.params), np.full_like(self.params, 1e-8)
        self.round = self.version = 0
        self.last = {}
        self.forget_round()

    def forget_round(self):
        self.assigned, self.frames, self.started = {}, {}, None

    @property
    def finished(self):
        return self.round == self.task.rule.rounds

    @property
    def expired(self):
        return self.started is not None and self.now - self.started >= self.task.rule.deadline_s

    @rule(seconds=st.sampled_from([0.5, 4.0, 20.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.assigned)
    @rule()
    def deadline_comes(self):
        self.now = max(self.now, self.started + self.task.rule.deadline_s)
        self.tick()

    @rule(device=st.sampled_from(DEVICES))
    def check_in(self, device):
        answer = self.coordinator.check_in(device, self.now)
        if self.finished:
            assert isinstance(answer, Finished)
            return
        full = len(self.assigned) >= self.task.rule.selected
        if device in self.frames or self.expired or (full and device not in self.assigned):
            pace = self.task.rule.pace_s
            assert isinstance(answer, Wait)
            assert 0.5 * pace <= answer.retry_after_s <= 1.5 * pace
            return
        self.started = self.now if self.started is None else self.started
        left = self.task.rule.deadline_s - (self.now - self.started)
        assert isinstance(answer, Assignment)
        assert answer.deadline_s == pytest.approx(left)
        assert (answer.round, answer.version) == (self.round, self.version)
        assert answer.model_sha256 == digest(self.coordinator.params)
        same = replace(answer, deadline_s=0.0)
        assert self.assigned.setdefault(device, same) == same

    @property
    def training(self):
        return [device for device in self.assigned if device not in self.frames]

    @precondition(lambda self: self.training)
    @rule(data=st.data(), seed=st.integers(0, 99), examples=st.integers(1, 9))
    def report(self, data, seed, examples):
        device = data.draw(st.sampled_from(self.training))
        frame = frame_of(self.task, self.assigned[device], device, seed=seed, examples=examples)
        receipt = self.coordinator.report(device, frame, self.now)
        self.frames[device] = frame
        assert (receipt.round, receipt.duplicate) == (self.round, False)
        assert (receipt.closed is not None) == (len(self.frames) == self.task.rule.cohort)
        if receipt.closed is not None:
            self.close(receipt.closed)

    @precondition(lambda self: self.frames or self.last)
    @rule(data=st.data())
    def report_again(self, data):
        known = [(False, device) for device in self.frames] + [(True, device) for device in self.last]
        of_last_round, device = data.draw(st.sampled_from(known))
        frame = (self.last if of_last_round else self.frames)[device]
        before = seen(self.coordinator)
        receipt = self.coordinator.report(device, frame, self.now)
        assert (receipt.duplicate, receipt.closed) == (True, None)
        assert receipt.round == self.round - of_last_round
        assert seen(self.coordinator) == before

    @precondition(lambda self: self.assigned)
    @rule(device=st.sampled_from(DEVICES), data=st.data())
    def bad_report(self, device, data):
        """A second and different report, one of a phone that was not selected, for another round or model."""
        assignment = next(iter(self.assigned.values()))
        error, changes = Conflict, {"examples": 9, "seed": 1000}
        if device in self.training:
            what = data.draw(st.sampled_from(["round", "model_sha256"]))
            changes[what] = self.round + 1 if what == "round" else "0" * 64
            error = Conflict if what == "round" else ModelError
        before = seen(self.coordinator)
        with pytest.raises(error):
            self.coordinator.report(device, frame_of(self.task, assignment, device, **changes), self.now)
        assert seen(self.coordinator) == before

    @rule()
    def tick(self):
        result = self.coordinator.tick(self.now)
        assert (result is not None) == (self.expired and not self.finished)
        if result is not None:
            self.close(result)

    @rule()
    def crash_and_resume(self):
        before = self.coordinator.params.tobytes()
        self.coordinator = coordinate(self.task, self.store, np.zeros_like(self.coordinator.params) + 9)
        if self.store.saved is None:  # nothing was closed yet: the task begins anew, from what it is given
            self.coordinator = coordinate(self.task, self.store)
        assert self.coordinator.params.tobytes() == before
        self.last = {}
        self.forget_round()

    def close(self, result):
        reports = [decode_report(frame, max_bytes=1 << 20) for frame in self.frames.values()]
        committed = len(reports) >= self.task.rule.enough
        assert result.status == ("committed" if committed else "abandoned")
        assert (result.round, result.reports) == (self.round, len(reports))
        assert result.dropped == len(self.assigned) - len(reports)
        assert result.tokens == 10 * len(reports)
        assert result.examples == sum(report.examples for report in reports)
        assert result.uplink_bytes == sum(map(len, self.frames.values()))
        assert (result.started_s, result.ended_s) == (self.started, self.now)
        if committed:
            weights = np.array([min(report.examples, 5) for report in reports], np.float64)
            chain, size = self.task.algorithm.transforms, CONFIG.spec.size
            deltas = np.array(
                [decode_chain(chain, report.update, size, Draws(0, 0)) for report in reports], np.float64
            )
            self.serve((weights[:, None] * deltas).sum(0) / weights.sum())
            np.testing.assert_allclose(self.coordinator.params, self.params, rtol=1e-4, atol=1e-5)
            self.params = self.coordinator.params.astype(np.float64)
            self.version += 1
        self.round += 1
        assert result.version == self.version
        self.last = self.frames
        self.forget_round()

    def serve(self, mean):
        """The server rule, written down a second time."""
        if self.adam is None:
            self.params = self.params + 0.5 * mean
            return
        self.m = 0.9 * self.m + 0.1 * mean
        self.v = 0.99 * self.v + 0.01 * mean**2
        rate = 0.1 * 0.5 ** min(self.version / 2, 1)
        self.params = self.params + rate * self.m / (np.sqrt(self.v) + 1e-4)

    @invariant()
    def what_is_seen_is_what_happened(self):
        if not hasattr(self, "coordinator"):
            return
        c, states = self.coordinator, self.coordinator.device_states()
        assert (c.round, c.version, c.reports) == (self.round, self.version, len(self.frames))
        assert c.phase == ("finished" if self.finished else "open")
        assert states["reported"] == len(self.frames)
        assert states["training"] == len(self.assigned) - len(self.frames)
        assert len(self.assigned) <= self.task.rule.selected
        assert c.params.astype(np.float64).tobytes() == self.params.tobytes()  # bit-equal until a commit
        assert not c.params.flags.writeable


TestCoordinatorMachine = CoordinatorMachine.TestCase
TestCoordinatorMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.fixture
def opened():
    """A task, its coordinator and the assignments of the two phones of an open round."""
    task = make_task()
    coordinator = coordinate(task)
    return task, coordinator, {name: coordinator.check_in(name, 100.0) for name in ("a", "b")}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_or_truncated_report_changes_nothing(data):
    task = make_task(upload=data.draw(st.sampled_from(["float32", "int8"])))
    coordinator = coordinate(task)
    frame = bytearray(frame_of(task, coordinator.check_in("a", 0.0), "a"))
    place = data.draw(st.integers(0, len(frame) - 1))
    if data.draw(st.booleans()):
        frame[place] ^= data.draw(st.integers(1, 255))
    else:
        frame = frame[:place]
    before = seen(coordinator)
    with pytest.raises(KbdflError) as error:
        coordinator.report("a", bytes(frame), 1.0)
    assert "\n" not in str(error.value)
    assert seen(coordinator) == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"task": "other"}, Conflict, "task is test keyboard, the report is for other"),
        ({"device": "b"}, Conflict, "another device"),
        ({"round": 7}, Conflict, "round 0 is open, the report is for round 7"),
        ({"model_sha256": "0" * 64}, ModelError, "another model"),
        ({"spec_hash": "0" * 16}, ModelError, "laid out as 0000000000000000"),
        ({"upload": "int8"}, ModelError, "upload is float32, the report is int8"),
        ({"train_loss": 1e300}, WireError, "train_loss must be at most"),
        ({"delta": np.zeros(9, np.float32)}, WireError, "an update of 75 values is needed, got 9"),
    ],
)
def test_a_report_that_does_not_fit_the_round_is_refused_and_changes_nothing(opened, changes, error, message):
    task, coordinator, assignments = opened
    before = seen(coordinator)
    with pytest.raises(error, match=message):
        coordinator.report("a", frame_of(task, assignments["a"], "a", **changes), 101.0)
    assert seen(coordinator) == before
    # and the phone may still send the right one
    assert not coordinator.report("a", frame_of(task, assignments["a"], "a"), 101.0).duplicate


def test_a_report_over_the_limit_is_refused():
    task = make_task(max_report_bytes=100)
    coordinator = coordinate(task)
    frame = frame_of(task, coordinator.check_in("a", 0.0), "a")
    with pytest.raises(TooLarge, match="at most 100 bytes"):
        coordinator.report("a", frame, 1.0)


def test_nobody_reports_to_a_finished_task_but_the_last_report_is_still_acknowledged():
    task = make_task(rounds=1, cohort=1, over_selection=2)
    coordinator = coordinate(task)
    assignments = {name: coordinator.check_in(name, 0.0) for name in ("a", "b")}
    frame = frame_of(task, assignments["a"], "a")
    assert coordinator.report("a", frame, 1.0).closed.status == "committed"
    assert coordinator.phase == "finished"
    assert coordinator.report("a", frame, 2.0).duplicate
    with pytest.raises(Conflict, match="all 1 rounds are over"):
        coordinator.report("b", frame_of(task, assignments["b"], "b"), 2.0)
    assert isinstance(coordinator.check_in("c", 3.0), Finished)
    assert coordinator.tick(1e9) is None


def test_a_straggler_of_a_closed_round_is_told_so(opened):
    task, coordinator, assignments = opened
    late = coordinator.check_in("late", 100.0)
    for name in assignments:
        coordinator.report(name, frame_of(task, assignments[name], name), 101.0)
    with pytest.raises(Conflict, match="round 1 is open, the report is for round 0"):
        coordinator.report("late", frame_of(task, late, "late"), 102.0)


def test_a_second_and_different_report_of_a_phone_is_refused(opened):
    task, coordinator, assignments = opened
    coordinator.report("a", frame_of(task, assignments["a"], "a", seed=1), 101.0)
    before = seen(coordinator)
    with pytest.raises(Conflict, match="device a has already reported in round 0"):
        coordinator.report("a", frame_of(task, assignments["a"], "a", seed=2), 101.0)
    assert seen(coordinator) == before


def test_a_phone_that_was_not_selected_is_refused(opened):
    task, coordinator, assignments = opened
    before = seen(coordinator)
    with pytest.raises(Conflict, match="device stranger was not selected in round 0"):
        coordinator.report("stranger", frame_of(task, assignments["a"], "stranger"), 101.0)
    assert seen(coordinator) == before


@pytest.mark.parametrize(
    ("min_reports", "status"), [(0, "abandoned"), (3, "abandoned"), (2, "committed"), (1, "committed")]
)
def test_min_reports_suffice_at_the_deadline(min_reports, status):
    task = make_task(cohort=3, min_reports=min_reports)
    coordinator = coordinate(task)
    before = coordinator.params.copy()
    for name in ("a", "b"):
        coordinator.report(
            name, frame_of(task, coordinator.check_in(name, 0.0), name, delta=delta_of(5)), 1.0
        )
    result = coordinator.tick(10.0)
    assert (result.status, result.version, result.reports) == (status, int(status == "committed"), 2)
    after = before + delta_of(5) if status == "committed" else before
    np.testing.assert_allclose(coordinator.params, after, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("server", [FedAvgM(), FedAdagrad(), FedAdam(), FedYogi()], ids=repr)
def test_a_task_that_was_interrupted_ends_in_the_same_bytes(server):
    """Between rounds everything that matters is in the store, the server rule's state included."""
    task, ends = make_task(server=server, cohort=1), []
    for interrupted in (False, True):
        store = MemoryStore()
        coordinator = coordinate(task, store)
        while coordinator.phase == "open":
            number = coordinator.round
            frame = frame_of(task, coordinator.check_in("a", number), "a", seed=number)
            coordinator.report("a", frame, number)
            if interrupted:
                coordinator = coordinate(task, store)
        ends.append(seen(coordinator))
    assert ends[0][0] == ends[1][0] == 4
    assert ends[0][-1] == ends[1][-1]


def test_an_update_weighs_no_more_than_max_weight(opened):
    task, coordinator, assignments = opened
    before = coordinator.params.copy()
    one, two = delta_of(1), delta_of(2)
    coordinator.report("a", frame_of(task, assignments["a"], "a", delta=one, examples=1), 101.0)
    coordinator.report("b", frame_of(task, assignments["b"], "b", delta=two, examples=2**50), 101.0)
    np.testing.assert_allclose(coordinator.params, before + (one + 5 * two) / 6, rtol=1e-5, atol=1e-7)


ROBUST = [Median(), TrimmedMean(1), Krum(1)]


def play_round(task, deltas, *, order=None, coordinator=None):
    """One round of phones that send `deltas`, in `order`: the coordinator afterwards and the round's result."""
    coordinator = coordinator or coordinate(task)
    assignments = [coordinator.check_in(f"phone-{i}", 0.0) for i in range(len(deltas))]
    for i in order or range(len(deltas)):
        frame = frame_of(task, assignments[i], f"phone-{i}", delta=deltas[i])
        closed = coordinator.report(f"phone-{i}", frame, 1.0).closed
    return coordinator, closed


@pytest.mark.parametrize("upload", ["float32", "int8"])
@pytest.mark.parametrize("aggregate", ROBUST, ids=repr)
def test_one_report_of_five_cannot_carry_a_robust_mean_away(aggregate, upload):
    honest = [delta_of(i) for i in range(4)]
    lie = np.full(CONFIG.spec.size, 1e9, np.float32)
    moved = {}
    for each in (Mean(), aggregate):
        task = make_task(cohort=5, aggregate=each, upload=upload)
        before = coordinate(task).params
        coordinator, closed = play_round(task, [*honest, lie])
        assert closed.status == "committed"
        moved[each] = np.abs(coordinator.params - before).max()
    assert moved[aggregate] <= np.abs(honest).max() * 1.1
    assert moved[Mean()] > 1e8


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(5)), upload=st.sampled_from(["float32", "int8"]))
@pytest.mark.parametrize("aggregate", ROBUST, ids=repr)
def test_a_robust_round_ends_in_the_same_bytes_in_any_order_of_arrival(aggregate, order, upload):
    task = make_task(cohort=5, aggregate=aggregate, upload=upload, server=FedYogi())
    deltas = [delta_of(i) for i in (0, 1, 2, 3, 0)]
    ends = {play_round(task, deltas, order=o)[0].params.tobytes() for o in (order, range(5))}
    assert len(ends) == 1


@pytest.mark.parametrize("aggregate", [Mean(), *ROBUST], ids=repr)
def test_the_server_keeps_the_bound_on_updates_that_phones_did_not(aggregate):
    task = make_task(cohort=5, aggregate=aggregate, update_clip_norm=0.5)
    before = coordinate(task).params.astype(np.float64)
    coordinator, _ = play_round(task, [delta_of(1, scale=1e6)] * 5)
    assert np.linalg.norm(coordinator.params - before) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("aggregate", [Mean(), *ROBUST], ids=repr)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_report_that_is_not_finite_is_refused_and_counted_and_the_round_goes_on(aggregate, bad):
    task = make_task(cohort=5, over_selection=1.2, aggregate=aggregate)
    coordinator, deltas = coordinate(task), [delta_of(i) for i in range(5)]
    broken = coordinator.check_in("broken", 0.0)
    poisoned = delta_of(9)
    poisoned[7] = bad
    fields = {name: getattr(broken, name) for name in ("task", "round", "model_sha256", "upload")}
    frame = encode_report(
        Update({"values": poisoned}),
        device="broken", spec_hash=broken.spec, examples=3, tokens=10, train_loss=2.0, **fields,
    )  # fmt: skip
    before = seen(coordinator)
    for _ in range(2):
        with pytest.raises(WireError, match="norm must be at most"):
            coordinator.report("broken", frame, 0.5)
    assert seen(coordinator) == before
    coordinator, closed = play_round(task, deltas, coordinator=coordinator)
    assert (closed.status, closed.reports, closed.refused, closed.dropped) == ("committed", 5, 1, 1)
    np.testing.assert_array_equal(coordinator.params, play_round(task, deltas)[0].params)
    assert play_round(task, deltas, coordinator=coordinator)[1].refused == 0


def test_only_reports_of_selected_phones_count_as_refused(opened):
    task, coordinator, assignments = opened
    with pytest.raises(WireError):
        coordinator.report("stranger", b"nonsense", 101.0)
    with pytest.raises(Conflict):
        coordinator.report("a", frame_of(task, assignments["a"], "a", round=3), 101.0)
    assert coordinator.tick(200.0).refused == 0


@pytest.mark.parametrize(
    ("aggregate", "rounds", "least"),
    [(TrimmedMean(1), {}, 3), (Krum(1), {"cohort": 4}, 5), (Krum(0), {"cohort": 5, "min_reports": 2}, 3)],
)
def test_a_task_whose_rounds_may_be_too_small_for_its_aggregate_is_refused(aggregate, rounds, least):
    with pytest.raises(ConfigError, match=f"min_reports, or cohort if that is 0, must be >= {least} for "):
        make_task(aggregate=aggregate, **rounds)


def test_a_repeated_check_in_gets_the_same_assignment_with_the_time_that_is_left(opened):
    _, coordinator, assignments = opened
    assert coordinator.check_in("a", 100.0) == assignments["a"]
    assert coordinator.check_in("a", 107.0) == replace(assignments["a"], deadline_s=3.0)
    assert isinstance(coordinator.check_in("a", 110.0), Wait)


def test_every_phone_and_round_has_a_seed_of_its_own():
    task = make_task(cohort=1, over_selection=3)
    coordinator = coordinate(task)
    seeds = []
    for number in range(3):
        assignments = {name: coordinator.check_in(name, number) for name in ("a", "b", "c")}
        seeds += [assignment.seed for assignment in assignments.values()]
        coordinator.report("a", frame_of(task, assignments["a"], "a"), number)
    assert len(set(seeds)) == 9
    again = coordinate(task)
    assert again.check_in("a", 5.0).seed == seeds[0]


def test_a_round_begins_with_its_first_phone_and_not_before():
    task = make_task(min_reports=1)
    coordinator = coordinate(task)
    assert coordinator.tick(1e6) is None
    first = coordinator.check_in("a", 1e6)
    assert first.deadline_s == task.rule.deadline_s
    assert coordinator.tick(1e6 + 9.9) is None
    result = coordinator.tick(1e6 + 10)
    assert (result.status, result.dropped, result.train_loss) == ("abandoned", 1, None)


def test_downloads_are_added_up_round_by_round(opened):
    task, coordinator, assignments = opened
    coordinator.downloaded(100)
    coordinator.downloaded(23)
    for name in assignments:
        closed = coordinator.report(name, frame_of(task, assignments[name], name), 101.0).closed
    assert closed.downlink_bytes == 123
    assert closed.to_json()["downlink_bytes"] == 123
    coordinator.check_in("a", 200.0)
    assert coordinator.tick(300.0).downlink_bytes == 0


def test_the_training_loss_is_the_mean_over_words(opened):
    task, coordinator, assignments = opened
    coordinator.report("a", frame_of(task, assignments["a"], "a", tokens=30, train_loss=4.0), 101.0)
    frame = frame_of(task, assignments["b"], "b", tokens=10, train_loss=8.0)
    assert coordinator.report("b", frame, 101.0).closed.train_loss == pytest.approx(5.0)


def test_phones_are_in_one_state_each():
    task = make_task(cohort=2, over_selection=1)
    coordinator = coordinate(task)
    assignment = coordinator.check_in("a", 0.0)
    coordinator.check_in("b", 0.0)
    coordinator.check_in("c", 0.0)
    coordinator.report("a", frame_of(task, assignment, "a"), 1.0)
    coordinator.check_in("a", 1.0)
    assert coordinator.device_states() == {"training": 1, "reported": 1, "waiting": 1, "dropped": 0}
    coordinator.tick(10.0)
    assert coordinator.device_states() == {"training": 0, "reported": 0, "waiting": 0, "dropped": 1}


@pytest.mark.parametrize("server", [FedAvg(1e30), FedAdam()], ids=["fedavg", "fedadam"])
def test_a_round_whose_model_would_not_be_finite_is_abandoned(server):
    """2^64 is the largest legal value; FedAdam squares it, which leaves float32."""
    task = make_task(server=server, cohort=1)
    coordinator = coordinate(task)
    before = coordinator.params.tobytes()
    huge = np.zeros(CONFIG.spec.size, np.float32)
    huge[3] = 2.0**64
    closed = coordinator.report(
        "a", frame_of(task, coordinator.check_in("a", 0.0), "a", delta=huge), 1.0
    ).closed
    assert (closed.status, closed.version, closed.reports) == ("abandoned", 0, 1)
    assert coordinator.params.tobytes() == before
    modest = np.full(CONFIG.spec.size, 1e-30, np.float32)
    frame = frame_of(task, coordinator.check_in("a", 2.0), "a", delta=modest)
    assert coordinator.report("a", frame, 3.0).closed.status == "committed"


def test_a_coordinator_keeps_its_own_copy_of_the_parameters():
    params = init_params(CONFIG, seed=1)
    coordinator = coordinate(make_task(), params=params)
    before = coordinator.params.copy()
    params[:] = 7
    np.testing.assert_array_equal(coordinator.params, before)


def test_parameters_of_another_size_are_refused():
    with pytest.raises(ModelError, match="the task's model has 75 parameters, got 9"):
        coordinate(make_task(), params=np.zeros(9, np.float32))


def test_a_state_of_another_server_rule_is_refused_on_resume(opened):
    task, _, _ = opened
    store = MemoryStore()
    coordinator = coordinate(task, store)
    coordinator.check_in("a", 0.0)
    coordinator.tick(100.0)
    with pytest.raises(ModelError, match=r"keeps \['m', 'v'\], the store holds \[\] of another rule"):
        coordinate(make_task(server=FedAdam()), store)


class FullDisk(MemoryStore):
    """Fails once."""

    def __init__(self):
        super().__init__()
        self.failures = 1

    def save(self, result, params, server_state, *, counted):
        if self.failures:
            self.failures -= 1
            raise OSError("no space left on device")
        super().save(result, params, server_state)


def test_a_store_that_fails_loses_no_report():
    task = make_task(cohort=1)
    store = FullDisk()
    coordinator = coordinate(task, store)
    before = coordinator.params.copy()
    frame = frame_of(task, coordinator.check_in("a", 0.0), "a", delta=delta_of(4))
    with pytest.raises(OSError, match="no space"):
        coordinator.report("a", frame, 1.0)
    assert (coordinator.round, coordinator.version) == (0, 0)
    assert coordinator.report("a", frame, 2.0).duplicate
    result = coordinator.tick(10.0)
    assert (result.status, result.reports) == ("committed", 1)
    np.testing.assert_allclose(coordinator.params, before + delta_of(4), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(store.load().params, coordinator.params)


def test_the_largest_report_holds_the_float32_upload():
    task = make_task()
    assignment = coordinate(task).check_in("a", 0.0)
    assert len(frame_of(task, assignment, "a")) < task.max_report_bytes == assignment.max_report_bytes
