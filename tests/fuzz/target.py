"""What is fuzzed: all that a server and a phone read. Whatever the bytes are, they are a frame or they are refused."""

from contextlib import suppress

import numpy as np

from kbdfl.algorithms.coordinates import Coordinates
from kbdfl.algorithms.words import draw_words
from kbdfl.codec import upload_chain
from kbdfl.codec.grid import Grid
from kbdfl.downlink import Held, read_part, read_whole
from kbdfl.errors import ConfigError, TooLarge, WireError
from kbdfl.model import CifgConfig
from kbdfl.transform import Draws, accumulate_chain, decode_chain
from kbdfl.wire import decode_model, decode_report

MOST = 1 << 16
SIZES = (1000, 336, 1, 0, 257, 4097)  # the first two are those of the golden frames
DRAWS = Draws(20_240_501, 0)
NORM = 16.0
CONFIG = CifgConfig(
    vocab=30, embed=4, hidden=6
)  # of the golden models, as are the version held and the part's seed
COORDINATES = Coordinates(CONFIG, draw_words(CONFIG.vocab, count=10, seed=20_240_501))
HELD = Held(2, Grid((np.arange(CONFIG.spec.size) % 7 - 3).astype(np.int8), np.full(2, -4, np.int8)))


def read_report(data: bytes, size: int) -> None:
    """As the server does; what is read adds up as it decodes."""
    report = decode_report(data, max_bytes=MOST)
    chain = upload_chain(report.upload, NORM)
    delta = decode_chain(chain, report.update, size, DRAWS)
    assert delta.dtype == np.float32
    assert delta.shape == (size,)
    if report.control is not None:
        decode_chain(chain, report.control, size, DRAWS)
    total = np.ones(size)
    accumulate_chain(chain, report.update, DRAWS, weight=0.5, acc=total)
    np.testing.assert_allclose(total, 1 + 0.5 * delta, rtol=1e-5, atol=1e-5 * np.abs(delta).max(initial=1))


def read_model(data: bytes, size: int) -> None:
    """As a phone does."""
    params, _, _ = decode_model(data, max_bytes=MOST)
    assert np.isfinite(params).all()


def read_grid(data: bytes, size: int) -> None:
    """As a phone does that holds no model."""
    held = read_whole(data, size=size, held=None, max_bytes=MOST)
    assert np.isfinite(held.grid.values).all()


def read_difference(data: bytes, size: int) -> None:
    """As a phone does that holds one."""
    held = read_whole(data, size=CONFIG.spec.size, held=HELD, max_bytes=MOST)
    assert np.isfinite(held.grid.values).all()


def read_rows(data: bytes, size: int) -> None:
    """As a phone does that is sent some words' rows."""
    values, _ = read_part(data, COORDINATES, max_bytes=MOST)
    assert np.isfinite(values).all()


def one(data: bytes) -> None:
    """One input: a byte that says the size, then a frame."""
    if not data:
        return
    size, frame = SIZES[data[0] % len(SIZES)], data[1:]
    for read in (read_report, read_model, read_grid, read_difference, read_rows):
        with suppress(WireError, TooLarge, ConfigError):  # the last is a chain that there is not
            read(frame, size)
