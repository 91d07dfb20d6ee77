# The output softmax over the tied embedding, for training and for scoring: logits = r emb^T + bias, never all of
# them at once. A tile of up to KB_PANEL rows runs in vector lanes, the words in blocks, so that the elementwise
# work meets a block while it is in the cache. Shapes as in _cifg.pxd; R rows of a tile, a multiple of KB_ALIGN.
from libc.math cimport INFINITY, log
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from _cifg cimport Dims, Params, take
from _gemm cimport KB_ALIGN, KB_PANEL, kb_gemm
from _simd cimport kb_add_bias, kb_exp_block, kb_prefetch, kb_rank_block, kb_scale_block

cdef enum:
    HEAD_WORDS = 48  # of a block: long enough for the products over words, and its logits fit the nearest cache


cdef struct Head:  # of one tile
    float *logits  # (V,R)  word by word, then exponentials, then their gradient
    float *peaks   # (blocks,R) of the logits up to each block
    float *r       # (R,E)  the tile's outputs, rows at a multiple of KB_ALIGN floats
    float *lanes   # (E,R)  the same with rows in lanes
    float *dr      # (E,R)  their gradient
    float *peak    # (R,)
    float *total   # (R,)   sum of exp(logit - peak)
    float *own     # (R,)   the target's logit
    float *scale   # (R,)
    float *factor  # (R,)
    int *row       # (R,)   where each came from
    int *target    # (R,)


cdef inline int padded(int E) noexcept nogil:
    return (E + KB_ALIGN - 1) // KB_ALIGN * KB_ALIGN


cdef inline int blocks(Dims d) noexcept nogil:
    return (d.V + HEAD_WORDS - 1) // HEAD_WORDS


cdef inline size_t logit_floats(Dims d) noexcept nogil:
    return <size_t> d.V * KB_PANEL


cdef inline Head take_head(Dims d, float **memory) noexcept nogil:
    """Without `logits`, which its owner lays over other memory."""
    cdef Head s
    cdef size_t R = KB_PANEL, E = d.E
    s.logits = NULL
    s.peaks = take(memory, blocks(d) * R)
    s.r = take(memory, R * padded(d.E))
    s.lanes, s.dr = take(memory, E * R), take(memory, E * R)
    s.peak, s.total, s.own = take(memory, R), take(memory, R), take(memory, R)
    s.scale, s.factor = take(memory, R), take(memory, R)
    s.row, s.target = <int *> take(memory, R), <int *> take(memory, R)
    return s


