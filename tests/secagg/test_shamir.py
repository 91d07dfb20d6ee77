"""Shamir's scheme on published vectors, and its property on drawn ones."""

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.errors import ConfigError, WireError
from kbdfl.secagg.field import PRIME, draw_element, from_bytes, to_bytes
from kbdfl.secagg.shamir import combine, evaluate, lagrange_at_zero, split

# RFC 9591 (FROST), appendix E: prime of the group's order, secret key, coefficient, shares of participants 1 to 3.
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
L25519 = 2**252 + 27742317777372353535851937790883648493


def little(text):
    return int.from_bytes(bytes.fromhex(text), "little")


VECTORS = {
    # "FROST(P-256, SHA-256)"; the vector names the key and the shares, which have one coefficient between them
    "FROST P-256": (
        P256_ORDER,
        0x8BA9BBA2E0FD8C4767154D35A0B7562244A4AAF6F36C8FB8735FA48B301BD8DE,
        None,
        {
            1: 0x0C9C1A0FE806C184ADD50BBDCAC913DDA73E482DAF95DCB9F35DBB0D8A9F7731,
            2: 0x8D8E787BEF0FF6C2F494CA45F4DAD198C6BEE01212D6C84067159C52E1863AD5,
            3: 0x0E80D6E8F6192C003B5488CE1EEC8F5429587D48CF001541E713B2D53C09D928,
        },
        2,
    ),
    # "FROST(ristretto255, SHA-512)": numbers are little-endian there
    "FROST ristretto255": (
        L25519,
        little("1b25a55e463cfd15cf14a5d3acc3d15053f08da49c8afcf3ab265f2ebc4f970b"),
        [little("410f8b744b19325891d73736923525a4f596c805d060dfb9c98009d34e3fec02")],
        {
            1: little("5c3430d391552f6e60ecdc093ff9f6f4488756aa6cebdbad75a768010b8f830e"),
            2: little("b06fc5eac20b4f6e1b271d9df2343d843e1e1fb03c4cbb673f2872d459ce6f01"),
            3: little("f17e505f0e2581c6acfe54d3846a622834b5e7b50cad9a2109a97ba7a80d5c04"),
        },
        2,
    ),
    # Wikipedia, "Shamir's secret sharing", the worked example modulo 1613
    "Wikipedia": (
        1613,
        1234,
        [166, 94],
        {1: 1494, 2: 329, 3: 965, 4: 176, 5: 1188, 6: 775},
        3,
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_published_shares_give_their_secret_whichever_are_taken(name):
    prime, secret, _, shares, threshold = VECTORS[name]
    for count in range(threshold, len(shares) + 1):
        for points in combinations(shares, count):
            assert combine(points, [shares[point] for point in points], prime) == secret
    for points in combinations(shares, threshold - 1):
        assert combine(points, [shares[point] for point in points], prime) != secret


@pytest.mark.parametrize("name", VECTORS)
def test_published_coefficients_give_the_published_shares(name):
    prime, secret, coefficients, shares, _ = VECTORS[name]
    if coefficients is None:  # a line: it goes through the secret and the first share
        coefficients = [(shares[1] - secret) % prime]
    assert evaluate([secret, *coefficients], list(shares), prime) == list(shares.values())


@given(data=st.data(), secret=st.integers(0, PRIME - 1), holders=st.integers(1, 24))
def test_any_threshold_of_shares_gives_the_secret_and_one_fewer_another(data, secret, holders):
    points = data.draw(st.lists(st.integers(1, 16_385), min_size=holders, max_size=holders, unique=True))
    threshold = data.draw(st.integers(1, holders))
    shares = dict(zip(points, split(secret, points, threshold), strict=True))
    some = data.draw(st.permutations(points))[:threshold]
    assert combine(tuple(some), [shares[point] for point in some]) == secret
    if threshold > 1:
        fewer = some[:-1]
        assert combine(tuple(fewer), [shares[point] for point in fewer]) != secret


@given(points=st.lists(st.integers(1, 2_000), min_size=1, max_size=12, unique=True))
def test_the_coefficients_are_lagranges(points):
    expected = []
    for own in points:
        value = Fraction(1)
        for other in points:
            value *= Fraction(other, other - own) if other != own else 1
        expected.append(value.numerator * pow(value.denominator, -1, PRIME) % PRIME)
    assert lagrange_at_zero(tuple(points)) == tuple(expected)


def test_fewer_shares_than_the_threshold_fit_every_secret():
    """Shares at t - 1 points and any secret at all lie on one polynomial: they say nothing of it."""
    points = (1, 2, 3)
    shares = split(draw_element(), (*points, 4), 4)[:3]
    for secret in (0, 1, PRIME - 1, draw_element()):
        at_four = -sum(
            weight * share for weight, share in zip(lagrange_at_zero((1, 2, 3, 4))[:3], shares, strict=True)
        )
        fourth = (secret + at_four) * pow(lagrange_at_zero((1, 2, 3, 4))[3], -1, PRIME) % PRIME
        assert combine((1, 2, 3, 4), [*shares, fourth]) == secret


def test_shares_of_one_secret_differ_every_time():
    assert len({tuple(split(5, [1, 2, 3], 2)) for _ in range(20)}) == 20


def test_the_field_is_the_largest_prime_of_32_bytes():
    def prime(number):
        odd, twos = number - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
            power = pow(base, odd, number)
            if power not in (1, number - 1) and not any(
                pow(power, 2**turn, number) == number - 1 for turn in range(1, twos)
            ):
                return False
        return True

    assert prime(PRIME)
    assert not any(prime(number) for number in range(PRIME + 2, 2**256, 2))


@given(element=st.integers(0, PRIME - 1))
def test_elements_go_through_32_bytes(element):
    assert from_bytes(to_bytes(element)) == element


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(33), b"\xff" * 32, PRIME.to_bytes(32, "little")])
def test_what_is_no_element_is_refused(data):
    with pytest.raises(WireError, match="field element"):
        from_bytes(data)


@pytest.mark.parametrize(
    ("secret", "points", "threshold"),
    [
        (1, [], 1),
        (1, [0, 1], 1),
        (1, [1, 1], 1),
        (1, [1, 2], 0),
        (1, [1, 2], 3),
        (-1, [1], 1),
        (PRIME, [1], 1),
    ],
)
def test_impossible_sharings_are_refused(secret, points, threshold):
    with pytest.raises(ConfigError):
        split(secret, points, threshold)


def test_shares_and_points_must_pair_up():
    with pytest.raises(ConfigError, match="2 shares, got 1"):
        combine((1, 2), [1])
    with pytest.raises(ConfigError, match="distinct"):
        combine((2, 2), [1, 1])
