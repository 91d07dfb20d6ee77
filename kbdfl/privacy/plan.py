"""Before a run: the noise that a budget needs, and how many devices a round must have to be heard above it."""

from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

from kbdfl.errors import ConfigError
from kbdfl.privacy.distributed import Shares
from kbdfl.privacy.ledger import Account
from kbdfl.privacy.statement import describe
from kbdfl.privacy.terms import Privacy

LEEWAY = 2  # a default separation asks that one in so many devices come by in the meantime


@dataclass(frozen=True, slots=True)
class Plan:
    """A calibrated task.

    account         what the task promises, with its noise
    rho, epsilon    at its end
    epsilons        epsilon after each tenth of the rounds
    noise_norm      of the noise in one released mean, in clip norms, expected
    running_noise   of a running sum of all means, root mean square over the rounds, in clip norms
    cohort_for      reports a round for which one mean's noise is as long as `signal` clip norms
    """

    account: Account
    rho: float
    epsilon: float
    epsilons: tuple[float, ...]
    noise_norm: float
    running_noise: float
    signal: float
    cohort_for: int

    @property
    def sentence(self) -> str:
        """What the models could say at the end of the task."""
        return describe(self.account, released=self.account.rounds, rho=self.rho, epsilon=self.epsilon)

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        account, privacy = self.account, self.account.privacy
        return {
            "mechanism": privacy.mechanism,
            "epsilon": self.epsilon,
            "budget": privacy.epsilon,
            "delta": privacy.delta,
            "rho": self.rho,
            "noise_multiplier": privacy.noise_multiplier,
            "rounds": account.rounds,
            "population": privacy.population,
            "cohort": account.cohort,
            "survivors": account.shares.survivors if account.shares else None,
            "bound": account.shares.bound(privacy.noise_multiplier) if account.shares else None,
            "participations": privacy.parts(account.rounds),
            "separation": privacy.separation,
            "parameters": account.size,
            "noise_norm": self.noise_norm,
            "running_noise": self.running_noise,
            "signal": self.signal,
            "cohort_for_signal": self.cohort_for,
            "epsilon_by_tenth": list(self.epsilons),
            "statement": self.sentence,
        }


def plan(
    privacy: Privacy,
    *,
    rounds: int,
    cohort: int,
    size: int,
    clip_norm: float = 1.0,
    signal: float = 1.0,
    shares: Shares | None = None,
) -> Plan:
    """The plan for `privacy`, whose noise is found if it has none, for updates of `size` numbers.

    Where devices add the noise `shares` says how. What a mean then carries is the noise of a whole cohort, more than is
    accounted; a larger cohort is taken to have as large a share of honest survivors at least.
    Raises ConfigError where the population is too small for its separation, or nothing reaches the budget.
    """
    for name, value in (("rounds", rounds), ("cohort", cohort), ("size", size)):
        if value < 1:
            raise ConfigError(f"{name} must be >= 1, got {value}")
    if not 0 < signal < float("inf"):
        raise ConfigError(f"signal must be > 0 and finite, got {signal}")
    check_population(privacy, rounds=rounds, cohort=cohort)
    noised = privacy.with_noise(rounds=rounds, cohort=cohort, shares=shares)
    account = Account(noised, clip_norm, rounds, cohort, size, shares)
    if not account.epsilon(rounds) < float("inf"):
        raise ConfigError(
            f"nothing is claimed of rho = {account.rho(rounds):.4g} at delta = {privacy.delta:g}: "
            "epsilon is too large, or delta smaller than noise is drawn exactly"
        )
    noise, stream = noised.noise_multiplier, noised.stream(rounds)
    length = noise * sqrt(size)  # of noise on a sum
    if shares is not None:
        length *= shares.longest / shares.steps * sqrt(cohort / shares.survivors)
    return Plan(
        account=account,
        rho=account.rho(rounds),
        epsilon=account.epsilon(rounds),
        epsilons=tuple(account.epsilon(max(1, rounds * tenth // 10)) for tenth in range(1, 11)),
        noise_norm=length / noised.divisor(cohort),
        running_noise=length * sqrt(stream.prefix_variance(rounds)) / noised.divisor(cohort),
        signal=signal,
        cohort_for=ceil(length / signal),
    )


def check_population(privacy: Privacy, *, rounds: int, cohort: int) -> None:
    """Raise ConfigError unless the stated population is enough for rounds of `cohort` under both bounds on a device."""
    people = privacy.population
    if not people:
        return
    if cohort > people:
        raise ConfigError(f"cohort must be at most the population of {people}, got {cohort}")
    separation = min(privacy.separation, rounds)
    if separation * cohort > people:
        raise ConfigError(
            f"separation must be at most {people // cohort} for {people} devices in rounds of {cohort}, "
            f"got {separation}"
        )
    if privacy.participations and rounds * cohort > privacy.participations * people:
        raise ConfigError(
            f"participations must be at least {ceil(rounds * cohort / people)} for {rounds} rounds of {cohort} "
            f"of {people} devices, got {privacy.participations}"
        )


def usual_separation(population: int, *, rounds: int, cohort: int) -> int:
    """A separation that half of the population can keep; at least 1."""
    return max(1, min(rounds, population // (LEEWAY * cohort)))
