#if defined(__x86_64__)

#include <immintrin.h>

#include "gemm_internal.h"

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma"))),             \
                             apply_to = function)

#define GEMM_WIDTH 16
#define GEMM_MR 14
#define GEMM_PAIRS
// Overridable, so that packing can be tested on a CPU without the instruction.
#ifndef GEMM_FMA
#define GEMM_FMA(acc, a, b) ((vec)_mm512_dpbf16_ps((__m512)(acc), (__m512bh)(a), (__m512bh)(b)))
#endif

#include "gemm_template.h"

GEMM_TILE(1)
GEMM_TILE(2)
GEMM_TILE(3)
GEMM_TILE(4)
GEMM_TILE(5)
GEMM_TILE(6)
GEMM_TILE(7)
GEMM_TILE(8)
GEMM_TILE(9)
GEMM_TILE(10)
GEMM_TILE(11)
GEMM_TILE(12)
GEMM_TILE(13)
GEMM_TILE(14)

#pragma clang attribute pop

static gemm_tile *const tiles[GEMM_MR] = {tile_1, tile_2, tile_3,  tile_4,  tile_5,  tile_6,  tile_7,
                                          tile_8, tile_9, tile_10, tile_11, tile_12, tile_13, tile_14};

/// 14 x 32 with both operands in bf16: an instruction adds two products of consecutive k to each f32 sum.
const gemm_kernel apus_gemm_avx512_bf16 = {
    .mr = GEMM_MR, .nr = GEMM_NR, .k_unit = K_UNIT, .pack = pack, .tile = tiles, .finish = finish,
};

#endif
