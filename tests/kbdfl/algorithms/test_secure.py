"""Words that are summed unseen: their sum is that of updates and tallies; what cannot be summed is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.algorithms import Algorithm, ClientRule, FedBuff, Median, Oort
from kbdfl.algorithms.secure import EXAMPLES, LOSS, LOSS_STEP, TOKENS, SecureAggregation, SecurePayload, Tally
from kbdfl.codec import upload_chain
from kbdfl.codec.clip import ClipNorm
from kbdfl.errors import ConfigError, WireError
from kbdfl.privacy import Privacy
from kbdfl.rng import stream
from kbdfl.transform import Draws, Update, decode_chain, encode_chain
from kbdfl.wire import Report

SECURE = Algorithm(
    upload="summable", update_clip_norm=1.0, weights="uniform", secure=SecureAggregation(on=True)
)
SIZE = 5_000
UPLOADS = ["summable", "fixed", "rotate-shared+fixed:3", "shared:0.3+fixed:1"]


def report_of(update, **changes):
    fields = {"examples": 5, "tokens": 40, "train_loss": 3.5} | changes
    texts = {"task": "t", "device": "d", "model_sha256": "ab" * 32, "spec_hash": "cd" * 8, "upload": "u"}
    return Report(round=1, update=update, **texts, **fields)


def updates(chain, count, seed=3):
    """Reports of a round, each with a delta and a rounding of its own, and what draws they share."""
    made = []
    for phone in range(count):
        delta = stream(seed, "delta", phone).standard_normal(SIZE, np.float32) / np.sqrt(SIZE)
        made.append((encode_chain(chain, delta, Draws(100 + phone, 7)), phone))
    return made


@pytest.mark.parametrize("upload", UPLOADS)
def test_the_sum_of_words_is_the_sum_of_updates(upload):
    chain = (ClipNorm(1.0), *upload_chain(upload, 1.0))
    payload = SecurePayload(chain, SIZE)
    total, apart = 0, np.zeros(SIZE)
    for update, phone in updates(chain, 9):
        words = payload.of(report_of(update))
        assert words.shape == (payload.words,)
        assert np.abs(words).max() <= payload.levels
        total = total + words
        # Only what all draw alike is looked at.
        alone, _ = payload.read(words, Draws(0, 7))
        np.testing.assert_array_equal(alone, decode_chain(chain, update, SIZE, Draws(100 + phone, 7)))
        apart += alone
    together, tally = payload.read(total, Draws(0, 7))
    np.testing.assert_allclose(together, apart, atol=2e-5)
    assert tally == Tally(45, 360, round(9 * 140 / LOSS_STEP))


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2 * EXAMPLES), st.integers(0, 2 * TOKENS), st.floats(0, 1e9, allow_nan=False)
        ),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([1, 3, 127]),
)
def test_tallies_add_up_and_are_cut_to_what_fits(trained, levels):
    payload = SecurePayload(upload_chain(f"fixed:{levels}", 1.0), 3)
    update = Update({"levels": np.zeros(3, np.uint8)})
    reports = [report_of(update, examples=e, tokens=t, train_loss=loss) for e, t, loss in trained]
    words = [payload.of(report) for report in reports]
    assert all(0 <= word <= levels for row in words for word in row)
    _, tally = payload.read(sum(words), Draws(0, 0))
    assert tally.examples == sum(min(e, EXAMPLES) for e, _, _ in trained)
    assert tally.tokens == sum(min(t, TOKENS) for _, t, _ in trained)
    assert tally.loss == sum(round(min(loss * t / LOSS_STEP, LOSS)) for _, t, loss in trained)


@given(st.integers(-5, 10**6), st.integers(-5, 10**6), st.integers(-5, 10**9), st.integers(1, 50))
def test_each_share_of_a_tally_is_a_report_and_together_they_are_it(examples, tokens, loss, devices):
    shares = Tally(examples, tokens, loss).each(devices)
    assert len(shares) == devices
    assert sum(each[0] for each in shares) == max(examples, devices)
    assert sum(each[1] for each in shares) == max(tokens, 0)
    assert all(e >= 1 and t >= 0 and nats >= 0 for e, t, nats in shares)
    if tokens > 0 and loss > 0:
        assert sum(t * nats for _, t, nats in shares) == pytest.approx(loss * LOSS_STEP)


def test_an_update_or_a_sum_of_another_length_is_refused():
    payload = SecurePayload(upload_chain("fixed", 1.0), 10)
    with pytest.raises(WireError, match="10 values is needed, got 9"):
        payload.of(report_of(Update({"levels": np.zeros(9, np.uint8)})))
    with pytest.raises(WireError, match="levels alone"):
        payload.of(report_of(Update({"levels": np.zeros(10, np.uint8), "scales": np.zeros(1, np.float32)})))
    with pytest.raises(WireError, match=f"{payload.words} words is needed"):
        payload.read(np.zeros(10, np.int64), Draws(0, 0))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"upload": "int8"}, "int8 differs from phone to phone"),
        ({"upload": "rotate+fixed"}, "rotate differs"),
        ({"upload": "sample:0.5+fixed"}, "sample differs"),
        ({"upload": "float32"}, "must end in fixed, got float32"),
        ({"update_clip_norm": 0.0}, "update_clip_norm must be > 0"),
        ({"weights": "examples"}, "weights must be uniform"),
        ({"aggregate": Median()}, "aggregate must be mean"),
        ({"mode": FedBuff()}, "synchronous"),
        ({"client": ClientRule(scaffold=2)}, "scaffold must be 0"),
        ({"upload": "fixed", "client": ClientRule(feedback_rounds=3)}, "feedback_rounds must be 0"),
        ({"selection": Oort()}, "oort"),
        ({"privacy": Privacy("gaussian", noise_multiplier=1.0)}, "privacy must be skellam or none"),
        ({"privacy": Privacy("tree", noise_multiplier=1.0)}, "share noise of one round alone, got tree"),
        ({"privacy": Privacy("banded", noise_multiplier=1.0)}, "share noise of one round alone, got banded"),
    ],
)
def test_what_cannot_be_summed_unseen_is_refused(changes, reason):
    with pytest.raises(ConfigError, match=reason):
        replace(SECURE, **changes)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"on": True, "devices": 2}, "devices must be >= 3"),
        ({"on": True, "dropout": 0.4}, "must be below 1"),
        ({"on": True, "dropout": float("nan")}, "finite"),
        ({"on": True, "phase_deadline_s": 0.0}, "phase_deadline_s must be > 0"),
        ({"devices": 64}, "devices must come with secure"),
    ],
)
def test_bad_options_are_one_line(options, reason):
    with pytest.raises(ConfigError, match=reason):
        SecureAggregation(**options)
