"""How reports become versions: in rounds of one cohort, or asynchronously, as they arrive."""

from dataclasses import dataclass

from kbdfl.errors import ConfigError

STALEST = 10_000  # versions: for so many the counted reports are remembered, to know them again


@dataclass(frozen=True, slots=True)
class Synchronous:
    """Rounds of a cohort: phones begin from one version, and a report counts in their round or not at all."""

    @property
    def max_staleness(self) -> int:
        """How many versions may have been committed since the one that a report began from."""
        return 0

    def scale(self, staleness: int) -> float:
        """What an update of such staleness is multiplied with."""
        return 1.0


@dataclass(frozen=True, slots=True)
class FedBuff:
    """Buffered asynchronous aggregation (Nguyen et al. 2021, arXiv 2106.06639, algorithm 1).

    Phones begin from whichever version is current when they check in, and a slow one holds up nobody. After K
    counted reports, K the rule's `cohort`, the server rule is applied; these K are a round. An update of staleness
    s, the versions committed since the one it began from, is multiplied with (1 + s)^-exponent.

    concurrency    phones that train at a time, at most
    max_staleness  reports that are staler are refused
    exponent       0.5 is the paper's 1 / sqrt(1 + s); 0 = stale updates count in full
    """

    concurrency: int = 100
    max_staleness: int = 20
    exponent: float = 0.5

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError(f"concurrency must be >= 1, got {self.concurrency}")
        if not 0 <= self.max_staleness <= STALEST:
            raise ConfigError(f"max_staleness must lie in [0, {STALEST}], got {self.max_staleness}")
        if not 0 <= self.exponent < float("inf"):
            raise ConfigError(f"exponent must be >= 0 and finite, got {self.exponent}")

    def scale(self, staleness: int) -> float:
        """What an update of such staleness is multiplied with, in [0, 1]; exactly 1 for a fresh one."""
        return (1.0 + staleness) ** -self.exponent


Mode = Synchronous | FedBuff

MODES: dict[str, type] = {"synchronous": Synchronous, "fedbuff": FedBuff}
