"""Reports whose updates were added up elsewhere end where their frames would: model, results, receipts, refusals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam, FedAvg, FedBuff, FedYogi, Median
from kbdfl.algorithms.aggregate import RunningSum
from kbdfl.algorithms.base import chain
from kbdfl.coordinator import Coordinator
from kbdfl.errors import Conflict, ModelError, TooLarge, WireError
from kbdfl.model import CifgConfig, init_params
from kbdfl.rounds import MemoryStore, Summed
from kbdfl.task import RoundRule, Task
from kbdfl.transform import encode_chain
from kbdfl.wire import encode_report

CONFIG = CifgConfig(vocab=12, embed=3, hidden=4)
DEVICES = [f"phone-{number}" for number in range(6)]
ALGORITHMS = {
    "as it is": Algorithm(server=FedAdam()),
    "irrational weights": Algorithm(upload="float32", weights="sqrt", server=FedAvg(0.7)),
    "bounded": Algorithm(upload="tiny-uplink", update_clip_norm=0.05, weights="sqrt", server=FedYogi()),
    "each phone's own draws": Algorithm(upload="rotate+sample:0.25+int4"),
    "some words": Algorithm(ClientRule(report_words=5), upload="compact"),
    "control variates": Algorithm(ClientRule(scaffold=2), upload="int8", server=FedAvg()),
}


def make_task(algorithm=None, **rounds):
    return Task(
        name="test keyboard",
        config=CONFIG,
        algorithm=algorithm or Algorithm(upload="float32", server=FedAvg()),
        rule=RoundRule(**({"cohort": 2, "over_selection": 1.5, "deadline_s": 10.0, "rounds": 3} | rounds)),
        vocabulary_sha256="ab" * 32,
        seed=1,
    )


def coordinate(task, store=None):
    params = init_params(CONFIG, seed=1)
    return Coordinator(task, params, store=store or MemoryStore(), random=np.random.default_rng(1))


def frame_of(task, assignment, device, /, *, seed=0, **changes):
    """A report, honest but for `changes`."""
    random, at = np.random.default_rng(seed), assignment.coordinates
    deltas = [
        (scale * random.standard_normal(at.model.spec.size)).astype(np.float32) for scale in (0.02, 0.1)
    ]
    transforms = chain(task.algorithm.upload, 0.0)  # a liar does not clip
    fields = {
        "task": assignment.task,
        "round": assignment.round,
        "device": device,
        "model_sha256": assignment.model_sha256,
        "spec_hash": at.hash,
        "upload": assignment.upload,
        "examples": 1 + seed % 9,
        "tokens": 10 + seed % 7,
        "train_loss": 2.0 + seed % 5 / 3,
    }
    if task.algorithm.client.scaffold:
        fields["control"] = encode_chain(transforms, deltas[1], assignment.control_draws)
        fields["first_control"] = assignment.round == 0
    return encode_report(encode_chain(transforms, deltas[0], assignment.draws), **(fields | changes))


def added_up(task, reports):
    """What stands for the frames, and the sum of their updates; `reports` are (assignment, device, frame)."""
    algorithm, all_summed = task.algorithm, []
    size = reports[0][0].coordinates.model.spec.size
    total = RunningSum(algorithm.transforms, size, algorithm.update_clip_norm)
    for assignment, device, frame in reports:
        summed, update = Summed.of(frame, max_bytes=1 << 20)
        weight = algorithm.weight(summed.report.examples)
        total.add(device, update, assignment.draws, weight=weight)
        all_summed.append(summed)
    return all_summed, total


def seen(coordinator):
    """All that an observer sees of a coordinator."""
    return (
        coordinator.round,
        coordinator.version,
        coordinator.phase,
        coordinator.reports,
        coordinator.device_states(),
        coordinator.params.tobytes(),
        None if coordinator.control is None else coordinator.control.tobytes(),
    )


def kept(store):
    """What a store holds, as bytes."""
    saved = store.load()
    state = {name: array.tobytes() for name, array in saved.server_state.items()}
    return saved.round, saved.version, saved.params.tobytes(), state


@settings(max_examples=15)
@given(data=st.data(), cohort=st.integers(1, 5))
@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_rounds_of_sums_end_where_rounds_of_frames_do(algorithm, data, cohort):
    """Some reports come as frames, the others in two sums, that come whenever they like before the last report."""
    task = make_task(algorithm, cohort=cohort, over_selection=1.2)
    stores = MemoryStore(), MemoryStore()
    framed, mixed = (coordinate(task, store) for store in stores)
    before = []
    for number in range(task.rule.rounds):
        devices = data.draw(st.permutations(DEVICES))[: task.rule.selected]
        reports = []
        for place, device in enumerate(devices):
            assignment = framed.check_in(device, 20.0 * number)
            assert mixed.check_in(device, 20.0 * number) == assignment
            reports.append((assignment, device, frame_of(task, assignment, device, seed=10 * number + place)))
        reports = reports[:cohort]
        groups = data.draw(st.lists(st.integers(0, 2), min_size=cohort, max_size=cohort))
        sums, summed = {}, {}
        for group in {*groups} - {0}:
            members = [report for report, at in zip(reports, groups, strict=True) if at == group]
            all_summed, total = added_up(task, members)
            sums.setdefault(data.draw(st.integers(0, cohort - 1)), []).append(total)
            summed |= {device: each for (_, device, _), each in zip(members, all_summed, strict=True)}
        for place, (_, device, frame) in enumerate(reports):
            for total in sums.get(place, []):
                mixed.merge(total)
            now = 20.0 * number + place
            receipt = framed.report(device, frame, now)
            assert mixed.report(device, summed.get(device, frame), now) == receipt
            assert (receipt.round, receipt.duplicate) == (number, False)
            known = reports[: place + 1] if receipt.closed else before + reports[: place + 1]
            for _, name, again in known:  # in its other form, too
                twice = framed.report(name, again, now)
                assert twice.duplicate
                assert mixed.report(name, again, now) == twice
                assert mixed.report(name, Summed.of(again, max_bytes=1 << 20)[0], now) == twice
            assert seen(mixed) == seen(framed)
        assert receipt.closed.status == "committed"
        before = reports
    assert kept(stores[0]) == kept(stores[1])
    assert (framed.version, framed.phase) == (task.rule.rounds, "finished")


@settings(max_examples=15)
@given(order=st.permutations(range(5)), summed=st.sets(st.integers(0, 4)))
@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_a_round_ends_in_the_same_bytes_in_any_order_of_arrival(algorithm, order, summed):
    """Its result too, to the last bit of the loss; in the one order some come as sums."""
    task, ends = make_task(algorithm, cohort=5, over_selection=1.0), []
    for one_after_another, as_sums in ((range(5), set()), (order, summed)):
        coordinator, reports = coordinate(task), []
        for seed, device in enumerate(DEVICES[:5]):
            assignment = coordinator.check_in(device, 0.0)
            frame = frame_of(task, assignment, device, seed=seed, train_loss=0.1 + 1 / (3 + seed))
            reports.append((assignment, device, frame))
        for place in one_after_another:
            _, device, frame = reports[place]
            if place in as_sums:
                [frame], total = added_up(task, [reports[place]])
                coordinator.merge(total)
            closed = coordinator.report(device, frame, 1.0).closed
        ends.append((closed, seen(coordinator)))
    assert ends[0] == ends[1]
    assert ends[0][0].status == "committed"


@pytest.fixture
def opened():
    """A task, its coordinator, and what the two phones of an open round send: (assignment, device, frame)."""
    task = make_task()
    coordinator = coordinate(task)
    reports = []
    for seed, device in enumerate(("a", "b")):
        assignment = coordinator.check_in(device, 100.0)
        reports.append((assignment, device, frame_of(task, assignment, device, seed=seed)))
    return task, coordinator, reports


def test_what_stands_for_a_frame_is_all_of_it_but_its_update(opened):
    _, _, [(_, _, frame), _] = opened
    summed, update = Summed.of(frame, max_bytes=len(frame))
    assert len(summed) == len(frame)
    assert not summed.report.update.sections
    again, _ = Summed.of(bytes(frame), max_bytes=len(frame))
    assert again.sha256 == summed.sha256
    fields = {name: getattr(summed.report, name) for name in (
        "task", "round", "device", "model_sha256", "spec_hash", "upload", "examples", "tokens", "train_loss",
    )}  # fmt: skip
    assert encode_report(update, **fields) == frame


@pytest.mark.parametrize("cut", [0, 3, -1])
def test_a_frame_that_cannot_be_read_has_nothing_that_stands_for_it(opened, cut):
    _, _, [(_, _, frame), _] = opened
    with pytest.raises(WireError):
        Summed.of(frame[:cut], max_bytes=1 << 20)
    with pytest.raises(TooLarge):
        Summed.of(frame, max_bytes=len(frame) - 1)


@pytest.mark.parametrize("later", ["in its round", "in the next round", "when all is over"])
@pytest.mark.parametrize("forms", ["sum, sum", "sum, frame", "frame, sum"])
def test_a_report_is_known_again_in_any_form(forms, later):
    task = make_task(cohort=3, over_selection=1.0, rounds=1 if later == "when all is over" else 3)
    coordinator, reports = coordinate(task), []
    for device in ("a", "b", "c"):
        assignment = coordinator.check_in(device, 0.0)
        reports.append((assignment, device, frame_of(task, assignment, device)))
    first, second = forms.split(", ")
    [summed], total = added_up(task, reports[:1])
    form = {"sum": summed, "frame": reports[0][2]}
    if first == "sum":
        coordinator.merge(total)
    assert not coordinator.report("a", form[first], 1.0).duplicate
    if later != "in its round":
        for _, device, frame in reports[1:]:
            receipt = coordinator.report(device, frame, 1.0)
        assert receipt.closed.status == "committed"
    before = seen(coordinator)
    receipt = coordinator.report("a", form[second], 2.0)
    assert (receipt.round, receipt.duplicate, receipt.closed) == (0, True, None)
    assert seen(coordinator) == before
    if later == "in its round":  # nor does it wait for an update
        for _, device, frame in reports[1:]:
            receipt = coordinator.report(device, frame, 3.0)
        assert (receipt.closed.status, receipt.closed.reports) == ("committed", 3)


@pytest.mark.parametrize("first", ["sum", "frame"])
def test_a_second_and_different_report_of_a_phone_is_refused_in_any_form(opened, first):
    task, coordinator, [(assignment, device, frame), _] = opened
    other = frame_of(task, assignment, device, seed=9)
    if first == "sum":
        [frame], total = added_up(task, [(assignment, device, frame)])
        coordinator.merge(total)
    else:
        [other], _ = added_up(task, [(assignment, device, other)])
    coordinator.report(device, frame, 101.0)
    before = seen(coordinator)
    with pytest.raises(Conflict, match="device a has already reported in round 0"):
        coordinator.report(device, other, 101.0)
    assert seen(coordinator) == before


def unsummed(opened, *, store=None, **rounds):
    """A round of two phones of which one's update is in no sum: the coordinator, the sum, and the last report."""
    task, _, _ = opened
    task = replace(task, rule=replace(task.rule, **rounds))
    coordinator, reports = coordinate(task, store), []
    for seed, device in enumerate(("a", "b")):
        assignment = coordinator.check_in(device, 100.0)
        reports.append((assignment, device, frame_of(task, assignment, device, seed=seed)))
    [summed], total = added_up(task, reports[:1])
    coordinator.report("a", summed, 101.0)
    return coordinator, total, reports


