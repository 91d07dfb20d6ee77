"""What is learnt, how, and by which rounds: a coordinator's whole configuration."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from kbdfl.algorithms import Algorithm, DeadlineAware
from kbdfl.algorithms.coordinates import smaller
from kbdfl.algorithms.mode import FedBuff
from kbdfl.algorithms.secure import STEPS, Noise, SecurePayload
from kbdfl.errors import ConfigError
from kbdfl.model import CifgConfig
from kbdfl.privacy import Account, Books, Central, Source
from kbdfl.secagg import Floors
from kbdfl.secagg.messages import MOST_DEVICES, MOST_WORDS
from kbdfl.secagg.payload import bits_for


@dataclass(frozen=True, slots=True)
class RoundRule:
    """When a round opens, commits and ends.

    cohort            reports that commit a round; FedBuff's K
    over_selection    this many times the cohort are selected, against drop-outs; FedBuff selects by `concurrency`
    min_reports       fewer at the deadline abandon the round; 0 = the whole cohort, as FedBuff needs it
    deadline_s        seconds from the first selection; with FedBuff from each phone's own
    rounds            committed or abandoned, after which the task is finished
    pace_s            a phone that is not needed is asked to come back after about this long
    max_report_bytes  of one frame; 0 = what the float32 upload of a round needs, and a little more
    """

    cohort: int = 10
    over_selection: float = 1.3
    min_reports: int = 0
    deadline_s: float = 120.0
    rounds: int = 100
    pace_s: float = 1.0
    max_report_bytes: int = 0

    def __post_init__(self) -> None:
        if self.cohort < 1:
            raise ConfigError(f"cohort must be >= 1, got {self.cohort}")
        if not 1 <= self.over_selection <= 10:
            raise ConfigError(f"over_selection must lie in [1, 10], got {self.over_selection}")
        if not 0 <= self.min_reports <= self.cohort:
            raise ConfigError(f"min_reports must lie in [0, cohort = {self.cohort}], got {self.min_reports}")
        if not 0 < self.deadline_s < float("inf"):
            raise ConfigError(f"deadline_s must be > 0 and finite, got {self.deadline_s}")
        if self.rounds < 1:
            raise ConfigError(f"rounds must be >= 1, got {self.rounds}")
        if not 0 < self.pace_s < float("inf"):
            raise ConfigError(f"pace_s must be > 0 and finite, got {self.pace_s}")
        if self.max_report_bytes < 0:
            raise ConfigError(f"max_report_bytes must be >= 0, got {self.max_report_bytes}")

    @property
    def selected(self) -> int:
        """How many phones a round selects."""
        # Rounded first: 10 * 1.1 is 11.000000000000002 in floats and must not select 12.
        return ceil(round(self.cohort * self.over_selection, 6))

    @property
    def enough(self) -> int:
        """How many reports commit a round at its deadline."""
        return self.min_reports or self.cohort


@dataclass(frozen=True, slots=True)
class Task:
    """A model, how it is learnt, and by which rounds."""

    name: str
    config: CifgConfig
    algorithm: Algorithm
    rule: RoundRule
    vocabulary_sha256: str
    seed: int

    def __post_init__(self) -> None:
        if isinstance(self.algorithm.mode, FedBuff) and self.rule.min_reports:
            raise ConfigError(
                f"min_reports must be 0 with fedbuff, whose rounds have no deadline, got {self.rule.min_reports}"
            )
        selection, deadline_s = self.algorithm.selection, self.rule.deadline_s
        if isinstance(selection, DeadlineAware) and selection.target_s >= deadline_s:
            raise ConfigError(
                f"target_s must be < deadline_s = {deadline_s:g} of the round, got {selection.target_s:g}"
            )
        fewest, enough = self.algorithm.aggregate.fewest, self.rule.enough
        if enough < fewest:
            raise ConfigError(
                f"min_reports, or cohort if that is 0, must be >= {fewest} for {self.algorithm.aggregate}, got {enough}"
            )
        if self.algorithm.secure.on:
            self._add_noise()
            check_secure(self.algorithm, self.rule, size=self.reported_size)

    def _add_noise(self) -> None:
        """What phones add must be known before any is asked to, so a budget becomes the noise that it needs."""
        algorithm, rule = self.algorithm, self.rule
        if algorithm.privacy.on_devices and not algorithm.privacy.noise_multiplier:
            shares = payload_for(algorithm, rule, size=self.reported_size).shares
            noised = algorithm.privacy.with_noise(rounds=rule.rounds, cohort=rule.cohort, shares=shares)
            object.__setattr__(self, "algorithm", replace(algorithm, privacy=noised))

    @property
    def max_report_bytes(self) -> int:
        """The largest report frame that is read."""
        vectors = 2 if self.algorithm.client.scaffold else 1
        return self.rule.max_report_bytes or vectors * 4 * self.reported_size + 65_536

    @property
    def reported_size(self) -> int:
        """Numbers in an update."""
        return smaller(self.config, self.algorithm.client.report_words).spec.size

    @property
    def account(self) -> Account | None:
        """What a task with privacy promises, and what that costs; None without."""
        privacy, rule = self.algorithm.privacy, self.rule
        if not privacy.on:
            return None
        clip_norm, size, shares = self.algorithm.update_clip_norm, self.reported_size, None
        if privacy.on_devices:
            payload = payload_for(self.algorithm, rule, size=size)
            clip_norm, shares = payload.clip_norm, payload.shares
            size = shares.size
        noised = privacy.with_noise(rounds=rule.rounds, cohort=rule.cohort, shares=shares)
        return Account(noised, clip_norm, rule.rounds, rule.cohort, size, shares)

    def central(self, books: Books, *, source: Callable[[], Source] = Source) -> Central | None:
        """What adds the noise and keeps the `books` of a task with privacy; None without. `source` is for tests."""
        account = self.account
        return None if account is None else Central(account, books, source=source)


def payload_for(algorithm: Algorithm, rule: RoundRule, *, size: int) -> SecurePayload:
    """How phones' updates of `size` values become words that are summed unseen, with their noise if they add some."""
    privacy = algorithm.privacy
    noise = Noise()
    if privacy.on_devices:
        noise = Noise(privacy.noise_multiplier, survivors=algorithm.secure.honest, devices=rule.selected)
    return SecurePayload(algorithm.transforms, size, noise)


