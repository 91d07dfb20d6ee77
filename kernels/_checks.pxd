# What must hold of a model and of packed batches before a kernel may touch memory by them.
from libc.stdint cimport int64_t

from _local cimport (
    KB_BAD_ACTIVE, KB_BAD_INPUT, KB_BAD_STEPS, KB_BAD_TARGET, KB_MOST_ROWS, KB_MOST_UNITS, KB_SOUND, KB_STEPS_SUM,
    kb_batches, kb_batches_fault, kb_dims, kb_parameter_floats,
)


cdef inline object model_error(kb_dims d, Py_ssize_t size):
    """None, or the one line that says why `size` parameters are not a model of these dimensions."""
    if d.V < 1 or d.E < 1 or d.H < 1:
        return f"vocab, embed and hidden must be >= 1, got {d.V}, {d.E} and {d.H}"
    if max(d.V, d.E, d.H) > KB_MOST_UNITS:
        return f"vocab, embed and hidden must be <= 2^28, got {d.V}, {d.E} and {d.H}"
    if <size_t> size != kb_parameter_floats(d):
        return f"params must hold {kb_parameter_floats(d)} numbers, got {size}"
    return None


cdef inline object packed_error(
    int V, const int[::1] inputs, const int[::1] targets, const int[::1] active, const int[::1] steps
):
    """None, or the one line that says what is wrong with the packed batches."""
    cdef int64_t culprit = 0
    if targets.shape[0] != inputs.shape[0]:
        return f"inputs and targets must have one length, got {inputs.shape[0]} and {targets.shape[0]}"
    if inputs.shape[0] > KB_MOST_ROWS:
        return f"inputs must hold fewer than 2^31 rows, got {inputs.shape[0]}"
    cdef int fault = kb_batches_fault(V, batches_of(inputs, targets, active, steps), &culprit)
    if fault == KB_SOUND:
        return None
    if fault == KB_BAD_INPUT:
        return f"inputs must lie in [0, {V}), got {culprit}"
    if fault == KB_BAD_TARGET:
        return f"targets must lie in [-1, {V}), got {culprit}"
    if fault == KB_BAD_STEPS:
        return f"steps must be >= 1 and sum to the length of active ({active.shape[0]}), got {culprit}"
    if fault == KB_BAD_ACTIVE:
        return f"active must be >= 1 and never increase within a batch, got {culprit}"
    if fault == KB_STEPS_SUM:
        return f"steps must be >= 1 and sum to the length of active ({active.shape[0]}), they sum to {culprit}"
    return f"active must sum to the number of rows ({inputs.shape[0]}), got {culprit}"


cdef inline kb_batches batches_of(
    const int[::1] inputs, const int[::1] targets, const int[::1] active, const int[::1] steps
) noexcept:
    """The batches without a copy; an empty array has no address."""
    cdef kb_batches b
    b.rows, b.instants, b.batches = inputs.shape[0], active.shape[0], steps.shape[0]
    b.inputs = &inputs[0] if b.rows > 0 else NULL
    b.targets = &targets[0] if b.rows > 0 else NULL
    b.active = &active[0] if b.instants > 0 else NULL
    b.steps = &steps[0] if b.batches > 0 else NULL
    return b
