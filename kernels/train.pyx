"""A client's whole local run in one call that holds no interpreter lock.

Mini-batch SGD with the gradient's global norm clipped (Pascanu et al. 2013, arXiv 1211.5063). Two Python
threads that call this train two phones on two cores.
"""

import threading

import numpy as np

from libc.math cimport INFINITY

from _checks cimport batches_of, model_error, packed_error
from _local cimport (
    kb_batch_gradient, kb_batches, kb_capacity, kb_capacity_of, kb_count_learned, kb_dims, kb_local_sgd,
    kb_monotonic_s, kb_outcome, kb_parameter_floats, kb_rule, kb_run_floats, kb_scratch_floats, kb_slice_params,
    kb_slice_scratch,
)


cdef kb_dims dims_of(int vocab, int embed, int hidden) noexcept nogil:
    cdef kb_dims d
    d.V, d.E, d.H = vocab, embed, hidden
    return d


def parameter_count(int vocab, int embed, int hidden) -> int:
    """P for V words, E embedding, H cells."""
    return kb_parameter_floats(dims_of(vocab, embed, hidden))


def scratch_bytes(
    int vocab, int embed, int hidden, *, size_t rows, size_t sentences, double momentum=0.0
) -> int:
    """Bytes of a `Workspace` after a local run: gradient, velocity if any, activations, a tile of logits.

    rows and sentences are those of the largest batch. The parameters received and the delta come on top.
    """
    return sizeof(float) * kb_run_floats(dims_of(vocab, embed, hidden), rows, sentences, momentum)


cdef class Workspace:
    """Scratch memory that grows to what a run needs and is reused by the next; one a thread, not shared.

    Fresh large buffers cost page faults on every run: torch loses 13 % of this very work to them.
    """

    cdef float[::1] memory
    cdef object lock  # held by the run in progress

    def __cinit__(self):
        self.memory = np.empty(0, np.float32)
        self.lock = threading.Lock()

    cdef float *reserve(self, size_t floats):
        if floats > <size_t> self.memory.shape[0]:
            self.memory = None  # freed before more is asked for
            self.memory = np.empty(floats, np.float32)  # numpy asks for huge pages: they spare a tenth of the time
        return &self.memory[0]

    @property
    def bytes(self) -> int:
        """Bytes held now."""
        return self.memory.nbytes


def local_sgd(
    const float[::1] params, *, int vocab, int embed, int hidden,
    const int[::1] inputs, const int[::1] targets, const int[::1] active, const int[::1] steps,
    double learning_rate, double clip_norm=0.0, double proximal=0.0, const float[::1] correction=None,
    double momentum=0.0, double time_budget_s=0.0, Workspace workspace=None,
):
    """Train a copy of `params` on packed batches, one SGD step a batch that has a learned target.

    params float32 (P,) is not changed. inputs, targets, active, steps are int32 as in `kbdfl.text.PackedBatches`.
    Each step follows the gradient g of the batch's mean loss per learned target; clip_norm > 0 bounds its global
    L2 norm. With x the trained copy, v zero at first:

        v <- momentum v + g + proximal (x - params) + correction,  x <- x - learning_rate v

    proximal >= 0 is FedProx's mu (Li et al. 2018, arXiv 1812.06127), correction float32 (P,) the difference of
    SCAFFOLD's control variates, c - c_i (Karimireddy et al. 2019, arXiv 1910.06378), momentum in [0, 1) the heavy
    ball's. With time_budget_s > 0 the run stops before the first batch that would begin after that many seconds.
    NaN and infinity pass through the arithmetic into the delta and the loss. Returns (delta float32 (P,) = trained
    - received, summed loss, learned targets, steps done). Raises ValueError when an index or a length would lead
    outside an array, a number is out of its range, or the workspace is in use.
    """
    cdef kb_dims d = dims_of(vocab, embed, hidden)
    error = model_error(d, params.shape[0]) or packed_error(vocab, inputs, targets, active, steps)
    if error is None and correction is not None and correction.shape[0] != params.shape[0]:
        error = f"correction must hold {params.shape[0]} numbers as params does, got {correction.shape[0]}"
    if error is None and not -INFINITY < learning_rate < INFINITY:
        error = f"learning_rate must be finite, got {learning_rate}"
    if error is None and not clip_norm >= 0:
        error = f"clip_norm must be >= 0, got {clip_norm}"
    if error is None and not 0 <= proximal < INFINITY:
        error = f"proximal must be >= 0 and finite, got {proximal}"
    if error is None and not 0 <= momentum < 1:
        error = f"momentum must lie in [0, 1), got {momentum}"
    if error is not None:
        raise ValueError(error)
    cdef kb_batches batches = batches_of(inputs, targets, active, steps)
    cdef kb_capacity most = kb_capacity_of(batches)
    if most.rows == 0:
        return np.zeros(params.shape[0], np.float32), 0.0, 0, 0
    delta = np.empty(params.shape[0], np.float32)
    cdef float[::1] out = delta
    cdef kb_outcome outcome
    cdef float *memory
    cdef kb_rule rule
    rule.rate, rule.clip, rule.proximal, rule.momentum = learning_rate, clip_norm, proximal, momentum
    rule.budget_s, rule.now_s = time_budget_s, kb_monotonic_s
    rule.correction = NULL
    if correction is not None:
        rule.correction = &correction[0]
    if workspace is None:
        workspace = Workspace()
    if not workspace.lock.acquire(False):
        raise ValueError("a Workspace must serve one run at a time, this one is in use")
    try:
        memory = workspace.reserve(kb_run_floats(d, most.rows, most.sentences, momentum))
        with nogil:
            outcome = kb_local_sgd(d, &params[0], &out[0], memory, batches, rule)
    finally:
        workspace.lock.release()
    return delta, outcome.loss, outcome.tokens, outcome.steps


def gradient(
    const float[::1] params, *, int vocab, int embed, int hidden,
    const int[::1] inputs, const int[::1] targets, const int[::1] active,
):
    """The gradient float32 (P,) of one packed batch's mean loss, and that mean loss.

    Arrays as in `local_sgd`; active is the batch's own. Raises ValueError as `local_sgd` does.
    """
    cdef kb_dims d = dims_of(vocab, embed, hidden)
    steps = np.array([active.shape[0]], np.int32)
    error = model_error(d, params.shape[0]) or packed_error(vocab, inputs, targets, active, steps)
    if error is not None:
        raise ValueError(error)
    cdef int T = active.shape[0], N = inputs.shape[0], learned
    result = np.empty(params.shape[0], np.float32)
    scratch = np.empty(kb_scratch_floats(d, N, active[0]), np.float32)
    cdef float[::1] out = result, work = scratch
    cdef double loss
    with nogil:
        learned = kb_count_learned(&targets[0], N)
        loss = kb_batch_gradient(
            d, kb_slice_params(d, <float *> &params[0]), kb_slice_params(d, &out[0]),
            kb_slice_scratch(d, &work[0], N, active[0]), &inputs[0], &targets[0], &active[0], T, N, learned,
        )
    return result, loss / max(learned, 1)
