/* kb_gemm for one instruction set; included by _gemm.h, which sets KB_ISA, KB_TARGET, KB_LANES, KB_WIDTH and
 * KB_BLOCK and explains the arguments. */

#if KB_LANES == 1
typedef float KB_ISA(kb_vector);
#else
typedef float KB_ISA(kb_vector) __attribute__((vector_size(4 * KB_LANES), aligned(4), may_alias));
#endif

/* One block: `vectors` of lanes times `rows` of c. Both are constants where it is inlined, so that the loops
 * over them unroll and `sum` lives in registers. */
KB_TARGET KB_INLINE void KB_ISA(kb_block)(const int vectors, const int rows, int K, const float *restrict panel,
                                          int64_t stride, const float *restrict b, int64_t bk, int64_t bj,
                                          const float *from, int64_t ldf, float *c, int64_t ldc) {
    KB_ISA(kb_vector) sum[12][KB_WIDTH];
    if (from) {
        KB_UNROLL("GCC unroll 12")
        for (int j = 0; j < rows; j++)
            KB_UNROLL("GCC unroll 4")
            for (int i = 0; i < vectors; i++)
                sum[j][i] = *(const KB_ISA(kb_vector) *)(from + j * ldf + i * KB_LANES);
    } else {
        KB_UNROLL("GCC unroll 12")
        for (int j = 0; j < rows; j++)
            KB_UNROLL("GCC unroll 4")
            for (int i = 0; i < vectors; i++) sum[j][i] = (KB_ISA(kb_vector)){0};
    }
    for (int k = 0; k < K; k++, panel += stride, b += bk) {
        KB_ISA(kb_vector) lanes[KB_WIDTH];
        KB_UNROLL("GCC unroll 4")
        for (int i = 0; i < vectors; i++) lanes[i] = *(const KB_ISA(kb_vector) *)(panel + i * KB_LANES);
        KB_UNROLL("GCC unroll 12")
        for (int j = 0; j < rows; j++)
            KB_UNROLL("GCC unroll 4")
            for (int i = 0; i < vectors; i++) sum[j][i] += lanes[i] * b[j * bj];
    }
    KB_UNROLL("GCC unroll 12")
    for (int j = 0; j < rows; j++)
        KB_UNROLL("GCC unroll 4")
        for (int i = 0; i < vectors; i++) *(KB_ISA(kb_vector) *)(c + j * ldc + i * KB_LANES) = sum[j][i];
}

/* As many rows of c as a block with `vectors` can take at once, at most N; returns how many it did. */
KB_TARGET static int KB_ISA(kb_rows)(int vectors, int N, int K, const float *panel, int64_t stride, const float *b,
                                     int64_t bk, int64_t bj, const float *from, int64_t ldf, float *c, int64_t ldc) {
#define KB_TRY(v, r)                                                                              \
    if (v <= KB_WIDTH && v * r <= KB_BLOCK && vectors == v && N >= r) {                           \
        KB_ISA(kb_block)(v <= KB_WIDTH ? v : 1, r, K, panel, stride, b, bk, bj, from, ldf, c, ldc); \
        return r;                                                                                 \
    }
    KB_TRY(4, 6) KB_TRY(4, 4) KB_TRY(4, 2) KB_TRY(4, 1)
    KB_TRY(3, 8) KB_TRY(3, 4) KB_TRY(3, 2) KB_TRY(3, 1)
    KB_TRY(2, 12) KB_TRY(2, 6) KB_TRY(2, 4) KB_TRY(2, 2) KB_TRY(2, 1)
    KB_TRY(1, 12) KB_TRY(1, 8) KB_TRY(1, 4) KB_TRY(1, 2) KB_TRY(1, 1)
#undef KB_TRY
    return N;
}

KB_TARGET static void KB_ISA(kb_gemm)(int M, int N, int K, const float *panel, int64_t stride, int64_t next,
                                      const float *b, int64_t bk, int64_t bj, const float *from, int64_t ldf, float *c,
                                      int64_t ldc) {
    float edge_from[12 * KB_WIDTH * KB_LANES], edge[12 * KB_WIDTH * KB_LANES];
    for (int m = 0; m < M;) {
        const int within = m % KB_PANEL, left = (M - m < KB_PANEL - within ? M - m : KB_PANEL - within);
        const int needed = (left + KB_LANES - 1) / KB_LANES, vectors = needed < KB_WIDTH ? needed : KB_WIDTH;
        const int width = vectors * KB_LANES, valid = left < width ? left : width;
        const float *lanes = panel + m / KB_PANEL * next + within, *begin = from ? from + m : from;
        for (int j = 0; j < N;) {
            if (valid == width) {
                j += KB_ISA(kb_rows)(vectors, N - j, K, lanes, stride, b + j * bj, bk, bj,
                                     begin ? begin + j * ldf : begin, ldf, c + j * ldc + m, ldc);
                continue;
            }
            /* The last lanes of a row: through a buffer, so that nothing beside c is written or from read. */
            const int rows = N - j < 12 ? N - j : 12;
            if (begin) {
                memset(edge_from, 0, sizeof edge_from);
                for (int r = 0; r < rows; r++)
                    memcpy(edge_from + r * width, begin + (j + r) * ldf, sizeof(float) * (size_t)valid);
            }
            const int done = KB_ISA(kb_rows)(vectors, rows, K, lanes, stride, b + j * bj, bk, bj,
                                             begin ? edge_from : begin, width, edge, width);
            for (int r = 0; r < done; r++)
                memcpy(c + (j + r) * ldc + m, edge + r * width, sizeof(float) * (size_t)valid);
            j += done;
        }
        m += valid;
    }
}

#undef KB_ISA
#undef KB_TARGET
#undef KB_LANES
#undef KB_WIDTH
#undef KB_BLOCK