def test_a_full_round_does_not_close_while_an_update_is_in_no_sum(opened):
    _, framed, frames = opened
    store = MemoryStore()
    coordinator, total, reports = unsummed(opened, store=store)
    before = seen(coordinator)
    with pytest.raises(RuntimeError, match="of 1 reports that were counted, the updates are in no sum"):
        coordinator.report("b", reports[1][2], 102.0)
    for now in (103.0, 999.0):
        with pytest.raises(RuntimeError, match="are in no sum"):
            coordinator.tick(now)
    assert store.load() is None
    assert (coordinator.round, coordinator.version, coordinator.phase) == (0, 0, "open")
    assert seen(coordinator)[-2:] == before[-2:]
    # It is not lost: once the sum is there, the round closes as it would have.
    coordinator.merge(total)
    closed = coordinator.tick(102.0)
    for _, device, frame in frames:
        wanted = framed.report(device, frame, 102.0).closed
    assert closed == wanted
    assert coordinator.params.tobytes() == framed.params.tobytes()
    assert coordinator.params.tobytes() != before[-2]


@pytest.mark.parametrize("min_reports", [1, 0])
def test_a_round_that_is_over_does_not_close_while_an_update_is_in_no_sum(opened, min_reports):
    store = MemoryStore()
    coordinator, total, _ = unsummed(opened, store=store, min_reports=min_reports)
    assert coordinator.tick(109.9) is None
    before = seen(coordinator)
    with pytest.raises(RuntimeError, match="are in no sum"):
        coordinator.tick(110.0)
    assert seen(coordinator) == before
    assert store.load() is None
    coordinator.merge(total)
    closed = coordinator.tick(111.0)
    assert (closed.status, closed.reports) == ("committed" if min_reports else "abandoned", 1)


