"""Noise: its distribution, beside the probabilities that the papers define it by."""

import mpmath
import numpy as np
import pytest

from kbdfl.errors import ConfigError
from kbdfl.privacy import Source, sampling
from kbdfl.privacy.mechanisms import _gaussian, _poisson, discrete_gaussian, skellam
from kbdfl.privacy.sampling import BITS, MORE, TAIL, draw

# Beyond these, one test in some 10^4 would fail; the sources are fixed, so none does by chance.
FOUR = 4.0
COUNT = 250_000


def gaussian_probabilities(deviation):
    reach = int(12 * deviation) + 2
    values = np.arange(-reach, reach + 1)
    weights = np.exp(-(values.astype(float) ** 2) / (2 * deviation**2))
    return values, weights / weights.sum()


def skellam_probabilities(variance):
    """By the sum over both Poisson numbers."""
    reach = int(14 * np.sqrt(variance) + variance) + 20
    poisson = np.array(
        [
            float(mpmath.exp(-variance / 2) * mpmath.mpf(variance / 2) ** k / mpmath.factorial(k))
            for k in range(reach)
        ]
    )
    values = np.arange(-reach + 1, reach)
    both = np.convolve(poisson, poisson[::-1])
    assert len(both) == len(values)
    return values, both / both.sum()


def check_counts(drawn, values, probabilities):
    """Every value that is expected often enough comes about as often as it should."""
    often = probabilities * len(drawn) > 100
    counts = np.array([(drawn == value).sum() for value in values[often]])
    expected = probabilities[often] * len(drawn)
    chi = ((counts - expected) ** 2 / expected).sum()
    assert often.sum() > 2
    assert abs(chi - often.sum()) < 5 * np.sqrt(2 * often.sum())
    assert abs(len(drawn) - counts.sum() - len(drawn) * probabilities[~often].sum()) < 2_000


@pytest.mark.parametrize("deviation", [0.4, 1.0, 7.3])
def test_discrete_gaussian_noise_has_the_probabilities_of_its_definition(deviation, source):
    check_counts(discrete_gaussian(deviation, COUNT, source), *gaussian_probabilities(deviation))


def test_discrete_gaussian_noise_in_blocks_has_them_too(source):
    deviation = 300.0  # blocks of four
    values, probabilities = gaussian_probabilities(deviation)
    drawn = discrete_gaussian(deviation, COUNT, source)
    check_counts(
        drawn // 64,
        np.unique(values // 64),
        np.bincount(
            (values - values[0]) // 64 if values[0] % 64 == 0 else values // 64 - values[0] // 64,
            probabilities,
        ),
    )
    check_counts(drawn % 4, np.arange(4), np.bincount(values % 4, probabilities))


@pytest.mark.parametrize("variance", [0.5, 3.0, 40.0])
def test_skellam_noise_has_the_probabilities_of_its_definition(variance, source):
    check_counts(skellam(variance, COUNT, source), *skellam_probabilities(variance))


@pytest.mark.parametrize("scale", [1.0, 50.0, 150.0, 1e6, 2.0**20 * 3.3, 2.0**45])
def test_gaussian_noise_has_its_variance_within_one_per_cent(scale, source):
    drawn = discrete_gaussian(scale, COUNT, source) / scale
    assert drawn.var() == pytest.approx(1, rel=0.01)
    assert abs(drawn.mean()) < FOUR / np.sqrt(COUNT)
    assert (drawn**4).mean() == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize("variance", [1.0, 2_000.0, 40_000.0, 1e6, 1e12, 2.0**50])
def test_skellam_noise_has_its_variance_within_one_per_cent(variance, source):
    drawn = skellam(variance, COUNT, source) / np.sqrt(variance)
    assert drawn.var() == pytest.approx(1, rel=0.01)
    assert abs(drawn.mean()) < FOUR / np.sqrt(COUNT)
    assert (drawn**4).mean() == pytest.approx(3 + 1 / variance, rel=0.04)
    assert abs((drawn**3).mean()) < 0.03


def test_shares_of_skellam_noise_add_up_to_noise_of_the_sum_of_their_variances(sources):
    total = sum(skellam(700.0, 60_000, sources()) for _ in range(9))
    assert total.var() == pytest.approx(9 * 700, rel=0.02)


def test_two_releases_never_share_noise():
    first, second = discrete_gaussian(1e6, 50_000), discrete_gaussian(1e6, 50_000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert (first == second).mean() < 0.001
    assert (skellam(1e9, 50_000) == skellam(1e9, 50_000)).mean() < 0.001


def test_the_same_key_draws_the_same(source):
    assert np.array_equal(
        discrete_gaussian(33.0, 9, source), discrete_gaussian(33.0, 9, Source.of_key(bytes(range(32))))
    )


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 2.0**51])
def test_noise_that_cannot_be_is_refused(value):
    with pytest.raises(ConfigError, match="noise's deviation must be > 0"):
        discrete_gaussian(value, 3)
    with pytest.raises(ConfigError, match="noise's variance must be > 0"):
        skellam(value, 3)


