"""What is learnt, how, and by which rounds: a coordinator's whole configuration."""

from dataclasses import dataclass
from math import ceil

from kbdfl.algorithms import Algorithm, DeadlineAware
from kbdfl.algorithms.coordinates import smaller
from kbdfl.algorithms.mode import FedBuff
from kbdfl.errors import ConfigError
from kbdfl.model import CifgConfig


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

    @property
    def max_report_bytes(self) -> int:
        """The largest report frame that is read."""
        reported = smaller(self.config, self.algorithm.client.report_words)
        vectors = 2 if self.algorithm.client.scaffold else 1
        return self.rule.max_report_bytes or vectors * 4 * reported.spec.size + 65_536
