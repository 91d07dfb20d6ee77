"""Words with the phones' noise on them: clipped where they are summed, bounded, and with nothing else beside them."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import PRESETS, Algorithm
from kbdfl.algorithms.secure import Noise, SecureAggregation, SecurePayload, Tally
from kbdfl.codec import upload_chain
from kbdfl.codec.clip import ClipNorm
from kbdfl.errors import ConfigError, ModelError, WireError
from kbdfl.privacy import Privacy, Source
from kbdfl.rng import stream
from kbdfl.transform import Draws, Update, encode_chain
from tests.kbdfl.algorithms.test_secure import SIZE, report_of

FAINT = Noise(1e-3, survivors=4, devices=6)


def payload(upload="summable", noise=FAINT):
    return SecurePayload((ClipNorm(1.0), *upload_chain(upload, 1.0)), SIZE, noise)


def delta_of(phone, length=1.0):
    drawn = stream(3, "delta", phone).standard_normal(SIZE, np.float32)
    return length * drawn / np.linalg.norm(drawn)


@pytest.mark.parametrize("upload", ["summable", "fixed", "rotate-shared+fixed:15"])
def test_the_sum_of_noised_words_is_the_sum_of_updates_and_noise(upload):
    made, plain = payload(upload), payload(upload, Noise())
    total, without = 0, 0
    for phone in range(4):
        draws = Draws(100 + phone, 7)
        words = made.of(report_of(made.encode(delta_of(phone), draws)))
        assert words.shape == (made.words,)
        assert np.abs(words).max() <= made.levels + made.noise_bound
        total = total + words
        report = report_of(encode_chain(plain.transforms, delta_of(phone), draws))
        without = without + plain.of(report)
    summed, tally = made.read(total, Draws(0, 7))
    assert tally == Tally(0, 0, 0)  # no examples, no words, no loss: nothing without noise
    assert made.words == plain.words - sum(plain._digits)
    clear, _ = plain.read(without, Draws(0, 7))
    step = made.transforms[-1].step(made.words)
    assert np.sqrt(np.mean((summed - clear) ** 2)) < 2.5 * step  # eight roundings, and the faint noise
    assert np.sqrt(np.mean(clear**2)) > 1.5 * step


def test_an_update_is_clipped_where_it_is_summed_however_it_was_sampled(monkeypatch):
    monkeypatch.setattr(
        "kbdfl.privacy.distributed.skellam", lambda variance, count, source: np.zeros(count, np.int64)
    )
    made = payload("shared:0.25+fixed")
    assert made.clip_norm == 2.0
    uneven = np.zeros(SIZE, np.float32)
    places = np.flatnonzero(made.read(np.ones(made.words, np.int64), Draws(0, 7))[0])
    uneven[places[:3]] = 1.0  # all of it is sampled, and is four times as long then
    for delta in (uneven, delta_of(1), 1e6 * delta_of(2)):
        levels = made.encode(delta, Draws(1, 7)).sections["levels"].astype(float)
        assert levels @ levels <= made.shares.squared_l2
        step = made.transforms[-1].step(made.words)
        assert np.linalg.norm(levels) * step <= made.clip_norm * made.shares.longest / made.shares.steps


def test_two_phones_of_one_seed_do_not_share_noise_and_a_test_may_repeat_it():
    made, draws = payload(noise=replace(FAINT, multiplier=1.0)), Draws(1, 7)
    first, second = (made.encode(delta_of(1), draws).sections["levels"] for _ in range(2))
    assert np.mean(first == second) < 0.1
    sources = [Source.of_key(bytes(32)) for _ in range(2)]
    first, second = (made.encode(delta_of(1), draws, source=each).sections["levels"] for each in sources)
    np.testing.assert_array_equal(first, second)


def test_an_update_without_noise_is_no_word_of_a_task_with_it():
    chain = payload().transforms
    plain = report_of(encode_chain(chain, delta_of(1), Draws(1, 7)))
    with pytest.raises(WireError):
        payload().of(plain)
    short = report_of(Update({"levels": np.zeros(3, np.int32)}))
    with pytest.raises(WireError, match="values is needed, got 3"):
        payload().of(short)


def test_an_update_that_is_not_finite_is_given_no_noise():
    with pytest.raises(ModelError, match="training diverged"):
        payload().encode(np.full(SIZE, np.nan, np.float32), Draws(1, 7))


def test_noise_of_phones_needs_a_sum_that_nobody_sees_into():
    with pytest.raises(ConfigError, match="must not be skellam without secure aggregation"):
        Algorithm(update_clip_norm=1.0, weights="uniform", privacy=Privacy("skellam", noise_multiplier=1.0))
    with pytest.raises(ConfigError, match="update_clip_norm must be > 0"):
        replace(PRESETS["dp-secure"], update_clip_norm=0.0)


def test_noise_is_made_for_the_honest_part_of_the_smallest_quorum():
    assert [SecureAggregation(on=True, devices=n).honest for n in (3, 32, 40, 100)] == [2, 14, 17, 41]
    honest = [SecureAggregation(on=True, devices=n).honest for n in range(3, 400)]
    assert honest == sorted(honest)  # so that a larger roster never has fewer