def test_none_is_drawn_where_none_is_asked_for():
    assert discrete_gaussian(5.0, 0).shape == (0,)


MADE = {
    "gaussian 300": lambda: _gaussian(300.0),
    "gaussian 2^45": lambda: _gaussian(2.0**45 * 1.7),
    "poisson 16400": lambda: _poisson(16_400.0),
    "poisson 3e9": lambda: _poisson(3e9),
    "poisson 2^49": lambda: _poisson(2.0**49),
}


@pytest.mark.parametrize("name", MADE)
def test_floats_are_as_near_to_the_exact_weights_as_decisions_need(name):
    blocks, random = MADE[name](), np.random.default_rng(1)
    chosen = random.integers(0, len(blocks.first), 300)
    value = blocks.first[chosen] + blocks.step[chosen] * random.integers(0, 1 << blocks.bits, 300)
    log = blocks.weights.floats(value) - blocks.height[chosen]
    with mpmath.workdps(80):
        for at, place, found in zip(value.tolist(), chosen.tolist(), log.tolist(), strict=True):
            exact = blocks.weights.exactly(at) - blocks.weights.exactly(int(blocks.first[place]))
            assert abs(exact - mpmath.mpf(found)) < 2.0**-41
            assert exact <= 0  # the first of a block has its largest weight


@pytest.mark.parametrize("name", [*MADE, "poisson 0.3"])
def test_blocks_lie_end_to_end_and_their_shares_are_the_weights(name):
    blocks = MADE.get(name, lambda: _poisson(0.3))()
    size, peak = 1 << blocks.bits, blocks.weights.peak
    up, down = blocks.first[blocks.step > 0], blocks.first[blocks.step < 0]
    assert up.tolist() == [peak + size * k for k in range(len(up))]
    assert down.tolist() == [peak - 1 - size * k for k in range(len(down))]
    exactly = blocks.weights.exactly
    with mpmath.workdps(80):
        assert exactly(int(up[-1]) + size) < -TAIL
        lowest = int(down[-1]) - size if len(down) else -1
        assert (lowest < 0 and blocks.weights.least == 0) or exactly(lowest) < -TAIL
        ends = [(int(high) << MORE) + low for high, low in zip(blocks.ends, blocks.further, strict=True)]
        shares = np.diff([0, *ends]).tolist()
        total = mpmath.fsum(mpmath.exp(exactly(int(first))) for first in blocks.first)
        for first, share in zip(blocks.first.tolist(), shares, strict=True):
            # The last one's share has what rounding and the tail leave.
            assert abs(mpmath.exp(exactly(first)) / total - mpmath.mpf(share) / 2**BITS) < 2.0**-180


@pytest.mark.parametrize("name", ["gaussian 300", "poisson 16400"])
def test_the_exact_road_decides_as_floats_do(name, monkeypatch):
    """With a doubt as wide as half of all, most decisions are made by mpmath; the draws hardly differ."""
    blocks, key = MADE[name](), bytes(32)
    decided = []
    monkeypatch.setattr(
        sampling, "_accept", lambda *a, real=sampling._accept: decided.append(real(*a)) or decided[-1]
    )
    drawn = draw(blocks, 600, Source.of_key(key), doubt=0.5)
    assert len(decided) > 100
    assert sum(decided) > 0.4 * len(decided)
    spread = blocks.weights.deviation
    assert abs((drawn - blocks.weights.peak).mean()) < 0.2 * spread
    assert drawn.std() == pytest.approx(spread, rel=0.15)


class Scripted:
    """A source that says what it is told."""

    def __init__(self, *words):
        self._words = list(words)

    def words(self, count):
        return np.array([self._words.pop(0) for _ in range(count)], np.uint64)


def test_a_number_that_begins_like_an_end_is_read_further():
    blocks = _gaussian(1.0)
    end, further = int(blocks.ends[3]), blocks.further[3]
    for more, chosen in ((further - 1, 3), (further, 4)):
        source = Scripted(more >> 64, more & (2**64 - 1))
        assert sampling._choose(blocks, np.array([end], np.uint64), source).tolist() == [chosen]
        assert source._words == []


def test_a_chance_is_compared_to_its_last_bit():
    blocks = _gaussian(300.0)
    weights, first = blocks.weights, int(blocks.first[70])
    with mpmath.workdps(80):
        number = int(mpmath.floor(mpmath.exp(weights.exactly(first + 1) - weights.exactly(first)) * 2**BITS))
    for off, kept in ((-1, True), (0, False)):
        whole = number + off
        source = Scripted(whole >> 64 & (2**64 - 1), whole & (2**64 - 1))
        assert sampling._accept(weights, first + 1, first, whole >> MORE, source) == kept
