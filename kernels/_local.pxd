# Scratch memory of one batch: the activations, a tile of the head, and one stretch that holds the packed weights
# while the recurrence runs and the tile's logits while the head does.
from _cifg cimport Activations, Dims, packed_floats, take, take_activations
from _head cimport Head, logit_floats, take_head

cdef enum:
    LINE_BYTES = 64  # of a cache line


cdef struct Scratch:
    Activations body
    Head head


cdef inline Scratch slice_scratch(Dims d, float *memory, size_t N, size_t B) noexcept nogil:
    """For N rows and B sentences."""
    cdef Scratch s
    memory += (LINE_BYTES - <size_t> memory % LINE_BYTES) % LINE_BYTES // sizeof(float)
    s.body = take_activations(d, &memory, N, B)
    s.head = take_head(d, &memory)
    s.body.packed = s.head.logits = take(&memory, max(packed_floats(d, N), logit_floats(d)))
    return s


cdef inline size_t scratch_floats(Dims d, size_t N, size_t B) noexcept nogil:
    """How many floats `slice_scratch` needs, wherever the memory begins."""
    cdef Scratch s = slice_scratch(d, NULL, N, B)
    cdef size_t shared = max(packed_floats(d, N), logit_floats(d))
    return <size_t> s.head.logits // sizeof(float) + shared + 3 * LINE_BYTES // sizeof(float)
