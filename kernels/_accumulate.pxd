# Declarations of accumulate_simd.h, where the loops are explained.
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t

cdef extern from "accumulate_simd.h" nogil:
    void kb_levels_int8(
        int64_t n, int block, double weight, const int8_t *q, const float *scales, float *out, double *acc)
    void kb_levels_4bit(
        int64_t n, int block, double weight, const uint8_t *packed, const float *scales, float *out, double *acc)
    void kb_levels_2bit(
        int64_t n, int block, double weight, const uint8_t *packed, const float *scales, float *out, double *acc)
    void kb_levels_1bit(
        int64_t n, int block, double weight, const uint8_t *packed, const float *scales, float *out, double *acc)
    void kb_accumulate_float32(int64_t n, double weight, const float *x, double *acc)
    void kb_accumulate_runs(
        int64_t n, int64_t k, double weight, const int32_t *changes, const float *values, double *acc)
    void kb_accumulate_sparse(
        int64_t k, double weight, const int32_t *indices, const float *values, double *acc)
    void kb_accumulate_sparse_int8(
        int64_t k, int block, double weight, const int32_t *indices, const int8_t *q, const float *scales,
        double *acc)
    void kb_accumulate_rows(
        int64_t count, int64_t width, double weight, const int32_t *rows, const float *values, double *acc)
