import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.codec import upload_chain
from kbdfl.codec.places import pack_places, unpack_places
from kbdfl.errors import WireError
from kbdfl.transform import Draws, Update, decode_chain, encode_chain

DRAWS = Draws(1, 2)
PLACES = st.sets(st.integers(0, 4000)).map(lambda places: np.array(sorted(places), np.int64))


def heavy_tailed(size, seed=0):
    return (np.random.default_rng(seed).standard_normal(size) ** 3).astype(np.float32)


def read_back(written, delta, draws=DRAWS):
    chain = upload_chain(written)
    return decode_chain(chain, encode_chain(chain, delta, draws), delta.size, draws)


@given(PLACES)
def test_places_read_back_as_they_were_packed(places):
    np.testing.assert_array_equal(unpack_places(pack_places(places), 4001), places)


def test_a_place_takes_a_byte_for_every_255_of_its_gap():
    assert pack_places(np.array([0, 1, 255, 511])).tolist() == [0, 0, 253, 255, 0]


@given(st.binary(max_size=60), st.integers(0, 900))
def test_whatever_the_bytes_places_ascend_below_the_size_or_are_refused(data, size):
    packed = np.frombuffer(data, np.uint8)
    try:
        places = unpack_places(packed, size)
    except WireError:
        return
    assert np.all(np.diff(places) > 0)
    assert len(places) == 0 or 0 <= places[0] <= places[-1] < size
    assert pack_places(places).tobytes() == data


@pytest.mark.parametrize("fraction", [0.001, 0.1, 1])
def test_topk_keeps_exactly_k_of_the_largest(fraction):
    delta = heavy_tailed(1000)
    back = read_back(f"topk:{fraction}+float32", delta)
    kept = np.flatnonzero(back)
    assert len(kept) == round(1000 * fraction)
    np.testing.assert_array_equal(back[kept], delta[kept])
    assert np.abs(delta[kept]).min() >= np.abs(np.delete(delta, kept)).max(initial=0)


@given(st.lists(st.sampled_from([0.0, -0.0, 1.5, -2.0]), max_size=80))
def test_nonzero_loses_nothing_and_sends_no_zero(values):
    delta = np.array(values, np.float32)
    chain = upload_chain("nonzero+float32")
    update = encode_chain(chain, delta, DRAWS)
    assert len(update.sections["values"]) == np.count_nonzero(delta)
    np.testing.assert_array_equal(decode_chain(chain, update, delta.size, DRAWS), delta)


def test_outliers_travel_apart_and_leave_little_for_the_few_bits():
    delta = heavy_tailed(5000)
    errors = [np.linalg.norm(read_back(written, delta) - delta) for written in ("outliers:0.05+int2", "int2")]
    assert errors[0] < errors[1] / 2


def test_outliers_with_what_follows_are_unbiased():
    delta = heavy_tailed(300)
    mean = np.mean([read_back("outliers:0.05+int2", delta, Draws(seed, 0)) for seed in range(2000)], axis=0)
    spread = 6 * np.sort(np.abs(delta))[-16] / np.sqrt(2000)
    assert np.abs(mean - delta).max() < max(spread, np.abs(delta).max() / 7 * 5 / np.sqrt(2000))


@pytest.mark.parametrize(
    ("written", "name", "array", "message"),
    [
        ("topk:0.1+float32", "places", np.full(10, 200, np.uint8), "places must be below 100"),
        ("topk:0.1+float32", "places", np.array([1, 2, 255], np.uint8), "the last place is not whole"),
        ("topk:0.1+float32", "places", np.array([1, 2], np.uint8), "10 values need as many places, got 2"),
        ("topk:0.1+float32", "values", np.ones(9, np.float32), "update of 10 values is needed, got 9"),
        ("nonzero+float32", "changes", np.array([0, 9], np.uint8), "values is needed"),
        ("nonzero+float32", "changes", np.array([0, 200], np.uint8), "places must be below 100"),
        ("nonzero+float32", "changes", np.zeros(1, np.int8), "section changes must be uint8"),
        (
            "outliers:0.1+float32",
            "outlier_places",
            np.array([1], np.uint8),
            "10 outliers need as many places",
        ),
        ("outliers:0.1+float32", "outliers", np.full(5, 0x88, np.uint8), "levels must be in"),
        ("outliers:0.1+float32", "outliers", np.zeros(4, np.uint8), "need 5 bytes, got 4"),
        ("outliers:0.1+float32", "outlier_scales", np.full(1, np.nan, np.float32), "scales must be finite"),
        ("outliers:0.1+float32", "delta", np.ones(100, np.float32), "no section delta"),
        ("sample:0.1+float32", "values", np.ones(9, np.float32), "update of 10 values is needed, got 9"),
        ("rotate+sign", "packed", np.zeros(12, np.uint8), "need 13 bytes, got 12"),
        ("rotate+sign", "scales", np.full(1, -1, np.float32), "scales must be finite"),
        ("int2", "packed", np.full(25, 0b10, np.uint8), r"levels must be in \[-1, 1\]"),
    ],
)
def test_what_no_encoder_can_have_given_is_refused(written, name, array, message):
    chain = upload_chain(written)
    update = encode_chain(chain, heavy_tailed(100), DRAWS)
    with pytest.raises(WireError, match=message):
        decode_chain(chain, Update(update.sections | {name: array}), 100, DRAWS)


def test_a_section_of_no_step_is_refused():
    chain = upload_chain("topk:0.1+int4")
    update = encode_chain(chain, heavy_tailed(100), DRAWS)
    with pytest.raises(WireError, match="must have sections"):
        decode_chain(chain, Update(update.sections | {"more": np.zeros(1, np.uint8)}), 100, DRAWS)
