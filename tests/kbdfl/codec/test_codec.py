import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.codec import ClipNorm, Float32, Int8
from kbdfl.errors import ConfigError, WireError
from kbdfl.kernels.accumulate import l2_norm
from kbdfl.transform import Draws, Update, decode_chain

DRAWS = Draws(0, 0)

VALUES = st.lists(st.floats(-1e10, 1e10, width=32), max_size=40).map(
    lambda values: np.array(values, np.float32)
)


def read_back(codec, delta, seed=0):
    draws = Draws(seed, 0)
    return codec.decode(codec.encode(Update.of_delta(delta), draws), delta.size, draws).delta


@given(VALUES)
def test_float32_reads_back_the_same_bytes(delta):
    codec = Float32()
    back = read_back(codec, delta)
    np.testing.assert_array_equal(back, delta)


@given(VALUES, st.integers(0, 2**64 - 1), st.integers(1, 50))
def test_int8_reads_back_within_one_step_of_its_block(delta, seed, block):
    codec = Int8(block=block)
    update = codec.encode(Update.of_delta(delta), Draws(seed, 0))
    back = codec.decode(update, delta.size, Draws(seed, 0)).delta
    steps = np.repeat(update.sections["scales"], block)[: delta.size]
    assert np.all(np.abs(back - delta) <= np.maximum(steps * 1.001, 2.0**-96))


def test_int8_is_unbiased():
    delta = (np.random.default_rng(0).standard_normal(512) * 1e-3).astype(np.float32)
    codec, draws = Int8(), 3000
    mean = np.zeros(512)
    for seed in range(draws):
        mean += read_back(codec, delta, seed)
    step = np.abs(delta).max() / 127
    assert np.abs(mean / draws - delta).max() < 5 * step * 0.5 / np.sqrt(draws)


@given(VALUES, st.integers(0, 2**64 - 1), st.sampled_from([1, 4, 256]))
def test_int8_never_stretches_a_norm_further_than_it_says(delta, seed, block):
    codec = Int8(block=block)
    back = read_back(codec, delta, seed)
    assert l2_norm(back) <= codec.norm_stretch * l2_norm(delta) * (1 + 1e-5) + 1e-28


@given(VALUES, st.floats(1e-6, 1e6))
def test_a_clipped_norm_is_never_above_its_bound(delta, clip_norm):
    clipped = ClipNorm(clip_norm).encode(Update.of_delta(delta), DRAWS).delta
    assert l2_norm(clipped) <= clip_norm
    if l2_norm(delta) <= clip_norm:
        np.testing.assert_array_equal(clipped, delta)
    elif l2_norm(delta) < 1e20:
        np.testing.assert_allclose(clipped, delta * (clip_norm / l2_norm(delta)), rtol=1e-5, atol=1e-35)


@pytest.mark.parametrize("codec", [ClipNorm(1.0), Int8()])
def test_a_codec_on_its_own_refuses_what_is_not_finite(codec):
    with pytest.raises(ValueError, match="update must be finite"):
        codec.encode(Update.of_delta(np.array([1, np.nan], np.float32)), DRAWS)


def int8_sections(**changes):
    return {"scales": np.ones(2, np.float32), "levels": np.zeros(300, np.int8)} | changes


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"levels": np.zeros(300, np.int8)}, "must have sections"),
        (int8_sections(more=np.zeros(1, np.int8)), "must have sections"),
        (int8_sections(scales=np.ones(2)), "section scales must be float32"),
        (int8_sections(levels=np.zeros(300, np.uint8)), "section levels must be int8"),
        (int8_sections(levels=np.zeros((30, 10), np.int8)), "of one axis"),
        (int8_sections(scales=np.ones(3, np.float32)), "300 levels need 2 scales, got 3"),
        (int8_sections(scales=np.array([1, np.nan], np.float32)), "scales must be finite"),
        (int8_sections(scales=np.array([1, np.inf], np.float32)), "scales must be finite"),
        (int8_sections(scales=np.array([1, -1], np.float32)), "scales must be finite"),
        (int8_sections(scales=np.array([1, 1e30], np.float32)), "scales must be finite"),
        (int8_sections(levels=np.full(300, -128, np.int8)), "levels must be in"),
    ],
)
def test_int8_refuses_what_its_encoder_cannot_have_given(sections, message):
    acc = np.zeros(300)
    with pytest.raises(WireError, match=message):
        decode_chain((Int8(),), Update(sections), 300, DRAWS)
    with pytest.raises(WireError, match=message):
        Int8().accumulate(Update(sections), DRAWS, weight=1, acc=acc)
    assert not acc.any()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"delta": np.zeros(3, np.float32)}, "must have sections"),
        ({"values": np.zeros(3, np.int8)}, "section values must be float32"),
        ({"values": np.array([1, np.nan], np.float32)}, "norm must be at most"),
        ({"values": np.array([1, -np.inf], np.float32)}, "norm must be at most"),
        ({"values": np.array([1, 1e30], np.float32)}, "norm must be at most"),
    ],
)
def test_float32_refuses_what_its_encoder_cannot_have_given(sections, message):
    with pytest.raises(WireError, match=message):
        decode_chain((Float32(),), Update(sections), 2, DRAWS)


@pytest.mark.parametrize("clip_norm", [0, -1, float("nan"), float("inf")])
def test_a_clip_norm_must_be_positive(clip_norm):
    with pytest.raises(ConfigError, match="clip_norm must be finite and > 0"):
        ClipNorm(clip_norm)


@pytest.mark.parametrize("block", [0, -1, (1 << 20) + 1])
def test_a_block_must_be_in_range(block):
    with pytest.raises(ConfigError, match="block must be in"):
        Int8(block=block)