def test_a_round_does_not_close_with_an_update_of_a_report_that_was_not_counted(opened):
    task, coordinator, reports = opened
    [summed, _], total = added_up(task, reports)
    coordinator.merge(total)
    coordinator.report("a", summed, 101.0)
    before = seen(coordinator)
    with pytest.raises(RuntimeError, match="are in no sum"):
        coordinator.tick(110.0)
    assert seen(coordinator) == before


def test_a_round_of_which_nothing_is_awaited_leaves_nothing_to_the_next(opened):
    task, coordinator, reports = opened
    all_summed, total = added_up(task, reports)
    coordinator.report("a", all_summed[0], 101.0)
    coordinator.merge(total)
    assert coordinator.report("b", all_summed[1], 101.0).closed.status == "committed"
    for seed, device in enumerate(("b", "c")):
        frame = frame_of(task, coordinator.check_in(device, 200.0), device, seed=seed)
        closed = coordinator.report(device, frame, 201.0).closed
    assert (closed.status, closed.version, closed.reports) == ("committed", 2, 2)


REFUSED = [
    ({"task": "other"}, Conflict),
    ({"device": "b"}, Conflict),
    ({"round": 7}, Conflict),
    ({"model_sha256": "0" * 64}, ModelError),
    ({"spec_hash": "0" * 16}, ModelError),
    ({"upload": "int8"}, ModelError),
    ({"train_loss": 1e300}, WireError),
]


