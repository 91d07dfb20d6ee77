# Declarations of _local.h and what it includes, where everything is explained.
from libc.stdint cimport int64_t

cdef extern from "_packed.h" nogil:
    enum: KB_MOST_UNITS
    enum: KB_MOST_ROWS
    enum: KB_SOUND
    enum: KB_BAD_INPUT
    enum: KB_BAD_TARGET
    enum: KB_BAD_STEPS
    enum: KB_BAD_ACTIVE
    enum: KB_STEPS_SUM
    ctypedef struct kb_batches:
        const int *inputs
        const int *targets
        const int *active
        const int *steps
        int64_t rows
        int64_t instants
        int64_t batches
    ctypedef struct kb_capacity:
        size_t rows
        size_t sentences
    int kb_count_learned(const int *targets, int N)
    kb_capacity kb_capacity_of(kb_batches b)
    int kb_batches_fault(int V, kb_batches b, int64_t *culprit)

cdef extern from "_cifg.h" nogil:
    ctypedef struct kb_dims:
        int V
        int E
        int H
    ctypedef struct kb_params:
        float *emb
    size_t kb_parameter_floats(kb_dims d)
    kb_params kb_slice_params(kb_dims d, float *flat)

cdef extern from "_local.h" nogil:
    ctypedef struct kb_scratch:
        pass
    ctypedef struct kb_rule:
        double rate
        double clip
        double proximal
        double momentum
        double budget_s
        double (*now_s)() noexcept nogil
        const float *correction
    ctypedef struct kb_outcome:
        double loss
        int64_t tokens
        int64_t steps
    kb_scratch kb_slice_scratch(kb_dims d, float *memory, size_t N, size_t B)
    size_t kb_scratch_floats(kb_dims d, size_t N, size_t B)
    size_t kb_run_floats(kb_dims d, size_t N, size_t B, double momentum)
    double kb_batch_gradient(
        kb_dims d, kb_params p, kb_params g, kb_scratch s, const int *inputs, const int *targets, const int *active,
        int T, int N, int learned,
    )
    kb_outcome kb_local_sgd(
        kb_dims d, const float *received, float *delta, float *memory, kb_batches b, kb_rule rule
    )
    void kb_score(
        kb_dims d, kb_params p, float *memory, kb_batches b, int first_word, float *losses, int *ranks
    )

cdef extern from "_clock.h" nogil:
    double kb_monotonic_s()
