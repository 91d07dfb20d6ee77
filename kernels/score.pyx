"""Forward only: how well a model predicts held-out words, in one call that holds no interpreter lock."""

import numpy as np

from _checks cimport batches_of, model_error, packed_error
from _local cimport (
    kb_batches, kb_capacity, kb_capacity_of, kb_dims, kb_score, kb_scratch_floats, kb_slice_params
)


def score(
    const float[::1] params, *, int vocab, int embed, int hidden,
    const int[::1] inputs, const int[::1] targets, const int[::1] active, const int[::1] steps, int first_word,
):
    """Losses and ranks of every row of packed batches.

    params float32 (P,); inputs, targets, active, steps int32 as in `kbdfl.text.PackedBatches`. Words with ids
    below first_word are never suggested and do not count in a rank. Returns (losses float32 (N,) in nats,
    ranks int32 (N,)): rank 0 means that the target was the first suggestion, ties go to the smaller id, and
    where a logit is NaN nothing is well predicted; a row whose target is -1 has loss 0 and rank -1. Raises
    ValueError when an index or a length would lead outside an array.
    """
    cdef kb_dims d
    d.V, d.E, d.H = vocab, embed, hidden
    error = model_error(d, params.shape[0]) or packed_error(vocab, inputs, targets, active, steps)
    if error is None and not 0 <= first_word <= vocab:
        error = f"first_word must lie in [0, {vocab}], got {first_word}"
    if error is not None:
        raise ValueError(error)
    losses, ranks = np.zeros(inputs.shape[0], np.float32), np.zeros(inputs.shape[0], np.int32)
    if inputs.shape[0] == 0:
        return losses, ranks
    cdef float[::1] loss_view = losses
    cdef int[::1] rank_view = ranks
    cdef kb_batches batches = batches_of(inputs, targets, active, steps)
    cdef kb_capacity most = kb_capacity_of(batches)
    scratch = np.empty(kb_scratch_floats(d, most.rows, most.sentences), np.float32)
    cdef float[::1] work = scratch
    with nogil:  # params are only read
        kb_score(
            d, kb_slice_params(d, <float *> &params[0]), &work[0], batches, first_word, &loss_view[0], &rank_view[0]
        )
    return losses, ranks
