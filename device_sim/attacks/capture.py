"""Frames as a server receives them: phones train on text that no run has seen, exactly as a run's phones do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kbdfl.algorithms.base import chain
from kbdfl.algorithms.secure import SecureAggregation
from kbdfl.assignment import Assignment
from kbdfl.device_sim.population import held_out_users
from kbdfl.device_sim.runtime import Declined, has_known_word, prepare, train
from kbdfl.device_sim.store import TypingLog
from kbdfl.device_sim.typing.sources import Source
from kbdfl.errors import DataError
from kbdfl.kernels.train import Workspace
from kbdfl.params import digest
from kbdfl.privacy import Privacy
from kbdfl.rng import seed_of, stream
from kbdfl.task import Task
from kbdfl.text import IGNORED, Vocabulary
from kbdfl.transform import decode_chain, encode_chain
from kbdfl.wire import decode_report, encode_report


@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """A report frame on its way, and what only the phone knows.

    assignment  what the phone was asked, which the server knows
    frame       the report frame
    typed       ids of the words that it learned from
    """

    device: str
    assignment: Assignment
    frame: bytes
    typed: frozenset[int]

    @property
    def delta(self) -> np.ndarray:
        """What a server decodes of the frame, float32, at the round's coordinates."""
        asked = self.assignment
        report = decode_report(self.frame, max_bytes=asked.max_report_bytes)
        transforms = chain(asked.upload, asked.update_clip_norm)
        return decode_chain(transforms, report.update, asked.coordinates.model.spec.size, asked.draws)

    @property
    def beside(self) -> dict[str, float]:
        """What stands in the clear beside the update: how many messages and words, and the loss."""
        report = decode_report(self.frame, max_bytes=self.assignment.max_report_bytes)
        return {"examples": report.examples, "tokens": report.tokens, "train_loss": report.train_loss}

    def sent_as(self, upload: str, *, clip_norm: float = 0.0) -> "Capture":
        """The frame that the same training would have ended in with another upload, of this float32 one."""
        asked = replace(self.assignment, upload=upload, update_clip_norm=clip_norm)
        report = decode_report(self.frame, max_bytes=asked.max_report_bytes)
        frame = encode_report(
            encode_chain(chain(upload, clip_norm), self.delta, asked.draws),
            task=report.task,
            round=report.round,
            device=report.device,
            model_sha256=report.model_sha256,
            spec_hash=report.spec_hash,
            upload=upload,
            examples=report.examples,
            tokens=report.tokens,
            train_loss=report.train_loss,
        )
        return replace(self, assignment=asked, frame=frame)


def logs_of(source: Source, vocabulary: Vocabulary, *, phones: int, seed: int) -> dict[str, list[list[int]]]:
    """Token ids of the messages of `phones` held-out users, in a random order; of users with a word that is known.

    Raises DataError when there are fewer.
    """
    order = list(held_out_users(source))
    stream(seed, "audit", "phones").shuffle(order)
    found: dict[str, list[list[int]]] = {}
    for user in order:
        log = TypingLog()
        log.extend(source.messages(user))
        sentences = log.sentences(vocabulary)
        if has_known_word(sentences):
            found[user] = sentences
        if len(found) == phones:
            return found
    raise DataError(
        f"frames must be <= {len(found)}, the held-out users of the source {source.name}, got {phones}"
    )


def capture(
    task: Task, params: np.ndarray, logs: Mapping[str, Sequence[Sequence[int]]], *, round: int
) -> list[Capture]:
    """The float32 frames of these phones in round `round` of `task`, which hands out `params` float32 (P,).

    They train as the task's phones do, but for what phones keep between rounds: SCAFFOLD's control variates and error
    feedback are left out. A phone that declines sends nothing.
    """
    client = replace(task.algorithm.client, scaffold=0, feedback_rounds=0)
    plain = replace(
        task.algorithm,
        client=client,
        upload="float32",
        update_clip_norm=0.0,
        privacy=Privacy(),
        secure=SecureAggregation(),
    )
    task = replace(task, algorithm=plain, rule=replace(task.rule, max_report_bytes=0))
    asked = Assignment.of_round(task, round, version=round, published=params, sha256=digest(params))
    received = asked.coordinates.take(params) if client.partial_model else params
    workspace, found = Workspace(), []
    for device, sentences in logs.items():
        own = replace(asked, seed=seed_of(task.seed, "audit", round, "device", device))
        try:
            run = prepare(own, sentences)
            frame = train(own, received, run, device=device, workspace=workspace)
        except (Declined, DataError):
            continue
        targets = run.part.batches.targets
        typed = run.part.rows[targets[targets != IGNORED]]
        found.append(Capture(device, own, frame, frozenset(typed.tolist())))
    return found
