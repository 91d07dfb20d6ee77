import numpy as np
import pytest

from kbdfl.algorithms.coordinates import Coordinates
from kbdfl.algorithms.download import Download
from kbdfl.algorithms.words import draw_words
from kbdfl.downlink import Downlink, read_part, read_whole
from kbdfl.errors import ConfigError, NotFound, WireError
from kbdfl.model import CifgConfig, init_params
from kbdfl.wire import decode_model

CONFIG = CifgConfig(vocab=200, embed=8, hidden=16)
SIZE, LIMIT = CONFIG.spec.size, 1 << 20


def versions(count, download=None):
    """A downlink with versions 0, 1, ..., and what it published of each."""
    downlink, published = Downlink(download or Download("grid"), CONFIG.spec), []
    params = init_params(CONFIG, seed=1)
    for version in range(count):
        published.append(downlink.publish(version, params.copy()))
        params = params + np.float32(0.01) * np.random.default_rng(version).standard_normal(SIZE, np.float32)
    return downlink, published


def read(frame, held=None):
    return read_whole(frame, size=SIZE, held=held, max_bytes=LIMIT)


def test_a_float32_version_is_published_as_it_is():
    downlink, published = versions(2, Download())
    params, version, spec = decode_model(downlink.frame(1, held=0), max_bytes=LIMIT)
    np.testing.assert_array_equal(params, published[1])
    assert (version, spec) == (1, CONFIG.spec.hash)
    with pytest.raises(NotFound, match="version 1 is served, not 0"):
        downlink.frame(0)


def test_a_phone_without_a_model_reads_the_bits_that_were_published():
    downlink, published = versions(3)
    for version in range(3):
        now = read(downlink.frame(version))
        assert now.version == version
        assert now.grid.values.tobytes() == published[version].tobytes()


def test_a_phone_that_holds_a_version_reads_the_same_bits_from_fewer_bytes():
    downlink, published = versions(4)
    held = read(downlink.frame(1))
    frame = downlink.frame(3, held=1)
    assert read(frame, held).grid.values.tobytes() == published[3].tobytes()
    assert len(frame) < len(downlink.frame(3)) / 2


def test_a_phone_that_holds_what_is_no_longer_kept_gets_the_whole():
    downlink, _ = versions(5, Download("grid", kept_versions=2))
    assert downlink.frame(4, held=0) == downlink.frame(4)
    assert downlink.frame(4, held=3) != downlink.frame(4)
    with pytest.raises(NotFound, match="version 4 is served, not 2"):
        downlink.frame(2)


def test_a_difference_from_what_the_phone_does_not_hold_is_refused():
    downlink, _ = versions(3)
    frame = downlink.frame(2, held=1)
    with pytest.raises(WireError, match="a difference from version 1 came to a phone that holds none"):
        read(frame)
    with pytest.raises(WireError, match="came to a phone that holds 0"):
        read(frame, read(downlink.frame(0)))


@pytest.mark.parametrize("codec", ["float32", "grid"])
def test_a_part_holds_the_published_rows_of_the_rounds_words(codec):
    downlink, published = versions(2, Download(codec))
    coordinates = Coordinates(CONFIG, draw_words(CONFIG.vocab, count=40, seed=3))
    frame = downlink.part(coordinates)
    if codec == "grid":
        values, version = read_part(frame, coordinates, max_bytes=LIMIT)
    else:
        values, version, _ = decode_model(frame, max_bytes=LIMIT)
    assert version == 1
    assert values.tobytes() == coordinates.take(published[1]).tobytes()


def test_a_model_of_another_size_is_refused():
    downlink, _ = versions(1)
    with pytest.raises(WireError, match="blocks needs as many exponents"):
        read_whole(downlink.frame(0), size=SIZE + 1000, held=None, max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codec": "int8"}, "download must be one of float32, grid, got 'int8'"),
        ({"steps": 0}, r"steps of the download's grid must lie in \[0.25, 32\], got 0"),
        ({"kept_versions": 0}, "kept_versions must lie in"),
    ],
)
def test_a_download_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Download(**fields)