cdef inline int tile_rows(int rows) noexcept nogil:
    """R for tiles that share `rows` evenly: a last tile of a few rows would cost as much as a whole vector."""
    cdef int vectors = (max(rows, 1) + KB_ALIGN - 1) // KB_ALIGN, most = KB_PANEL // KB_ALIGN
    cdef int tiles = (vectors + most - 1) // most
    return KB_ALIGN * ((vectors + tiles - 1) // tiles)


cdef inline void fetch(Dims d, const float *array, int width, int start) noexcept nogil:
    """Bring the rows of the block at `start` of an array (V,width) nearer while the block before is worked on: the
    arrays are too large for the second cache, and products at this rate would wait for them."""
    kb_prefetch(array + <size_t> start * width, <int64_t> min(<int> HEAD_WORDS, d.V - start) * width)


cdef inline int next_tile(Dims d, Head s, const float *r, const int *targets, int N, int *at, int R) noexcept nogil:
    """Gather the next at most R rows that have a target, from row at[0] on; returns how many."""
    cdef int rows = 0, i, E = d.E
    cdef size_t stride = padded(d.E)
    while at[0] < N and rows < R:
        if targets[at[0]] >= 0:
            s.row[rows], s.target[rows] = at[0], targets[at[0]]
            memcpy(s.r + rows * stride, r + <size_t> at[0] * E, E * sizeof(float))
            rows += 1
        at[0] += 1
    for i in range(rows, R):
        memset(s.r + i * stride, 0, E * sizeof(float))
        s.target[i] = -1
        s.own[i] = s.scale[i] = 0.0
    return rows


cdef inline void tile_logits(Dims d, Params p, Head s, int R, int rows, bint exponentials) noexcept nogil:
    """Logits of the tile, s.peak and s.own; as exponentials, these, s.peaks and s.total."""
    cdef int block, start, words, i, j, E = d.E
    cdef float *before = s.factor
    for j in range(E):  # r with rows in lanes
        for i in range(R):
            s.lanes[<size_t> j * R + i] = s.r[<size_t> i * padded(E) + j]
    for i in range(R):
        s.peak[i], s.total[i] = -INFINITY, 0.0
    for block in range(blocks(d)):
        start = block * HEAD_WORDS
        words = min(<int> HEAD_WORDS, d.V - start)
        x = s.logits + <size_t> start * R
        fetch(d, p.emb, E, start + words)
        kb_gemm(R, words, E, s.lanes, R, 0, p.emb + <size_t> start * E, 1, E, NULL, 0, x, R)
        memcpy(before, s.peak, R * sizeof(float))
        kb_add_bias(words, R, x, p.bias + start, s.peak)
        for i in range(rows):
            if start <= s.target[i] < start + words:
                s.own[i] = x[<size_t> (s.target[i] - start) * R + i]
        if exponentials:
            kb_exp_block(words, R, x, before, s.peak, s.total)
            memcpy(s.peaks + <size_t> block * R, s.peak, R * sizeof(float))


cdef inline double head_forward_backward(
    Dims d, Params p, Params g, Head s, const float *r, float *dr, const int *targets, int N, int learned
) noexcept nogil:
    """Cross-entropy over all V words; the loss is the sum over the `learned` rows, those with a target.

    r (N,E). Writes d(mean loss)/dr to dr (N,E) and begins the gradient: g.emb and g.bias are set (not added to).
    """
    cdef int at = 0, R = tile_rows(learned), rows, block, start, words, i, j, E = d.E
    cdef double loss = 0.0
    cdef float share = 1.0 / learned if learned > 0 else 0.0
    cdef bint first = True
    memset(dr, 0, <size_t> N * E * sizeof(float))
    memset(g.bias, 0, <size_t> d.V * sizeof(float))
    if learned == 0:
        memset(g.emb, 0, <size_t> d.V * E * sizeof(float))
    while True:
        rows = next_tile(d, s, r, targets, N, &at, R)
        if rows == 0:
            return loss
        tile_logits(d, p, s, R, rows, True)
        for i in range(rows):
            loss += log(s.total[i]) - (s.own[i] - s.peak[i])
            s.scale[i] = share / s.total[i]
        memset(s.dr, 0, <size_t> E * R * sizeof(float))
        for block in range(blocks(d)):
            start = block * HEAD_WORDS
            words = min(<int> HEAD_WORDS, d.V - start)
            x, emb, into = s.logits + <size_t> start * R, p.emb + <size_t> start * E, g.emb + <size_t> start * E
            kb_scale_block(
                words, R, x, s.peaks + <size_t> block * R, s.peak, s.scale, s.factor, g.bias + start
            )
            for i in range(rows):
                if start <= s.target[i] < start + words:
                    x[<size_t> (s.target[i] - start) * R + i] -= share
                    g.bias[s.target[i]] -= share
            fetch(d, s.logits, R, start + words)
            fetch(d, p.emb, E, start + words)
            kb_gemm(R, E, words, x, R, 0, emb, E, 1, s.dr, R, s.dr, R)
            fetch(d, g.emb, E, start + words)
            kb_gemm(E, words, rows, s.r, padded(E), KB_PANEL, x, 1, R, NULL if first else into, E, into, E)
        first = False
        for i in range(rows):
            for j in range(E):
                dr[<size_t> s.row[i] * E + j] = s.dr[<size_t> j * R + i]


cdef inline void head_score(
    Dims d, Params p, Head s, const float *r, const int *targets, int N, int first_word, float *losses, int *ranks
) noexcept nogil:
    """Per row: -log p(target) and how many suggestible words score above it; target -1 gives 0 and -1."""
    cdef int at = 0, learned = 0, R, rows, block, start, words, i
    cdef int *above = <int *> s.scale
    for i in range(N):
        losses[i], ranks[i] = 0.0, -1
        learned += targets[i] >= 0
    R = tile_rows(learned)
    while True:
        rows = next_tile(d, s, r, targets, N, &at, R)
        if rows == 0:
            return
        tile_logits(d, p, s, R, rows, False)
        memset(above, 0, R * sizeof(int))
        for block in range(blocks(d)):
            start = block * HEAD_WORDS
            words = min(<int> HEAD_WORDS, d.V - start)
            x = s.logits + <size_t> start * R
            kb_rank_block(start, words, R, x, s.own, s.target, first_word, above)
            kb_exp_block(words, R, x, s.peak, s.peak, s.total)
        for i in range(rows):
            losses[s.row[i]] = log(s.total[i]) - (s.own[i] - s.peak[i])
            ranks[s.row[i]] = above[i]
