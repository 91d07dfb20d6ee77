"""Write the golden frames beside this file: python tests/golden/make_frames.py

They pin format 1 as docs/wire-format.md describes it. A change of the encoder that changes them is a change
of the format and needs a new format number, not new golden files.
"""

from pathlib import Path

import numpy as np

from kbdfl.algorithms.coordinates import Coordinates
from kbdfl.algorithms.download import Download
from kbdfl.algorithms.words import draw_words
from kbdfl.codec import UPLOADS, upload_chain
from kbdfl.downlink import Downlink
from kbdfl.model import CifgConfig
from kbdfl.transform import Draws, encode_chain
from kbdfl.wire import encode_model, encode_report

FIELDS = {
    "task": "demo",
    "round": 7,
    "device": "0123456789abcdef",
    "model_sha256": "c0ffee00" * 8,
    "spec_hash": "feedbeef" * 2,
    "examples": 12,
    "tokens": 345,
    "train_loss": 5.0625,
}
# File name -> chain: those with a name, and one of each step that is in none of them.
CHAINS = {name: name for name in UPLOADS} | {
    "drive": "nonzero+outliers:0.05+rotate+sample:0.5+sign",
    "ternary": "sample:0.25+topk:0.5+int2",
}
SIZE = 1000
SEED = 20_240_501
DRAWS = Draws(SEED, 0)
NORM = 16.0
CONFIG = CifgConfig(vocab=30, embed=4, hidden=6)


def vector() -> np.ndarray:
    """float32 (SIZE,): whole numbers over a power of two, the same on every machine."""
    steps = (np.arange(SIZE, dtype=np.int64) * 7919) % 2003 - 1001
    return (steps / 4096).astype(np.float32)


def models() -> dict[str, bytes]:
    """A model as it is, on the grid, as the difference from an earlier version, and some words' rows of it."""
    spec = CONFIG.spec
    params = np.resize(vector(), spec.size)
    downlink = Downlink(Download("grid"), spec)
    downlink.publish(2, params)
    downlink.publish(3, params + np.resize(vector()[::-1], spec.size) / 8)
    coordinates = Coordinates(CONFIG, draw_words(CONFIG.vocab, count=10, seed=SEED))
    return {
        "model.bin": encode_model(vector(), version=3, spec_hash=FIELDS["spec_hash"]),
        "model_grid.bin": downlink.frame(3),
        "model_difference.bin": downlink.frame(3, held=2),
        "model_part.bin": downlink.part(coordinates),
    }


def frames() -> dict[str, bytes]:
    """File name -> frame."""
    made = models()
    for name, upload in CHAINS.items():
        update = encode_chain(upload_chain(upload, NORM), vector(), DRAWS)
        made[f"report_{name}.bin"] = encode_report(update, upload=upload, **FIELDS)
    return made


if __name__ == "__main__":
    for name, frame in frames().items():
        Path(__file__).with_name(name).write_bytes(frame)
