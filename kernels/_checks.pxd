# What must hold of a model and of packed batches before a kernel may touch memory by them.
from _cifg cimport Dims, parameter_floats

cdef enum:
    MOST_UNITS = 1 << 28  # of V, E and H: 3 H fits an int, and the number of parameters 64 bits
    MOST_ROWS = 0x7FFFFFFF


cdef inline object model_error(Dims d, Py_ssize_t size):
    """None, or the one line that says why `size` parameters are not a model of these dimensions."""
    if d.V < 1 or d.E < 1 or d.H < 1:
        return f"vocab, embed and hidden must be >= 1, got {d.V}, {d.E} and {d.H}"
    if max(d.V, d.E, d.H) > MOST_UNITS:
        return f"vocab, embed and hidden must be <= 2^28, got {d.V}, {d.E} and {d.H}"
    if <size_t> size != parameter_floats(d):
        return f"params must hold {parameter_floats(d)} numbers, got {size}"
    return None


cdef inline object packed_error(
    int V, const int[::1] inputs, const int[::1] targets, const int[::1] active, const int[::1] steps
):
    """None, or the one line that says what is wrong with the packed batches."""
    cdef Py_ssize_t i, t, k, rows = 0, step = 0
    if targets.shape[0] != inputs.shape[0]:
        return f"inputs and targets must have one length, got {inputs.shape[0]} and {targets.shape[0]}"
    if inputs.shape[0] > MOST_ROWS:
        return f"inputs must hold fewer than 2^31 rows, got {inputs.shape[0]}"
    for i in range(inputs.shape[0]):
        if inputs[i] < 0 or inputs[i] >= V:
            return f"inputs must lie in [0, {V}), got {inputs[i]}"
        if targets[i] < -1 or targets[i] >= V:
            return f"targets must lie in [-1, {V}), got {targets[i]}"
    for k in range(steps.shape[0]):
        if steps[k] < 1 or step + steps[k] > active.shape[0]:
            return f"steps must be >= 1 and sum to the length of active ({active.shape[0]}), got {steps[k]}"
        for t in range(steps[k]):
            if active[step + t] < 1 or (t > 0 and active[step + t] > active[step + t - 1]):
                return f"active must be >= 1 and never increase within a batch, got {active[step + t]}"
            rows += active[step + t]
        step += steps[k]
    if step != active.shape[0]:
        return f"steps must be >= 1 and sum to the length of active ({active.shape[0]}), they sum to {step}"
    if rows != inputs.shape[0]:
        return f"active must sum to the number of rows ({inputs.shape[0]}), got {rows}"
    return None
