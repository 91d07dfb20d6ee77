"""The device runtime: train the received model on the phone's own log, inside a budget, and write the report.

The runtime believes nothing that the server says of the model: shape, layout, vocabulary and hash are checked
against what arrived before a single word is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kbdfl.algorithms.client import ClientRule
from kbdfl.algorithms.sampled import Submodel, partial, submodel
from kbdfl.algorithms.scaffold import renewed_control
from kbdfl.assignment import Assignment
from kbdfl.device_sim.control import (
    ControlStore,
    encode_control,
    mean_gradient,
    step_correction,
)
from kbdfl.device_sim.encoding import encode_update
from kbdfl.device_sim.feedback import ErrorMemory
from kbdfl.errors import ConfigError, DataError, KbdflError, ModelError
from kbdfl.kernels.train import Workspace, local_sgd, scratch_bytes
from kbdfl.params import digest
from kbdfl.rng import stream
from kbdfl.rounds import LARGEST_LOSS
from kbdfl.text import SPECIALS, Vocabulary, training_batches
from kbdfl.wire import encode_report

BYTES_PER_WORD = 8  # an input and a target


class Declined(KbdflError):
    """The phone takes no part in the round, for a reason of its own."""


class OverBudget(Declined):
    """The assignment does not fit the phone."""


class Diverged(Declined):
    """Training left the numbers that a report can carry."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What training may take on this phone.

    memory_bytes  of model, gradient, activations and batches together
    time_s        training stops before the batch that would begin later; 0 = no bound
    """

    memory_bytes: int = 256 << 20
    time_s: float = 0.0

    def __post_init__(self) -> None:
        if self.memory_bytes < 1:
            raise ConfigError(f"memory_bytes must be >= 1, got {self.memory_bytes}")
        if not 0 <= self.time_s < float("inf"):
            raise ConfigError(f"time_s must be >= 0 and finite, got {self.time_s}")

    def within(self, deadline_s: float, *, fetching_s: float) -> "Budget":
        """What is left of it for training so that a report arrives in `deadline_s`.

        Sending it is taken to last as long as the fetching did. Raises OverBudget when there is no time left.
        """
        left_s = deadline_s - 2 * fetching_s
        if left_s <= 0:
            raise OverBudget(
                f"the round ends in {deadline_s:.3g} s, and fetching the model took {fetching_s:.3g} s"
            )
        return replace(self, time_s=min(self.time_s or left_s, left_s))


@dataclass(frozen=True, slots=True)
class LocalRun:
    """What a phone is about to train: a part of the model with its batches, and from how many messages these are."""

    part: Submodel
    examples: int

    def within(self, words: int) -> "LocalRun":
        """Its first batches, that learn from at most `words` words together, and their share of the messages.

        Raises OverBudget when not even one is left.
        """
        batches = self.part.batches
        count = int(np.searchsorted(np.cumsum(batches.learned), words, side="right"))
        if count == len(batches.steps):
            return self
        if count == 0:
            raise OverBudget(f"no batch learns from at most {words} words")
        return LocalRun(replace(self.part, batches=batches.first(count)), self.share(count))

    def share(self, steps: int) -> int:
        """How many messages `steps` of its batches count for: partial work counts for its share, at least for one."""
        return max(1, round(self.examples * min(1.0, steps / len(self.part.batches.steps))))


def has_known_word(sentences: Sequence[Sequence[int]]) -> bool:
    """Whether a phone's log holds any word that a model could learn; a phone without one does not check in."""
    return any(token >= len(SPECIALS) for sentence in sentences for token in sentence)


def check_model(assignment: Assignment, params: np.ndarray, vocabulary: Vocabulary) -> None:
    """Refuse, with ModelError, a model that is not exactly the one the assignment names."""
    sent, layout = assignment.sent, assignment.sent_hash
    if assignment.spec != layout:
        raise ModelError(f"the layout of the assigned model is {layout}, not {assignment.spec}")
    if len(vocabulary) != assignment.config.vocab or vocabulary.sha256 != assignment.vocabulary:
        raise ModelError("the model was laid out for another vocabulary than this phone's")
    if params.shape != (sent.size,):
        raise ModelError(f"the assigned model has {sent.size} parameters, got {params.size}")
    if digest(params) != assignment.model_sha256:
        raise ModelError("the model that arrived does not have the sha256 that the assignment names")


def prepare(
    assignment: Assignment, sentences: Sequence[Sequence[int]], *, budget: Budget | None = None
) -> LocalRun:
    """Draw this round's messages and pack them.

    Raises DataError when there is nothing to learn from, OverBudget when the batches alone would not fit: the
    number of epochs is the server's word.
    """
    budget = budget or Budget()
    random = stream(assignment.seed, "batches")
    rule = assignment.client
    if len(sentences) > rule.max_messages:
        chosen = random.choice(len(sentences), rule.max_messages, replace=False)
        sentences = [sentences[i] for i in chosen]
    most = rule.steps * rule.batch_size or len(sentences)  # messages that train, at most
    words = rule.epochs * sum(min(len(sentence) - 2, rule.max_words) for sentence in sentences)
    if rule.steps:
        words = min(words, most * rule.max_words)
    if BYTES_PER_WORD * words > budget.memory_bytes:
        raise OverBudget(
            f"the batches need {BYTES_PER_WORD * words} bytes of memory, this phone allows {budget.memory_bytes}"
        )
    batches = training_batches(
        sentences,
        batch_size=rule.batch_size,
        epochs=rule.epochs,
        max_words=rule.max_words,
        random=random,
        steps=rule.steps,
    )
    if batches.tokens == 0:
        raise DataError("the phone's log holds no word that the model knows: there is nothing to train on")
    if rule.partial_model:
        part = partial(assignment.coordinates, batches)
        if part.batches.tokens == 0:
            raise DataError("the phone's log holds none of the round's words: there is nothing to train on")
    else:
        part = submodel(assignment.coordinates, assignment.candidates, batches)
    return LocalRun(part, min(len(sentences), most))


