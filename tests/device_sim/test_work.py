"""What workers make of phones' plans: frames, or the sum of a group's updates and what was said beside them."""

from dataclasses import fields, replace

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule
from kbdfl.algorithms.aggregate import RunningSum
from kbdfl.device_sim.control import ControlStore
from kbdfl.device_sim.devices import Device
from kbdfl.device_sim.feedback import ErrorMemory
from kbdfl.device_sim.runtime import prepare
from kbdfl.device_sim.work import Group, Job, Plan, Received, perform, perform_together
from kbdfl.engines import ThreadEngine
from kbdfl.errors import TooLarge
from kbdfl.transform import decode_chain
from kbdfl.wire import decode_report

SAID = [
    ["see you later", "hello how are you"],
    ["thanks"],
    ["we see the sea", "be there tomorrow", "on the sea", "at home"],
    ["zyzzyva you", "how are we", "see you"],
]
CLIENT = ClientRule(batch_size=2, learning_rate=1.0)
ALGORITHMS = {
    "as it is": Algorithm(CLIENT),
    "irrational weights": Algorithm(CLIENT, upload="float32", weights="sqrt"),
    "bounded": Algorithm(CLIENT, upload="compact", update_clip_norm=0.01, weights="sqrt"),
    "summable": Algorithm(CLIENT, upload="summable", update_clip_norm=0.1),
    "each phone's own draws": Algorithm(CLIENT, upload="rotate+sample:0.25+int4"),
    "what was lost": Algorithm(replace(CLIENT, feedback_rounds=4), upload="tiny-uplink"),
    "some words": Algorithm(replace(CLIENT, report_words=9), upload="compact"),
}


@pytest.fixture
def make_jobs(assignment, vocabulary, params):
    """Jobs of one round, a phone for each of SAID: without `run` they do nothing, and some are `too_small` to."""

    def make(algorithm, *, too_small=(), run=True):
        with ThreadEngine(1) as engine:
            received = Received(engine.share(params), None)
        jobs = []
        for number, texts in enumerate(SAID):
            own = replace(
                assignment,
                client=algorithm.client,
                upload=algorithm.upload,
                update_clip_norm=algorithm.update_clip_norm,
                seed=number,
            )
            plan = Plan(7)
            if run:
                prepared = prepare(own, vocabulary.encode_many(texts))
                plan = Plan(prepared.part.batches.tokens, prepared)
            hardware = Device(memory_bytes=1 if number in too_small else 1 << 28)
            of_phone = ControlStore(), ErrorMemory()
            times = {"arrival_s": float(number), "training_s": 1.0, "in_time": 1e9}
            jobs.append(Job(f"phone {number}", hardware, own, plan, received, *of_phone, **times))
        return jobs

    return make


def one_by_one(algorithm, jobs):
    """What came of each, and the sum that a server makes of the frames."""
    size = jobs[0].assignment.coordinates.model.spec.size
    all_done, total = [perform(job) for job in jobs], algorithm.gathering(size)
    for job, done in zip(jobs, all_done, strict=True):
        if done is not None:
            report = decode_report(done.frame, max_bytes=1 << 20)
            weight = algorithm.weight(report.examples)
            total.add(job.device, report.update, job.assignment.draws, weight=weight)
    return all_done, total


def bytes_of(total):
    state = total.state()
    return state["total"].tobytes(), state["weight"], state["count"]


def facts(report):
    """All that a report says beside its update."""
    return {each.name: getattr(report, each.name) for each in fields(report) if each.name != "update"}


def lost_of(done):
    """What a phone keeps of it."""
    return done.lost and {name: array.tobytes() for name, array in done.lost.update.sections.items()}


