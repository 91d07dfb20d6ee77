"""A client's whole local run in one call that holds no interpreter lock.

Mini-batch SGD with the gradient's global norm clipped (Pascanu et al. 2013, arXiv 1211.5063). Two Python
threads that call this train two phones on two cores.
"""

from libc.math cimport sqrt
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

import numpy as np

from _cifg cimport (
    Dims, Params, Scratch, cifg_backward, cifg_forward, head_forward_backward, scratch_floats, slice_params,
    slice_scratch,
)
from _checks cimport packed_error
from _simd cimport kb_descend, kb_subtract, kb_sum_squares


cdef extern from "time.h" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int timespec_get(timespec *ts, int base)
    int TIME_UTC


cdef inline double now() noexcept nogil:
    cdef timespec ts
    timespec_get(&ts, TIME_UTC)
    return ts.tv_sec + 1e-9 * ts.tv_nsec


cdef struct Outcome:
    double loss      # summed over the learned targets of the steps done
    long long tokens  # learned targets of the steps done
    int steps


cdef inline int count_learned(const int *targets, int N) noexcept nogil:
    cdef int i, learned = 0
    for i in range(N):
        learned += targets[i] >= 0
    return learned


cdef double batch_gradient(
    Dims d, Params p, Params g, Scratch s, const int *inputs, const int *targets, const int *active, int T, int N,
    int learned,
) noexcept nogil:
    """The gradient of the batch's mean loss into g; returns the summed loss."""
    cdef double loss
    cifg_forward(d, p, s, inputs, active, T, N)
    loss = head_forward_backward(d, p, g, s, targets, N, learned)
    cifg_backward(d, p, g, s, inputs, active, T, N)
    return loss


cdef Outcome run(
    Dims d, float *params, float *gradient, float *scratch, const int *inputs, const int *targets, const int *active,
    const int *steps, int K, size_t max_rows, size_t max_batch, size_t P, double rate, double clip, double budget_s,
) noexcept nogil:
    cdef Params p = slice_params(d, params), g = slice_params(d, gradient)
    cdef Scratch s = slice_scratch(d, scratch, max_rows, max_batch)
    cdef Outcome outcome
    cdef int k, t, N, learned
    cdef double norm, step, started = now()
    outcome.loss = 0.0
    outcome.tokens = 0
    outcome.steps = 0
    for k in range(K):
        if budget_s > 0 and now() - started > budget_s:
            break
        N = 0
        for t in range(steps[k]):
            N += active[t]
        learned = count_learned(targets, N)
        if learned > 0:
            outcome.loss += batch_gradient(d, p, g, s, inputs, targets, active, steps[k], N, learned)
            step = rate
            if clip > 0:
                norm = sqrt(kb_sum_squares(P, gradient))
                if norm > clip:
                    step = rate * clip / norm
            kb_descend(P, step, gradient, params)
        outcome.tokens += learned
        outcome.steps += 1
        inputs += N
        targets += N
        active += steps[k]
    return outcome


cdef tuple capacity(const int[::1] active, const int[::1] steps):
    """(rows, sentences) of the largest batch."""
    cdef Py_ssize_t k, t, at = 0
    cdef size_t rows, most_rows = 0, most_sentences = 0
    for k in range(steps.shape[0]):
        rows = 0
        for t in range(steps[k]):
            rows += active[at + t]
        most_rows = max(most_rows, rows)
        most_sentences = max(most_sentences, <size_t> active[at])
        at += steps[k]
    return most_rows, most_sentences


def parameter_count(vocab: int, embed: int, hidden: int) -> int:
    """P for V words, E embedding, H cells."""
    return vocab * embed + 6 * embed * hidden + 3 * hidden + hidden * embed + vocab


def scratch_bytes(vocab: int, embed: int, hidden: int, *, rows: int, sentences: int) -> int:
    """Bytes that a local run needs beside the parameters it received: working copy, gradient and activations."""
    cdef Dims d
    d.V, d.E, d.H = vocab, embed, hidden
    return 4 * (2 * parameter_count(vocab, embed, hidden) + scratch_floats(d, rows, sentences))