def memory_needed(assignment: Assignment, run: LocalRun) -> int:
    """Bytes of the received model, the part of it that trains, the kernel's memory, the report and the batches.

    A report takes as much as what it holds of the model at most, when it is float32. SCAFFOLD needs c, c_i, their
    difference, the new c_i and its change, decoded and as it is reported; its option 1 a second gradient.
    """
    c, b = run.part.config, run.part.batches
    starts = np.concatenate([[0], np.cumsum(b.steps)[:-1]])
    rows = int(np.add.reduceat(b.active, starts).max())
    scratch = scratch_bytes(
        **c.dims, rows=rows, sentences=int(b.active[starts].max()), momentum=assignment.client.momentum
    )
    specs = (assignment.sent, c.spec, run.part.coordinates.model.spec)
    received, trained, reported = (4 * spec.size for spec in specs)
    copies = 0 if trained == reported == received else trained + reported
    needed = scratch + received + copies + reported + b.nbytes
    if assignment.client.scaffold:
        needed += 7 * received
    if assignment.client.scaffold == 1:
        needed += scratch
    return needed


def train(
    assignment: Assignment,
    params: np.ndarray,
    run: LocalRun,
    *,
    device: str,
    budget: Budget | None = None,
    workspace: Workspace | None = None,
    shared_control: np.ndarray | None = None,
    controls: ControlStore | None = None,
    errors: ErrorMemory | None = None,
) -> bytes:
    """Train `params` float32 (P,), already checked, on `run`; the report frame to send home.

    Under SCAFFOLD `shared_control` is the server's c, float32 (P,), needed if `controls.corrects`, and the phone's new
    control variate is offered to `controls`: to be settled once the report is counted. So is what encoding loses to
    `errors`, under error feedback.
    Raises OverBudget when it does not fit the phone or the frame would be larger than the server reads, Diverged
    when the delta or the loss cannot be reported.
    """
    budget = budget or Budget()
    needed = memory_needed(assignment, run)
    if needed > budget.memory_bytes:
        raise OverBudget(f"training needs {needed} bytes of memory, this phone allows {budget.memory_bytes}")
    part, rule = run.part, assignment.client
    if rule.scaffold and controls is None:
        raise Declined("this phone keeps no control variate, so it takes no part in SCAFFOLD")
    own = controls if rule.scaffold else None
    corrected = None if own is None else step_correction(assignment, own, shared_control)
    delta, loss, tokens, steps = local_sgd(
        part.take(params),
        **part.config.dims,
        **part.batches.arrays,
        learning_rate=rule.learning_rate,
        clip_norm=rule.clip_norm,
        proximal=rule.proximal,
        momentum=rule.momentum,
        correction=corrected,
        time_budget_s=budget.time_s,
        workspace=workspace,
    )
    if tokens == 0:
        raise OverBudget(f"no batch could be trained within {budget.time_s} s")
    # Written so that a NaN fails it.
    if not loss / tokens <= LARGEST_LOSS:
        raise Diverged(f"training diverged: it lost {loss / tokens:.3g} nats a word")
    try:
        update = encode_update(assignment, part.report(delta), errors)
        control, first = None, False
        if own is not None:
            renewed = _renewed_control(params, run, rule, delta=delta, corrected=corrected, steps=steps)
            control, first = encode_control(assignment, own, renewed)
    except ModelError as error:
        raise Diverged(str(error)) from None
    frame = encode_report(
        update,
        task=assignment.task,
        round=assignment.round,
        device=device,
        model_sha256=assignment.model_sha256,
        spec_hash=assignment.coordinates.hash,
        upload=assignment.upload,
        examples=run.share(steps),
        tokens=tokens,
        train_loss=loss / tokens,
        control=control,
        first_control=first,
    )
    if len(frame) > assignment.max_report_bytes:
        raise OverBudget(
            f"the report takes {len(frame)} bytes, the server reads {assignment.max_report_bytes}"
        )
    return frame


def _renewed_control(
    params: np.ndarray,
    run: LocalRun,
    rule: ClientRule,
    *,
    delta: np.ndarray,
    corrected: np.ndarray | None,
    steps: int,
) -> np.ndarray:
    """The phone's new c_i, float32 (P,), by the rule's option."""
    batches = run.part.batches
    if rule.scaffold == 1:
        one_pass = -(-run.examples // rule.batch_size)
        return mean_gradient(params, run.part.config, batches, count=one_pass, clip_norm=rule.clip_norm)
    made = int((batches.learned[:steps] > 0).sum())
    return renewed_control(delta, corrected, steps=made, learning_rate=rule.learning_rate)