@pytest.mark.parametrize("run", [True, False], ids=["phones that train", "phones that only say so"])
@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_a_group_gives_the_sum_and_the_facts_that_frames_give_one_by_one(make_jobs, algorithm, run):
    jobs = make_jobs(algorithm, run=run)
    all_done, total = perform_together(Group(jobs, algorithm))
    wanted, of_frames = one_by_one(algorithm, make_jobs(algorithm, run=run))
    assert bytes_of(total) == bytes_of(of_frames)
    assert total.count == len(jobs)
    assert total.mean().any() == run
    for job, done, single in zip(jobs, all_done, wanted, strict=True):
        report, summed = decode_report(single.frame, max_bytes=1 << 20), done.frame
        assert facts(summed.report) == facts(report)
        assert summed.report.device == job.device
        assert not summed.report.update.sections
        assert len(summed) == summed.nbytes == len(single.frame)
        assert (done.control, lost_of(done)) == (None, lost_of(single))
        assert (done.lost is not None) == bool(run and algorithm.client.feedback_rounds)
    assert len({done.frame.sha256 for done in all_done}) == len(jobs)


def test_what_is_summed_is_what_the_updates_say(make_jobs):
    """Decoded and added up a second time, in float64."""
    algorithm = ALGORITHMS["irrational weights"]
    jobs = make_jobs(algorithm)
    _, total = perform_together(Group(jobs, algorithm))
    wanted, weights = 0.0, 0.0
    for job in make_jobs(algorithm):
        report = decode_report(perform(job).frame, max_bytes=1 << 20)
        delta = decode_chain(
            algorithm.transforms, report.update, job.assignment.config.spec.size, job.assignment.draws
        )
        weight = np.sqrt(report.examples)
        wanted, weights = wanted + weight * delta.astype(np.float64), weights + weight
    np.testing.assert_allclose(total.mean(), wanted / weights, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("too_small", [(0,), (3,), (1, 2), (0, 1, 2, 3)])
def test_a_phone_that_declines_is_in_no_sum_and_in_its_place(make_jobs, too_small):
    algorithm = ALGORITHMS["bounded"]
    all_done, total = perform_together(Group(make_jobs(algorithm, too_small=too_small), algorithm))
    assert [done is None for done in all_done] == [number in too_small for number in range(len(SAID))]
    others = [job for number, job in enumerate(make_jobs(algorithm)) if number not in too_small]
    assert total.count == len(others)
    if others:
        assert bytes_of(total) == bytes_of(perform_together(Group(others, algorithm))[1])
    else:
        assert not any(total.state()["total"])


def test_what_stands_for_a_frame_is_not_taken_for_a_whole_one(make_jobs):
    algorithm = ALGORITHMS["as it is"]
    all_done, _ = perform_together(Group(make_jobs(algorithm), algorithm))
    with pytest.raises(TypeError, match="phone 0 is in a sum already"):
        _ = all_done[0].whole


def test_groups_that_are_merged_are_the_sum_of_all(make_jobs):
    algorithm = ALGORITHMS["irrational weights"]
    jobs = make_jobs(algorithm)
    sums = [perform_together(Group(part, algorithm))[1] for part in (jobs[2:], jobs[:1], jobs[1:2])]
    assert bytes_of(RunningSum.merged(sums)) == bytes_of(one_by_one(algorithm, jobs)[1])


def test_a_phone_is_weighed_by_its_examples_up_to_the_clamp(make_jobs):
    ends = []
    for most in (1, 2, 200):
        algorithm = replace(ALGORITHMS["as it is"], max_weight=most)
        ends.append(perform_together(Group(make_jobs(algorithm), algorithm))[1].state())
    assert [end["weight"] / ends[0]["weight"] for end in ends] == [1.0, 7 / 4, 10 / 4]
    assert len({end["total"].tobytes() for end in ends}) == 3


def with_little_room(job):
    return replace(job, assignment=replace(job.assignment, max_report_bytes=100))


def test_a_phone_whose_report_would_be_too_large_declines_in_a_group_too(make_jobs):
    algorithm = ALGORITHMS["as it is"]
    first, *others = make_jobs(algorithm)
    all_done, total = perform_together(Group([with_little_room(first), *others], algorithm))
    assert [done is None for done in all_done] == [True, False, False, False]
    assert total.count == len(others)


def test_a_report_that_a_server_would_not_read_is_in_no_sum(make_jobs):
    algorithm = ALGORITHMS["as it is"]
    first, *others = make_jobs(algorithm, run=False)
    with pytest.raises(TooLarge):
        perform_together(Group([with_little_room(first), *others], algorithm))