cdef class Workspace:
    """Scratch memory that grows to what a run needs and is reused by the next; one a thread, not shared.

    Fresh large buffers cost page faults on every run: torch loses 13 % of this very work to them.
    """

    cdef float *memory
    cdef size_t floats
    cdef bint busy

    def __cinit__(self):
        self.memory = NULL
        self.floats = 0
        self.busy = False

    def __dealloc__(self):
        free(self.memory)

    cdef int reserve(self, size_t floats) except -1:
        if floats > self.floats:
            free(self.memory)
            self.floats = 0
            self.memory = <float *> malloc(floats * sizeof(float))
            if self.memory == NULL:
                raise MemoryError(f"a local run needs {4 * floats} bytes of scratch memory")
            self.floats = floats
        return 0

    @property
    def bytes(self) -> int:
        """Bytes held now."""
        return 4 * self.floats


def local_sgd(
    const float[::1] params, *, int vocab, int embed, int hidden,
    const int[::1] inputs, const int[::1] targets, const int[::1] active, const int[::1] steps,
    double learning_rate, double clip_norm=0.0, double time_budget_s=0.0, Workspace workspace=None,
):
    """Train a copy of `params` on packed batches, one SGD step a batch.

    params float32 (P,) is not changed. inputs, targets, active, steps are int32 as in `kbdfl.text.PackedBatches`.
    Each step follows the gradient of the batch's mean loss per learned target; clip_norm > 0 bounds its global
    L2 norm. With time_budget_s > 0 the run stops before the first batch that would begin after that many
    seconds. Returns (delta float32 (P,) = trained - received, summed loss, learned targets, steps done).
    Raises ValueError when an index or a length would lead outside an array.
    """
    cdef Dims d
    d.V, d.E, d.H = vocab, embed, hidden
    cdef size_t P = parameter_count(vocab, embed, hidden)
    if <size_t> params.shape[0] != P:
        raise ValueError(f"params must hold {P} numbers, got {params.shape[0]}")
    error = packed_error(vocab, inputs, targets, active, steps)
    if error is not None:
        raise ValueError(error)
    delta = np.empty(P, np.float32)
    cdef float[::1] out = delta
    cdef Outcome outcome
    cdef size_t rows, sentences
    rows, sentences = capacity(active, steps)
    if rows == 0:
        delta[:] = 0
        return delta, 0.0, 0, 0
    if workspace is None:
        workspace = Workspace()
    if workspace.busy:
        raise ValueError("a Workspace serves one thread at a time")
    workspace.busy = True
    try:
        workspace.reserve(P + scratch_floats(d, rows, sentences))
        with nogil:
            memcpy(&out[0], &params[0], P * sizeof(float))
            outcome = run(
                d, &out[0], workspace.memory, workspace.memory + P, &inputs[0], &targets[0], &active[0], &steps[0],
                <int> steps.shape[0], rows, sentences, P, learning_rate, clip_norm, time_budget_s,
            )
            kb_subtract(P, &out[0], &params[0], &out[0])
    finally:
        workspace.busy = False
    return delta, outcome.loss, outcome.tokens, outcome.steps


def gradient(
    const float[::1] params, *, int vocab, int embed, int hidden,
    const int[::1] inputs, const int[::1] targets, const int[::1] active,
):
    """The gradient float32 (P,) of one packed batch's mean loss, and that mean loss."""
    cdef Dims d
    d.V, d.E, d.H = vocab, embed, hidden
    cdef size_t P = parameter_count(vocab, embed, hidden)
    cdef int T = active.shape[0], N = inputs.shape[0], learned
    steps = np.array([T], np.int32)
    if <size_t> params.shape[0] != P:
        raise ValueError(f"params must hold {P} numbers, got {params.shape[0]}")
    error = packed_error(vocab, inputs, targets, active, steps)
    if error is not None:
        raise ValueError(error)
    result = np.empty(P, np.float32)
    scratch = np.empty(scratch_floats(d, N, active[0]), np.float32)
    cdef float[::1] out = result, work = scratch
    cdef double loss
    with nogil:
        learned = count_learned(&targets[0], N)
        loss = batch_gradient(
            d, slice_params(d, <float *> &params[0]), slice_params(d, &out[0]),
            slice_scratch(d, &work[0], N, active[0]), &inputs[0], &targets[0], &active[0], T, N, learned,
        )
    return result, loss / max(learned, 1)
