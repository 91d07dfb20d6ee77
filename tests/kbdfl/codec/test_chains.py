"""Chains by name and as they are written: what they promise and what is refused."""

import numpy as np
import pytest

from kbdfl.codec import STEPS, UPLOADS, Int8, upload_chain
from kbdfl.errors import ConfigError
from kbdfl.transform import Draws, Update, decode_chain, encode_chain, nominal_bytes
from kbdfl.wire import encode_report

FIELDS = {
    "task": "demo",
    "round": 1,
    "device": "ann",
    "model_sha256": "0" * 64,
    "spec_hash": "0" * 16,
    "examples": 1,
    "tokens": 1,
    "train_loss": 1.0,
}


def vector(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def mean_of(written, delta, draws):
    chain = upload_chain(written)
    return np.mean(
        [
            decode_chain(
                chain,
                encode_chain(chain, delta, Draws(seed, seed + 10**6)),
                delta.size,
                Draws(seed, seed + 10**6),
            )
            for seed in range(draws)
        ],
        axis=0,
    )


def test_uploads_are_found_by_name_and_as_they_are_written():
    assert upload_chain("int8") == (Int8(),)
    assert upload_chain(UPLOADS["compact"]) == upload_chain("compact")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("int7", "upload must be one of float32, int8, .*got 'int7'"),
        ("", "upload must be one of"),
        ("topk+int4", "topk must be written topk:FRACTION, got 'topk'"),
        ("int4:0.5", "int4 must be written int4, got 'int4:0.5'"),
        ("topk:much+int4", r"topk must keep a fraction in \(0, 1\], written as 0.5, got 'much'"),
        ("topk:0+int4", r"topk must keep a fraction in \(0, 1\], got 0"),
        ("topk:1." + "0" * 130 + "+int4", "upload must have at most 128 characters, got 142"),
        ("sample:1e-1+int4", "written as 0.5, got '1e-1'"),
        ("sample:nan+int4", r"sample must keep a fraction in \(0, 1\], written as 0.5, got 'nan'"),
        ("topk:0.5", "a chain must end in a codec"),
        ("int4+topk:0.5", "topk must come where an update is delta or values, it is coded there"),
        ("rotate+rotate+int4", "rotate twice"),
        ("summable", "update_clip_norm must be > 0 with fixed"),
    ],
)
def test_a_chain_that_makes_no_sense_is_refused_in_one_line(written, message):
    with pytest.raises(ConfigError, match=message) as error:
        upload_chain(written)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "written", ["int4", "int2", "rotate+int2", "sample:0.25+int8", "rotate-shared+shared:0.25+int4"]
)
def test_a_chain_that_claims_no_bias_has_none(written):
    delta, draws = vector(64), 3000
    spread = np.linalg.norm(delta) * 4 / np.sqrt(draws)
    assert np.abs(mean_of(written, delta, draws) - delta).max() < spread


def test_signs_after_a_rotation_have_hardly_a_bias_and_without_one_they_have():
    delta = vector(256) ** 3
    rotated, plain = (
        np.linalg.norm(mean_of(written, delta, 1500) - delta) / np.linalg.norm(delta)
        for written in ("rotate+sign", "sign")
    )
    assert rotated < 0.1 < plain


def test_only_what_adds_up_calls_itself_summable():
    summable = {name for name, step in STEPS.items() if step.summable}
    assert summable == {"shared", "rotate-shared", "float32", "fixed"}
    assert all(step.summable for step in upload_chain("summable", 1.0))
    assert not all(step.summable for step in upload_chain("tiny-uplink"))


@pytest.mark.parametrize("written", ["rotate-shared+float32", "shared:0.25+float32"])
def test_what_is_summable_adds_up_before_it_is_decoded(written):
    chain, draws = upload_chain(written), (Draws(1, 9), Draws(2, 9))
    deltas = [vector(500, 1), vector(500, 2)]
    sent = [
        encode_chain(chain, delta, one).sections["values"] for delta, one in zip(deltas, draws, strict=True)
    ]
    update = encode_chain(chain, deltas[0], draws[0])
    update.sections["values"] = sent[0] + sent[1]
    parts = [
        decode_chain(chain, encode_chain(chain, d, one), 500, one)
        for d, one in zip(deltas, draws, strict=True)
    ]
    np.testing.assert_allclose(decode_chain(chain, update, 500, draws[0]), parts[0] + parts[1], atol=1e-5)


def test_fixed_levels_of_a_cohort_are_summed_unseen():
    """Modulo 2^16, in which 258 phones' levels cannot wrap."""
    deltas = [vector(3000, seed) for seed in range(20)]
    norm = max(float(np.linalg.norm(delta)) for delta in deltas)
    chain, draws = upload_chain("rotate-shared+fixed", norm), [Draws(seed, 7) for seed in range(20)]
    sent = [encode_chain(chain, d, one).sections["levels"] for d, one in zip(deltas, draws, strict=True)]
    total = sum(levels.astype(np.int8).astype(np.int16) for levels in sent)
    step = chain[-1]._limit(3000) / 127
    rotation = upload_chain("rotate-shared+float32")
    update = Update({"values": (total * step).astype(np.float32)})
    summed = decode_chain(rotation, update, 3000, draws[0])
    apart = sum(
        decode_chain(chain, encode_chain(chain, d, one), 3000, one)
        for d, one in zip(deltas, draws, strict=True)
    )
    np.testing.assert_allclose(summed, apart, atol=1e-3)


@pytest.mark.parametrize("written", [*UPLOADS, "topk:0.02+sign", "rotate+sample:0.5+sign"])
def test_the_bytes_that_are_expected_are_about_those_that_are_sent(written):
    """Of a vector without zeros, whose levels hardly pack."""
    delta = vector(50_000)
    chain = upload_chain(written, float(np.linalg.norm(delta)))
    update = encode_chain(chain, delta, Draws(1, 2))
    sent = len(encode_report(update, upload=written, **FIELDS))
    assert sent / 1.3 < nominal_bytes(chain, 50_000) < 1.7 * sent
