"""Named random streams: everything a run draws follows from its seed and the name of what draws.

There is no global generator. A stream is `numpy.random.SeedSequence` over the run's seed and a hash of the
name, so that device 17 in round 3 draws the same numbers whichever thread, process or machine plays it.
"""

import hashlib
from operator import index

import numpy as np


def seed_of(seed: int, *name: str | int) -> int:
    """A 64-bit seed for the stream called `name` under `seed`; equal names give equal seeds.

    A numpy integer or string names the same stream as Python's; a float names none (TypeError).
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *name):
        encoded = (f"str:{part}" if isinstance(part, str) else f"int:{index(part)}").encode()
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
    return int.from_bytes(digest.digest(), "little")


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """An independent PCG64 generator for the stream called `name` under `seed`."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed_of(seed, *name))))
