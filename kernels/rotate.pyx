"""A random rotation in blocks: it spreads what a few values hold over all of a block.

Random signs, then the Walsh-Hadamard transform over sqrt(n) (Suresh et al. 2017, arXiv 1611.00429; DRIVE: Vargaftik et
al. 2021, arXiv 2105.08339). Signs are a function of (seed, block, place in the block). What is left after the last whole
block is cut into descending powers of two, so that as many values come out as went in. The numpy twin of
reference_rotate.py gives the same bytes. A NaN or an infinity makes its block NaN.
"""

from libc.stdint cimport int64_t, uint64_t

import numpy as np

cdef extern from "rotate_simd.h" nogil:
    void kb_rotate(int64_t n, int block, uint64_t seed, int back, float *y)

cdef int MOST = 1 << 20


def rotate(const float[::1] x, *, uint64_t seed, int block=4096):
    """`x` (P,) float32 rotated, a new (P,) float32; the norm of each block is kept.

    Raises ValueError unless `block` is a power of two in [1, 2^20].
    """
    return turned(x, seed, block, False)


def unrotate(const float[::1] y, *, uint64_t seed, int block=4096):
    """The inverse: unrotate(rotate(x)) = x up to rounding. Raises what `rotate` raises."""
    return turned(y, seed, block, True)


cdef object turned(const float[::1] x, uint64_t seed, int block, bint back):
    if not 1 <= block <= MOST or block & (block - 1):
        raise ValueError(f"block must be a power of two in [1, {MOST}], got {block}")
    out = np.array(x, np.float32)
    cdef float[::1] out_view = out
    cdef int64_t n = x.shape[0]
    if n > 0:
        with nogil:
            kb_rotate(n, block, seed, back, &out_view[0])
    return out
