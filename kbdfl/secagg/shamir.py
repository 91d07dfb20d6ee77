"""Shamir's t-of-n secret sharing over a prime field: any t shares give the secret, fewer say nothing of it.

Shamir 1979, "How to share a secret", Communications of the ACM 22(11): the secret is a random polynomial's value at
0, the share of x its value at x, and Lagrange's formula leads back. Points are small (a device's place and one), so
that products of their differences are cheap; what depends on the points alone is computed once for equal points.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from operator import mul

from kbdfl.errors import ConfigError
from kbdfl.secagg.field import PRIME, draw_element


def split(secret: int, points: Sequence[int], threshold: int) -> list[int]:
    """The shares of `secret`, an element, at `points`: distinct, positive, at least `threshold` of them.

    Raises ConfigError for others.
    """
    _check_points(points, PRIME)
    if not 1 <= threshold <= len(points):
        raise ConfigError(f"threshold must be in [1, {len(points)}], got {threshold}")
    if not 0 <= secret < PRIME:
        raise ConfigError("a secret must be an element of the field")
    coefficients = [secret, *(draw_element() for _ in range(threshold - 1))]
    return evaluate(coefficients, points)


def evaluate(coefficients: Sequence[int], points: Sequence[int], prime: int = PRIME) -> list[int]:
    """The values at `points` of the polynomial whose `coefficients` begin with the constant, modulo `prime`."""
    falling, values = list(reversed(coefficients)), []
    for x in points:
        value = 0
        for coefficient in falling:  # Horner; a small x leaves the reduction to the end
            value = value * x + coefficient
        values.append(value % prime)
    return values


@lru_cache(maxsize=4_096)
def lagrange_at_zero(points: tuple[int, ...], prime: int = PRIME) -> tuple[int, ...]:
    """What the share at each of `points` counts in the secret: product over the others m of x_m / (x_m - x_j)."""
    _check_points(points, prime)
    below = [x * prod([other - x for other in points if other != x]) for x in points]
    inverses = _inverses([value % prime for value in below], prime)
    above = prod(points)
    return tuple(above * inverse % prime for inverse in inverses)


def combine(points: tuple[int, ...], shares: Sequence[int], prime: int = PRIME) -> int:
    """The secret whose `shares` stand at `points`; as many as the threshold, or any number more.

    Raises ConfigError unless there is one share a point.
    """
    if len(points) != len(shares):
        raise ConfigError(f"there must be {len(points)} shares, got {len(shares)}")
    return sum(map(mul, lagrange_at_zero(points, prime), shares)) % prime


def _check_points(points: Sequence[int], prime: int) -> None:
    if not points or len(set(points)) != len(points) or not all(0 < x < prime for x in points):
        raise ConfigError("points must be distinct and > 0, and at least one")


def _inverses(values: list[int], prime: int) -> list[int]:
    """1 / value of each, by one inversion for all (Montgomery 1987)."""
    ahead = [1]
    for value in values:
        ahead.append(ahead[-1] * value % prime)
    inverse, inverses = pow(ahead[-1], -1, prime), []
    for place in range(len(values) - 1, -1, -1):
        inverses.append(ahead[place] * inverse % prime)
        inverse = inverse * values[place] % prime
    return inverses[::-1]
