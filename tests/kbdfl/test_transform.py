from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from kbdfl.codec import UPLOADS, ClipNorm, Float32, Int8, upload_chain
from kbdfl.errors import ConfigError, ModelError, WireError
from kbdfl.transform import (
    Draws,
    Transform,
    Update,
    accumulate_chain,
    check_chain,
    decode_chain,
    decode_span,
    encode_chain,
)


@dataclass(frozen=True, slots=True)
class Negate(Transform):
    """A transform with a decoder of its own, to stand before a codec."""

    name: ClassVar[str] = "negate"

    def encode(self, update, draws):
        return Update.of_delta(-update.delta)

    def decode(self, update, size, draws):
        return Update.of_delta(-update.delta)


def vector(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


DRAWS = Draws(1, 2)
CHAINS = [
    (Float32(),),
    (Int8(),),
    (ClipNorm(5.0), Int8(block=64)),
    (ClipNorm(5.0), Negate(), Float32()),
    (Negate(), Int8()),
    *(
        upload_chain(written)
        for written in (
            "topk:0.1+int4",
            "nonzero+int2",
            "nonzero+outliers:0.01+rotate+sample:0.6+sign",
            "rotate-shared+shared:0.25+float32",
            "sample:0.5+topk:0.5+float32",
        )
    ),
    (ClipNorm(5.0), *upload_chain("summable", 5.0)),
]


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "-".join(step.name for step in chain))
def test_accumulating_a_chain_adds_what_decoding_it_gives(chain):
    check_chain(chain)
    update = encode_chain(chain, vector(3000), DRAWS)
    acc = vector(3000, 2).astype(np.float64)
    expected = acc + 2.5 * decode_chain(chain, update, 3000, DRAWS)
    accumulate_chain(chain, update, DRAWS, weight=2.5, acc=acc)
    np.testing.assert_allclose(acc, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("span", [(0, 3000), (0, 1), (100, 300), (256, 512), (2999, 3000), (2500, 3000)])
@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "-".join(step.name for step in chain))
def test_a_span_is_that_part_of_the_decoded_whole(chain, span):
    update = encode_chain(chain, vector(3000), DRAWS)
    whole = decode_chain(chain, update, 3000, DRAWS)
    np.testing.assert_array_equal(decode_span(chain, update, slice(*span), 3000, DRAWS), whole[slice(*span)])


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "-".join(step.name for step in chain))
def test_encoding_leaves_the_delta_alone_and_follows_the_seed(chain):
    delta = vector(3000)
    delta.flags.writeable = False
    first, again = (encode_chain(chain, delta, DRAWS) for _ in range(2))
    assert first.sections.keys() == again.sections.keys()
    for name, array in first.sections.items():
        np.testing.assert_array_equal(array, again.sections[name])


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "-".join(step.name for step in chain))
def test_an_update_of_another_size_is_refused_and_leaves_the_sum_alone(chain):
    update = encode_chain(chain, vector(100), DRAWS)
    acc = np.zeros(150)
    with pytest.raises(WireError, match=r"values|outliers"):
        decode_chain(chain, update, 150, DRAWS)
    with pytest.raises(WireError, match=r"values|outliers"):
        accumulate_chain(chain, update, DRAWS, weight=1, acc=acc)
    assert not acc.any()


@pytest.mark.parametrize("upload", UPLOADS)
def test_named_uploads_are_chains_that_may_run(upload):
    chain = upload_chain(upload, 1.0)
    check_chain(chain)
    check_chain((ClipNorm(1.0), *chain))


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ((), "must end in a codec"),
        ((ClipNorm(1.0),), "must end in a codec"),
        ((Int8(), ClipNorm(1.0)), "clip_norm must come where an update is delta, it is coded there"),
        ((Float32(), Int8()), "int8 must come where an update is delta or values, it is coded there"),
        ((ClipNorm(1.0), ClipNorm(2.0), Int8()), "clip_norm twice"),
    ],
)
def test_a_chain_in_a_wrong_order_is_refused(chain, message):
    with pytest.raises(ConfigError, match=message):
        check_chain(chain)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "-".join(step.name for step in chain))
def test_an_update_that_is_not_finite_is_never_encoded(bad, chain):
    delta = vector(300)
    delta[17] = bad
    with pytest.raises(ModelError, match="the training diverged"):
        encode_chain(chain, delta, DRAWS)


def test_transforms_draw_from_streams_of_their_own():
    seen = []

    @dataclass(frozen=True, slots=True)
    class Spy(Transform):
        name: ClassVar[str] = "spy"

        def encode(self, update, draws):
            seen.extend((draws.report, draws.round))
            return update

    for seed in (0, 1):
        encode_chain((Spy(), Int8()), vector(3), Draws(seed, seed + 10))
    assert len(set(seen)) == 4
    assert all(0 <= seed < 2**64 and seed not in (0, 1) for seed in seen)


def test_a_delta_must_be_one_axis_of_float32():
    for delta in (np.zeros((2, 2), np.float32), np.zeros(4)):
        with pytest.raises(WireError, match="section delta must be float32 of one axis"):
            _ = Update.of_delta(delta).delta