def refusal(coordinator, device, report, **options):
    """What a coordinator says to it."""
    before = seen(coordinator)
    with pytest.raises((Conflict, ModelError, WireError, TooLarge)) as caught:
        coordinator.report(device, report, 101.0, **options)
    assert seen(coordinator) == before
    return caught.type, str(caught.value)


@pytest.mark.parametrize(("changes", "error"), REFUSED, ids=[next(iter(changes)) for changes, _ in REFUSED])
def test_a_summed_report_that_does_not_fit_the_round_is_refused_as_its_frame_would_be(changes, error):
    task, said, results = make_task(), [], []
    for summing in (False, True):
        coordinator = coordinate(task)
        assignments = {device: coordinator.check_in(device, 100.0) for device in ("a", "b")}
        wrong = frame_of(task, assignments["a"], "a", **changes)
        wrong = Summed.of(wrong, max_bytes=1 << 20)[0] if summing else wrong
        said.append(refusal(coordinator, "a", wrong))
        for device, assignment in assignments.items():  # and the phone may still send the right one
            frame = frame_of(task, assignment, device)
            if summing:
                [frame], total = added_up(task, [(assignment, device, frame)])
                coordinator.merge(total)
            receipt = coordinator.report(device, frame, 102.0)
            assert not receipt.duplicate
        results.append((receipt.closed, coordinator.params.tobytes()))
    assert said[0] == said[1]
    assert said[0][0] is error
    assert results[0] == results[1]
    assert results[0][0].status == "committed"
    assert results[0][0].refused == (error is not Conflict)


