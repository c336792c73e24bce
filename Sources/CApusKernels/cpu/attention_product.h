// Register-tiled products of attention: C = A B (+ what C held), with C's tile kept in registers over the whole depth.
// Each element of C is one chain of multiply-adds in the order of the depth, so it does not depend on the tile it falls
// in.

enum {
    /// Rows and vectors of a register tile: 24 accumulators of AVX-512's 32 registers, 12 of the 16 of AVX2 and SSE.
    TILE_ROWS = 6,
    TILE_VECTORS = APUS_LANES == 16 ? 4 : 2,
};

typedef enum product_kind {
    /// C = A B, A (rows, depth).
    PRODUCT_SET,
    /// C[r] = C[r] * keep[r] + A B, A (rows, depth).
    PRODUCT_RESCALE,
    /// C = C + A B, A (rows, depth).
    PRODUCT_ADD,
    /// C = C + A^T B, A (depth, rows).
    PRODUCT_ADD_TRANSPOSED,
} product_kind;

/// A and B start at depth 0; C and B start at the tile's first column.
typedef struct product_tile {
    ptrdiff_t depth;
    const float *a;
    ptrdiff_t a_stride;
    const float *b;
    ptrdiff_t b_stride;
    float *c;
    ptrdiff_t c_stride;
    const float *keep;
} product_tile;

APUS_INLINE void product_constant(product_kind kind, int rows, int vectors, const product_tile *t) {
    vfloat sum[TILE_ROWS][TILE_VECTORS];
#pragma clang loop unroll(full)
    for (int r = 0; r < rows; r++) {
#pragma clang loop unroll(full)
        for (int v = 0; v < vectors; v++) sum[r][v] = (vfloat)0.0f;
    }
    const ptrdiff_t depth = t->depth, a_stride = t->a_stride, b_stride = t->b_stride, c_stride = t->c_stride;
    const float *a = t->a, *b = t->b, *keep = t->keep;
    float *const c_first = t->c;
#pragma clang loop unroll(disable)
    for (ptrdiff_t k = 0; k < depth; k++) {
        vfloat column[TILE_VECTORS];
#pragma clang loop unroll(full)
        for (int v = 0; v < vectors; v++) column[v] = vload(b + k * b_stride + v * APUS_LANES);
#pragma clang loop unroll(full)
        for (int r = 0; r < rows; r++) {
            vfloat x = (vfloat)(kind == PRODUCT_ADD_TRANSPOSED ? a[k * a_stride + r] : a[r * a_stride + k]);
#pragma clang loop unroll(full)
            for (int v = 0; v < vectors; v++) sum[r][v] = vfma(x, column[v], sum[r][v]);
        }
    }
#pragma clang loop unroll(full)
    for (int r = 0; r < rows; r++) {
        float *c = c_first + r * c_stride;
#pragma clang loop unroll(full)
        for (int v = 0; v < vectors; v++, c += APUS_LANES) {
            vfloat s = sum[r][v];
            if (kind == PRODUCT_RESCALE) s = vfma(vload(c), (vfloat)keep[r], s);
            if (kind == PRODUCT_ADD || kind == PRODUCT_ADD_TRANSPOSED) s = vload(c) + s;
            vstore(c, s);
        }
    }
}

#define PRODUCT_CASE(kind, m, n) \
    case m * 8 + n: product_constant(kind, m, n, t); break;
#if APUS_LANES == 16
#define PRODUCT_CASES(kind, m) \
    PRODUCT_CASE(kind, m, 1) PRODUCT_CASE(kind, m, 2) PRODUCT_CASE(kind, m, 3) PRODUCT_CASE(kind, m, 4)
#else
#define PRODUCT_CASES(kind, m) PRODUCT_CASE(kind, m, 1) PRODUCT_CASE(kind, m, 2)
#endif
#define PRODUCT_DEFINE(name, kind) \
    static __attribute__((noinline)) void name(int rows, int vectors, const product_tile *t) { \
        switch (rows * 8 + vectors) { \
            PRODUCT_CASES(kind, 1) PRODUCT_CASES(kind, 2) PRODUCT_CASES(kind, 3) \
            PRODUCT_CASES(kind, 4) PRODUCT_CASES(kind, 5) PRODUCT_CASES(kind, 6) \
        } \
    }

PRODUCT_DEFINE(product_tile_set, PRODUCT_SET)
PRODUCT_DEFINE(product_tile_rescale, PRODUCT_RESCALE)
PRODUCT_DEFINE(product_tile_add, PRODUCT_ADD)
PRODUCT_DEFINE(product_tile_add_transposed, PRODUCT_ADD_TRANSPOSED)

/// Up to TILE_ROWS rows by any number of vectors: walks the columns in register tiles.
APUS_INLINE void product_panel(product_kind kind, int rows, ptrdiff_t vectors, product_tile t) {
    while (vectors > 0) {
        int n = vectors < TILE_VECTORS ? (int)vectors : TILE_VECTORS;
        switch (kind) {
        case PRODUCT_SET: product_tile_set(rows, n, &t); break;
        case PRODUCT_RESCALE: product_tile_rescale(rows, n, &t); break;
        case PRODUCT_ADD: product_tile_add(rows, n, &t); break;
        case PRODUCT_ADD_TRANSPOSED: product_tile_add_transposed(rows, n, &t); break;
        }
        t.b += n * APUS_LANES;
        t.c += n * APUS_LANES;
        vectors -= n;
    }
}
