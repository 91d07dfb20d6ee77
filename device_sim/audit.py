"""A coordinator that is watched: what it acknowledged is in one sum, versions only grow, the sum is what it must be.

The watch believes nothing of the coordinator's own sum. It keeps the frames that were acknowledged, decodes them once
more when their round closes, adds them up in float64 and applies the server rule itself.
"""

import hashlib
from collections import Counter

import numpy as np
from numpy.random import Generator

from kbdfl.algorithms.aggregate import Mean, bounding_factor
from kbdfl.algorithms.server import State
from kbdfl.coordinator import Coordinator
from kbdfl.errors import ConfigError, KbdflError
from kbdfl.rng import seed_of
from kbdfl.rounds import Receipt, RoundResult, Store, Summed
from kbdfl.task import Task
from kbdfl.transform import Draws, decode_chain
from kbdfl.wire import Report, decode_report

RTOL, ATOL = 1e-3, 2e-5  # between sums in float32 and in float64, through a server rule


class InvariantBroken(Exception):
    """A fault of the program, not of its input: something was lost, or counted twice."""


class Audited(Coordinator):
    """See `Coordinator`; raises InvariantBroken where it does what it must not. For rounds with a plain mean."""

    def __init__(
        self, task: Task, params: np.ndarray, *, store: Store, random: Generator, seen: Counter[str]
    ) -> None:
        self.seen = seen  # what happened so far: rounds by status, reports by outcome
        self._frames: dict[tuple[str, bytes], tuple[bytes, int]] = {}  # acknowledged: frame and staleness
        super().__init__(task, params, store=store, random=random)
        if not isinstance(self.task.algorithm.aggregate, Mean) or self.task.algorithm.client.scaffold:
            raise ConfigError(
                "faults must come with plain means, which the watch reckons: no robust aggregate and no SCAFFOLD"
            )

    def report(self, device: str, frame: bytes | Summed, now: float, *, number: int | None = None) -> Receipt:
        if isinstance(frame, Summed):
            raise InvariantBroken(f"the update of {device} is in a sum that nobody watched")
        fingerprint = device, hashlib.sha256(frame).digest()
        known, before = fingerprint in self._frames, self._standing()
        if not known:
            try:
                staleness = self.version - self._parts.of(device, self._read(frame).round).version
                self._frames[fingerprint] = frame, staleness
            except KbdflError:
                pass
        try:
            receipt = super().report(device, frame, now, number=number)
        except KbdflError:
            self.seen["refused"] += 1
            if not known:
                self._frames.pop(fingerprint, None)
            if self._standing() != before:
                raise InvariantBroken(f"a refused report of {device} changed round {self.round}") from None
            raise
        if receipt.duplicate != known:
            raise InvariantBroken(
                f"a report of {device} was {'not ' if known else ''}taken for one that had been counted"
            )
        self.seen["duplicate" if receipt.duplicate else "acknowledged"] += 1
        if receipt.duplicate and self._standing() != before:
            raise InvariantBroken(f"a second copy of a report of {device} changed round {self.round}")
        return receipt

    def _standing(self) -> tuple[int, int, int, int]:
        return self.round, self.version, self.reports, self._now.tokens

    def close(self, now: float, instead: tuple[np.ndarray, State] | None = None) -> RoundResult:
        counted = sorted(self._now.counted)
        reports = [self._read(self._frames[fingerprint][0]) for fingerprint in counted]
        # A buffer of asynchronous reports may hold two of a phone, but to two assignments.
        if len({(report.device, report.round) for report in reports}) != len(counted):
            raise InvariantBroken(f"a device was counted twice in round {self.round}")
        version, before = self.version, self.params
        stale = [self._frames[fingerprint][1] for fingerprint in counted]
        expected = self._expected(reports, stale) if counted else before
        result = super().close(now, instead)
        self.seen[result.status] += 1
        if result.reports != len(counted):
            raise InvariantBroken(
                f"round {result.round} counted {len(counted)} reports and says {result.reports}"
            )
        if result.version != version + (result.status == "committed"):
            raise InvariantBroken(f"version {version} was followed by {result.version}")
        if result.status == "abandoned" and self.params is not before:
            raise InvariantBroken(f"abandoned round {result.round} changed the model")
        if result.status == "committed" and not np.allclose(self.params, expected, rtol=RTOL, atol=ATOL):
            off = float(np.abs(self.params - expected).max())
            raise InvariantBroken(f"the model after round {result.round} is off by {off:.3g}")
        return result

    def _read(self, frame: bytes) -> Report:
        return decode_report(frame, max_bytes=self.task.max_report_bytes)

    def _expected(self, reports: list[Report], stale: list[int]) -> np.ndarray:
        """The model after this round, float32 (P,), reckoned from the frames alone."""
        task, at = self.task, self._coordinates
        size = at.model.spec.size
        total, weights = np.zeros(size), 0.0
        for report, staleness in zip(reports, stale, strict=True):
            draws = Draws(
                seed_of(task.seed, "round", report.round, "device", report.device),
                seed_of(task.seed, "round", report.round),
            )
            delta = decode_chain(task.algorithm.transforms, report.update, size, draws)
            weight = task.algorithm.weight(report.examples)
            factor = bounding_factor(delta, task.algorithm.update_clip_norm)
            total += weight * factor * task.algorithm.mode.scale(staleness) * delta
            weights += weight
        mean, state = (total / weights).astype(np.float32), self._server_state
        of_rule = {name: at.take(array) for name, array in state.items()}
        before = at.take(self.params)
        after, _ = task.algorithm.server.apply(before, mean, of_rule, round=self.version)
        if not at.whole:
            after = before + at.stretched(after - before)
        return at.put(self.params, after)
