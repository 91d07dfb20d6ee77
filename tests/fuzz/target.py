"""What is fuzzed: all that a server and a phone read. Whatever the bytes are, they are a frame or they are refused."""

from contextlib import suppress

import numpy as np

from kbdfl.codec import upload_chain
from kbdfl.downlink import read_whole
from kbdfl.errors import ConfigError, TooLarge, WireError
from kbdfl.transform import Draws, accumulate_chain, decode_chain
from kbdfl.wire import decode_model, decode_report

MOST = 1 << 16
SIZES = (1000, 324, 1, 0, 257, 4097)  # the first two are those of the golden frames
DRAWS = Draws(20_240_501, 0)
NORM = 16.0


def read_report(data: bytes, size: int) -> None:
    """As the server does; what is read adds up as it decodes."""
    report = decode_report(data, max_bytes=MOST)
    chain = upload_chain(report.upload, NORM)
    delta = decode_chain(chain, report.update, size, DRAWS)
    assert delta.dtype == np.float32
    assert delta.shape == (size,)
    total = np.ones(size, np.float32)
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


def one(data: bytes) -> None:
    """One input: a byte that says the size, then a frame."""
    if not data:
        return
    size, frame = SIZES[data[0] % len(SIZES)], data[1:]
    for read in (read_report, read_model, read_grid):
        with suppress(WireError, TooLarge, ConfigError):  # the last is a chain that there is not
            read(frame, size)
