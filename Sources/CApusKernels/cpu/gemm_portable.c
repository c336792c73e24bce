#define GEMM_WIDTH 4
#define GEMM_MR 4
#define GEMM_FMA(acc, a, b) ((acc) + (a) * (b))

#include "gemm_template.h"

GEMM_TILE(1)
GEMM_TILE(2)
GEMM_TILE(3)
GEMM_TILE(4)

static gemm_tile *const tiles[GEMM_MR] = {tile_1, tile_2, tile_3, tile_4};

/// Any CPU with four-lane vectors.
const gemm_kernel apus_gemm_portable = {
    .mr = GEMM_MR, .nr = GEMM_NR, .k_unit = K_UNIT, .pack = pack, .tile = tiles, .finish = finish,
};
