# Declarations of accumulate_simd.h, where the loops are explained.
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t

cdef extern from "accumulate_simd.h" nogil:
    void kb_accumulate_int8(
        int64_t n, int block, int add, double weight, const int8_t *q, const float *scales, float *acc)
    void kb_accumulate_4bit(
        int64_t n, int block, int add, double weight, const uint8_t *packed, const float *scales, float *acc)
    void kb_accumulate_2bit(
        int64_t n, int block, int add, double weight, const uint8_t *packed, const float *scales, float *acc)
    void kb_accumulate_1bit(
        int64_t n, int block, int add, double weight, const uint8_t *packed, const float *scales, float *acc)
    void kb_accumulate_float32(int64_t n, float weight, const float *x, float *acc)
    void kb_accumulate_runs(
        int64_t n, int64_t k, float weight, const int32_t *changes, const float *values, float *acc)
    void kb_accumulate_sparse(
        int64_t k, float weight, const int32_t *indices, const float *values, float *acc)
    void kb_accumulate_sparse_int8(
        int64_t k, int block, double weight, const int32_t *indices, const int8_t *q, const float *scales,
        float *acc)
    void kb_accumulate_rows(
        int64_t count, int64_t width, float weight, const int32_t *rows, const float *values, float *acc)
