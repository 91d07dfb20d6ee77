"""Write the golden frames beside this file: python tests/golden/make_frames.py

They pin format 1 as docs/wire-format.md describes it. A change of the encoder that changes them is a change
of the format and needs a new format number, not new golden files.
"""

from pathlib import Path

import numpy as np

from kbdfl.codec import UPLOADS, upload_chain
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
SIZE = 1000
SEED = 20_240_501


def vector() -> np.ndarray:
    """float32 (SIZE,): whole numbers over a power of two, the same on every machine."""
    steps = (np.arange(SIZE, dtype=np.int64) * 7919) % 2003 - 1001
    return (steps / 4096).astype(np.float32)


def frames() -> dict[str, bytes]:
    """File name -> frame."""
    made = {"model.bin": encode_model(vector(), version=3, spec_hash=FIELDS["spec_hash"])}
    for upload in UPLOADS:
        update = encode_chain(upload_chain(upload), vector(), Draws(SEED, 0))
        made[f"report_{upload}.bin"] = encode_report(update, upload=upload, **FIELDS)
    return made


if __name__ == "__main__":
    for name, frame in frames().items():
        Path(__file__).with_name(name).write_bytes(frame)
