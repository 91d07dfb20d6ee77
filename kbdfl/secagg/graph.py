"""Who masks with whom, and how many must agree: a complete graph, or a ring in which each has k near neighbours.

Bell, Bonawitz, Gascón, Lepoint and Raykova 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead",
ACM CCS: of more than 128 devices each shares its secrets with k neighbours in a Harary graph on a random ring, and k
grows with log n. Three events must be rare (their good graphs, by a union bound over all devices):

- t or more of a device's neighbours collude with the server, and rebuild its secrets. Their number is
  hypergeometric: k drawn from n - 1, of which C collude.
- the honest survivors fall apart, and the server learns the sum of each part. A Harary graph falls apart only if
  k / 2 neighbours in a row are missing in two places: at most n (n - k - 1) / 2 pairs of places, each with the
  probability B! (n - k)! / (n! (B - k)!) that all k of them are among B who dropped out or collude.
- fewer than t of a device's neighbours are left, so that the round is lost: that may happen more often.

Above these, t is more than half of k (shares that are given out under one story do not suffice for another), and a
`quorum` of all devices must sign one and the same set of survivors: 2 quorum > n + C, so that two sets never both
have one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import floor, inf, lgamma, log, log2

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.secagg.crypto import digest, key_stream

COMPLETE = 128  # up to so many devices everybody masks with everybody
DROPOUT, CORRUPT = 1 / 3, 0.2  # shares of the devices that may be missing, and may collude with the server
SECURITY_BITS, LIVENESS_BITS = 40.0, 10.0
_BITS = log(2)


@dataclass(frozen=True, slots=True)
class Plan:
    """n devices of `degree` neighbours, of which `threshold` rebuild a secret; `quorum` must sign the survivors."""

    devices: int
    degree: int
    threshold: int
    quorum: int

    def __post_init__(self) -> None:
        n = self.devices
        if n < 2:
            raise ConfigError(f"devices must be >= 2, got {n}")
        complete = self.degree == n - 1
        if not complete and not (n > COMPLETE and self.degree % 2 == 0 and 2 <= self.degree < n):
            raise ConfigError(
                f"degree must be {n - 1}, or even and below it for more than {COMPLETE}, got {self.degree}"
            )
        if not self.degree < 2 * self.threshold <= 2 * self.degree:
            raise ConfigError(
                f"threshold must be more than half of {self.degree} neighbours and at most all, got {self.threshold}"
            )
        if not n < 2 * self.quorum <= 2 * n:
            raise ConfigError(
                f"quorum must be more than half of {n} devices and at most all, got {self.quorum}"
            )

    @property
    def complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.degree == self.devices - 1


def log2_tail(*, population: int, marked: int, drawn: int, least: int) -> float:
    """log2 P[at least `least` are marked] of `drawn` from a `population` in which `marked` are (hypergeometric)."""
    most = min(marked, drawn)
    terms = [
        _choose(marked, hits) + _choose(population - marked, drawn - hits)
        for hits in range(max(least, 0, drawn - (population - marked)), most + 1)
    ]
    if not terms:
        return -inf
    peak = max(terms)
    total = peak + log(sum(2 ** ((term - peak) / _BITS) for term in terms)) - _choose(population, drawn)
    return min(total / _BITS, 0.0)


def log2_insecure(plan: Plan, corrupt: float) -> float:
    """log2 of a bound on the probability that a random graph of `plan` shows one device's secrets, or falls apart.

    A share `corrupt` of all devices collude; as many may be missing as leave a quorum. -inf where it cannot happen.
    """
    n, colluding = plan.devices, floor(corrupt * plan.devices)
    rebuilt = _rebuilt(n, plan.degree, plan.threshold, colluding)
    if plan.complete:
        return rebuilt
    return _either(rebuilt, _apart(n, plan.degree, colluding + n - plan.quorum))


def log2_lost(plan: Plan, dropout: float) -> float:
    """log2 of a bound on the probability that a device has fewer than the threshold of neighbours left.

    A share `dropout` of all devices is missing, chosen at random.
    """
    n, gone = plan.devices, floor(dropout * plan.devices)
    tail = log2_tail(population=n - 1, marked=gone, drawn=plan.degree, least=plan.degree - plan.threshold + 1)
    return min(log2(n) + tail, 0.0)


def quorum_of(devices: int, corrupt: float) -> int:
    """The fewest signatures of which two sets of survivors cannot both have so many: 2 quorum > n (1 + corrupt)."""
    return min(floor((1 + corrupt) * devices / 2) + 1, devices)


def honest_of(devices: int, corrupt: float) -> int:
    """How many of those who make up a quorum do not collude, at least. With more devices it is never less."""
    return quorum_of(devices, corrupt) - floor(corrupt * devices)


@lru_cache(maxsize=64)
def plan_for(
    devices: int,
    *,
    dropout: float = DROPOUT,
    corrupt: float = CORRUPT,
    security_bits: float = SECURITY_BITS,
    liveness_bits: float = LIVENESS_BITS,
) -> Plan:
    """The plan with the fewest neighbours that is insecure with a probability of at most 2^-security_bits.

    And loses a round, if a share `dropout` of the devices goes missing, with at most 2^-liveness_bits; up to 128
    devices, and where no smaller degree will do, the graph is complete. Raises ConfigError unless 2 dropout +
    corrupt < 1.
    """
    if min(dropout, corrupt) < 0 or not 2 * dropout + corrupt < 1:
        raise ConfigError(f"2 dropout + corrupt must be below 1, got 2 * {dropout} + {corrupt}")
    quorum = quorum_of(devices, corrupt)
    for degree in range(2, devices - 1, 2) if devices > COMPLETE else ():
        plan = Plan(devices, degree, degree // 2 + 1, quorum)
        if log2_lost(plan, dropout) <= -liveness_bits and log2_insecure(plan, corrupt) <= -security_bits:
            return plan
    return Plan(devices, devices - 1, (devices - 1) // 2 + 1, quorum)


def check_plan(plan: Plan, *, corrupt: float, security_bits: float) -> None:
    """Raise ConfigError unless `plan` is at least so secure, whatever whoever made it says."""
    if plan.quorum < quorum_of(plan.devices, corrupt):
        raise ConfigError(f"quorum must be at least {quorum_of(plan.devices, corrupt)}, got {plan.quorum}")
    chance = log2_insecure(plan, corrupt)
    if chance > -security_bits:
        raise ConfigError(
            f"{plan.degree} neighbours and a threshold of {plan.threshold} must be insecure with at most "
            f"2^-{security_bits:g}, got 2^{chance:.1f}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """The devices of a plan in a random order that whoever has the seed draws alike.

    order int64 (n,): the devices around the ring; place int64 (n,): where each stands.
    """

    plan: Plan
    order: np.ndarray
    place: np.ndarray

    @classmethod
    def drawn(cls, plan: Plan, seed: bytes) -> "Ring":
        """Sorted by one 64-bit number each of the key stream of `seed` (32 bytes), little-endian."""
        numbers = np.frombuffer(key_stream(digest("ring", seed), 8 * plan.devices), "<u8")
        order = np.argsort(numbers, kind="stable")
        return cls(plan, order, np.argsort(order, kind="stable"))

    def neighbours(self, device: int) -> list[int]:
        """Those who mask with `device`, ascending."""
        n = self.plan.devices
        if self.plan.complete:
            return [other for other in range(n) if other != device]
        reach = np.arange(1, self.plan.degree // 2 + 1)
        steps = np.concatenate([-reach, reach])
        return sorted(self.order[(self.place[device] + steps) % n].tolist())

    def connected(self, alive: Iterable[int]) -> bool:
        """Whether those `alive` are one piece: at most one gap of half a degree or more around the ring."""
        here = np.sort(self.place[list(alive)])
        if self.plan.complete or len(here) < 2:
            return len(here) > 0
        steps = np.diff(here, append=here[0] + self.plan.devices)
        return int((steps > self.plan.degree // 2).sum()) <= 1


def _rebuilt(n: int, degree: int, threshold: int, colluding: int) -> float:
    tail = log2_tail(population=n - 1, marked=colluding, drawn=degree, least=threshold)
    return min(log2(n) + tail, 0.0)


def _apart(n: int, degree: int, missing: int) -> float:
    if degree > missing:
        return -inf
    pairs = log(n) + log(max(n - degree - 1, 1)) - log(2)
    gone = lgamma(missing + 1) + lgamma(n - degree + 1) - lgamma(n + 1) - lgamma(missing - degree + 1)
    return min((pairs + gone) / _BITS, 0.0)


def _either(first: float, second: float) -> float:
    high, low = max(first, second), min(first, second)
    return high if high == -inf else min(high + log2(1 + 2 ** (low - high)), 0.0)


def _choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
