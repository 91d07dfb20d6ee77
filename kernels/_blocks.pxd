# How values are cut into blocks and packed into bytes, and what must hold before a kernel reads them.
from libc.stdint cimport int64_t, uint8_t

cdef extern from "packed_simd.h" nogil:
    int kb_has_minus_eight(int64_t n, const uint8_t *packed)
    int kb_has_minus_two(int64_t n, const uint8_t *packed)


cdef inline int64_t blocks_of(int64_t n, int block, int multiple) except -1:
    """ceil(n / block), the number of scales of n values, for a block that is a positive multiple of `multiple`."""
    if multiple == 1 and block < 1:
        raise ValueError(f"block must be >= 1, got {block}")
    if block < 1 or block % multiple:
        raise ValueError(f"block must be a positive multiple of {multiple}, got {block}")
    return n // block + (n % block > 0)


cdef inline int check_scales(int64_t n, int block, int multiple, const float[::1] scales) except -1:
    cdef int64_t blocks = blocks_of(n, block, multiple)
    if scales.shape[0] != blocks:
        raise ValueError(f"{n} values in blocks of {block} need {blocks} scales, got {scales.shape[0]}")
    return 0


cdef inline int check_packed(int64_t n, int per_byte, const uint8_t[::1] packed) except -1:
    """That n values of 8 / per_byte bits fill `packed`, and that what is left of its last byte is zero."""
    cdef int64_t size = n // per_byte + (n % per_byte > 0)
    cdef int used = n % per_byte * (8 // per_byte)
    if packed.shape[0] != size:
        raise ValueError(f"{n} values need {size} bytes, got {packed.shape[0]}")
    if used > 0 and packed[size - 1] >> used:
        raise ValueError(f"the last byte must end in {8 - used} zero bits, got {packed[size - 1]:#04x}")
    if per_byte == 2 and size > 0 and kb_has_minus_eight(size, &packed[0]):
        raise ValueError("levels must be in [-7, 7], got -8")
    if per_byte == 4 and size > 0 and kb_has_minus_two(size, &packed[0]):
        raise ValueError("levels must be in [-1, 1], got -2")
    return 0