def test_a_summed_report_of_a_stranger_or_for_another_address_is_refused_as_its_frame_would_be(opened):
    task, coordinator, [(assignment, _, frame), _] = opened
    strange = frame_of(task, assignment, "stranger")
    for device, report, options, text in (
        ("stranger", strange, {}, "device stranger was not selected in round 0"),
        ("a", frame, {"number": 5}, "the address names round 5, the report round 0"),
        ("b", frame, {}, "another device"),
    ):
        summed, _ = Summed.of(report, max_bytes=1 << 20)
        found = refusal(coordinator, device, report, **options)
        assert found == refusal(coordinator, device, summed, **options)
        assert found[0] is Conflict
        assert text in found[1]


def test_a_summed_report_that_is_too_large_late_or_comes_after_the_end_is_refused_as_its_frame_would_be():
    task = make_task(cohort=1, over_selection=2.0, rounds=2)
    coordinator, reports = coordinate(task), []
    for device in ("a", "b"):
        assignment = coordinator.check_in(device, 100.0)
        reports.append((assignment, device, frame_of(task, assignment, device)))
    summed, _ = Summed.of(reports[0][2], max_bytes=1 << 20)
    large = replace(summed, nbytes=task.max_report_bytes + 1)
    assert refusal(coordinator, "a", large) == refusal(coordinator, "a", bytes(len(large)))
    for number, text in ((0, "round 1 is open, the report is for round 0"), (1, "all 2 rounds are over")):
        frame = frame_of(task, coordinator.check_in("a", 100.0), "a", seed=number)
        assert coordinator.report("a", frame, 101.0).closed.status == "committed"
        late, _ = Summed.of(reports[1][2], max_bytes=1 << 20)
        assert refusal(coordinator, "b", late) == refusal(coordinator, "b", reports[1][2]) == (Conflict, text)


def test_a_resumed_round_still_waits_for_its_sums():
    task = make_task()
    coordinator = coordinate(task)
    reports = []
    for device in DEVICES[:2]:
        assignment = coordinator.check_in(device, 100.0)
        reports.append((assignment, device, frame_of(task, assignment, device)))
    summed, _ = Summed.of(reports[0][2], max_bytes=1 << 20)
    coordinator.report(DEVICES[0], summed, 101.0)
    again = coordinate(task)
    again.resume(coordinator.in_flight(), shift_s=0.0)
    with pytest.raises(RuntimeError, match="are in no sum"):
        again.report(DEVICES[1], reports[1][2], 102.0)


@pytest.mark.parametrize(
    "algorithm", [Algorithm(mode=FedBuff(), server=FedAvg()), Algorithm(aggregate=Median())]
)
def test_an_update_that_must_come_by_itself_is_refused_in_a_sum(algorithm):
    task = make_task(algorithm, cohort=1, over_selection=1.0)
    coordinator = coordinate(task)
    late, other = (
        (coordinator.check_in(device, 100.0) for device in DEVICES[:2])
        if isinstance(algorithm.mode, FedBuff)
        else (coordinator.check_in(DEVICES[0], 100.0), None)
    )
    if other is not None:  # a version is committed before the first phone reports
        coordinator.report(DEVICES[1], frame_of(task, other, DEVICES[1]), 101.0)
    summed, _ = Summed.of(frame_of(task, late, DEVICES[0]), max_bytes=1 << 20)
    with pytest.raises(Conflict, match="must come by itself"):
        coordinator.report(DEVICES[0], summed, 102.0)
