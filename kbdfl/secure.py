"""Secure aggregation and the coordinator: what a session's sum counts for in a round, and what is said of the model."""

from collections.abc import Mapping

import numpy as np

from kbdfl.algorithms.aggregate import RunningSum
from kbdfl.algorithms.noised import NoisedUnseen
from kbdfl.algorithms.secure import SecurePayload
from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator
from kbdfl.errors import Conflict
from kbdfl.privacy import Row
from kbdfl.privacy import statement as of_row
from kbdfl.privacy.statement import describe
from kbdfl.rounds import RoundResult, Summed
from kbdfl.secagg import Terms, crypto, plan_for
from kbdfl.secagg import messages as m
from kbdfl.secagg.crypto import KEY, SIGNATURE
from kbdfl.secagg.field import BYTES
from kbdfl.secagg.messages import to_bitmap
from kbdfl.task import Task, payload_for
from kbdfl.transform import Update
from kbdfl.wire import Report

SESSION = 16  # bytes


def payload_of(task: Task) -> SecurePayload:
    """How a phone's update becomes words, in every round of the task, and which noise it adds."""
    return payload_for(task.algorithm, task.rule, size=task.reported_size)


def terms_of(task: Task, assignment: Assignment, *, session: bytes, now: float) -> Terms:
    """The terms of a `session` for the round of `assignment`; `now` is in seconds since 1970."""
    payload = payload_of(task)
    return Terms(
        session,
        task=assignment.task,
        round=assignment.round,
        model_sha256=bytes.fromhex(assignment.model_sha256),
        issued_s=int(now),
        devices=task.rule.selected,
        words=payload.words,
        levels=payload.levels,
        noise_bound=payload.noise_bound,
    )


def count_sum(
    coordinator: Coordinator,
    levels: np.ndarray,
    survivors: Mapping[str, int],
    *,
    assignment: Assignment,
    session: bytes,
    now: float,
) -> RoundResult:
    """Count the `survivors` (device: bytes that it sent), whose words add up to `levels` int64 (m,); close the round.

    What they trained is known of all together, so each counts for an equal share of it. Raises Conflict if the round
    of `assignment` is not open any more, or has reports already.
    """
    task = coordinator.task
    if coordinator.round != assignment.round or coordinator.reports or not survivors:
        raise Conflict(f"round {assignment.round} takes no sum: round {coordinator.round} is open")
    delta, tally = payload_of(task).read(levels, assignment.draws)
    if coordinator.privacy is None:
        total = RunningSum(task.algorithm.transforms, len(delta), 0.0)
        total.add_sum(delta, count=len(survivors))
    else:
        total = NoisedUnseen(coordinator.privacy, size=len(delta), round=assignment.round)
        total.add_noised(delta, survivors)
    coordinator.merge(total, whole=True)
    shares = tally.each(len(survivors))
    closed: RoundResult | None = None
    for (device, nbytes), (examples, tokens, loss) in zip(sorted(survivors.items()), shares, strict=True):
        report = Report(
            task=assignment.task,
            round=assignment.round,
            device=device,
            model_sha256=assignment.model_sha256,
            spec_hash=assignment.coordinates.hash,
            upload=assignment.upload,
            examples=examples,
            tokens=tokens,
            train_loss=loss,
            update=Update({}),
        )
        fingerprint = crypto.digest("counted", session, str(assignment.round).encode(), device.encode())
        closed = coordinator.report(device, Summed(report, fingerprint, nbytes), now).closed
    if closed is None:
        raise Conflict(f"round {assignment.round} counted {coordinator.reports} reports and is not closed")
    return closed


def session_bytes(task: Task, *, devices: int) -> tuple[int, int]:
    """Bytes up and down of each of so many phones, in a session in which nobody falls silent."""
    algorithm, payload = task.algorithm, payload_of(task)
    rule = algorithm.secure.rule
    plan = plan_for(devices, dropout=rule.dropout)
    session, key, signature = bytes(SESSION), bytes(KEY), bytes(SIGNATURE)
    everybody = to_bitmap(range(devices), devices)
    signers = to_bitmap(range(plan.quorum), devices)
    boxes = bytes(m.BOX * plan.degree)
    issued_s = 1 << 31  # of five bytes, as all until the year 2106
    model, invited = bytes(32), task.rule.selected
    number = min(task.rule.rounds, 1 << 15)
    summed = payload.words, payload.levels, payload.noise_bound
    terms = Terms(session, task.name, number, model, issued_s, invited, *summed)
    entries, neighbours = bytes(m.ENTRY * devices), bytes(m.NEIGHBOUR * plan.degree)
    up = (
        m.Advert(session, key, key, key, signature),
        m.Shares(session, key, boxes),
        m.Masked(session, bytes(terms.payload_bytes)),
        m.Confirmation(session, signature),
        m.Unmasked(session, bytes(BYTES * plan.degree)),
    )
    down = (
        terms,
        m.Roster(session, entries, plan.degree, plan.threshold, plan.quorum, neighbours),
        m.Inbox(session, to_bitmap(range(plan.degree), devices), boxes),
        m.Survivors(session, everybody, to_bitmap((), devices)),
        m.Quorum(session, signers, bytes(SIGNATURE * plan.quorum)),
    )
    sizes = [sum(len(message.encode()) for message in sent) for sent in (up, down)]
    return sizes[0], sizes[1]


def fewest(task: Task) -> int:
    """In a sum that makes a model there are at least so many phones."""
    return max(task.rule.enough, task.algorithm.secure.quorum(task.algorithm.secure.devices))


def statement(task: Task, *, simulated: bool = False, row: Row | None = None) -> str:
    """The privacy statement of a model that was trained so, by a server or in a simulation.

    Where phones add noise it is that of their ledger, whose newest `row` is none before the first release.
    """
    where = " This was a simulation: its sums were made without masks." if simulated else ""
    if task.account is not None:
        said = describe(task.account, released=0, rho=0.0, epsilon=0.0) if row is None else of_row(row)
        return said + where
    return (
        "Trained by federated averaging under secure aggregation (Bonawitz et al. 2017): no single update was "
        f"readable; the server saw sums over at least {fewest(task):,} phones, and who took part, as long as fewer "
        "than a fifth of the phones of a round were in league with it, and none of its own making; no differential "
        f"privacy is claimed.{where}"
    )
