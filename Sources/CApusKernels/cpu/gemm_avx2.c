#if defined(__x86_64__)

#include "gemm_internal.h"

#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)

#define GEMM_WIDTH 8
#define GEMM_MR 6
#define GEMM_FMA(acc, a, b) __builtin_elementwise_fma(a, b, acc)

#include "gemm_template.h"
#include "gemm_dot.h"

GEMM_TILE(1)
GEMM_TILE(2)
GEMM_TILE(3)
GEMM_TILE(4)
GEMM_TILE(5)
GEMM_TILE(6)

#pragma clang attribute pop

static gemm_tile *const tiles[GEMM_MR] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

/// 6 x 16: twelve of the sixteen registers hold sums.
const gemm_kernel apus_gemm_avx2 = {
    .mr = GEMM_MR, .nr = GEMM_NR, .k_unit = K_UNIT, .pack = pack, .tile = tiles, .finish = finish,
    .dot_rows = GEMM_DOT_ROWS, .dot = dot,
};

#endif