def check_secure(algorithm: Algorithm, rule: RoundRule, *, size: int) -> None:
    """Raise ConfigError unless updates of `size` values can be summed unseen in rounds by this rule."""
    secure, payload = algorithm.secure, payload_for(algorithm, rule, size=size)
    if rule.cohort < secure.devices:
        raise ConfigError(
            f"cohort must be >= secure devices = {secure.devices}, for fewer are not summed up, got {rule.cohort}"
        )
    if rule.selected > MOST_DEVICES:
        raise ConfigError(f"cohort times over_selection must be at most {MOST_DEVICES}, got {rule.selected}")
    if payload.words > MOST_WORDS:
        raise ConfigError(f"at most {MOST_WORDS} words can be summed unseen, an update has {payload.words}")
    bits_for(rule.selected, payload.levels + payload.noise_bound)
    if secure.phase_deadline_s * STEPS >= rule.deadline_s:
        raise ConfigError(
            f"phase_deadline_s must be < a {STEPS}th of deadline_s = {rule.deadline_s:g}, for a session has {STEPS} "
            f"steps, got {secure.phase_deadline_s:g}"
        )
    if rule.deadline_s > Floors().age_s:
        raise ConfigError(
            f"deadline_s must be at most {Floors().age_s:g} with secure aggregation, for phones take part in no older "
            f"session, got {rule.deadline_s:g}"
        )
    if rule.max_report_bytes:
        raise ConfigError(f"max_report_bytes must be 0 with secure aggregation, got {rule.max_report_bytes}")
