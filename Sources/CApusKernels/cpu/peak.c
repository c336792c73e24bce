#include "apus_peak.h"

#include "apus_cpu.h"

// Twelve sums and two factors fit the sixteen registers of AVX2, and twelve sums cover two units of six cycles' latency.
enum { CHAINS = 12 };

// The factor is just below 1 and the addend small, so sums neither overflow nor become denormal however long it runs.
#define FACTOR 0.9999999f
#define ADDEND 1e-6f

/// Hides from the compiler what is in a vector: knowing that lanes are equal, it leaves half of the work out.
#define OPAQUE(x) __asm__ volatile("" : "+x"(x))

/// Chains of `FMA(sum, factor, addend)` over vectors of `WIDTH` floats.
#define PEAK_KERNEL(NAME, TARGET, WIDTH, FMA)                                                                          \
    TARGET static float NAME(ptrdiff_t rounds)                                                                         \
    {                                                                                                                  \
        typedef float vec __attribute__((vector_size(4 * WIDTH)));                                                     \
        vec sum[CHAINS];                                                                                               \
        for (int c = 0; c < CHAINS; ++c)                                                                               \
            sum[c] = (vec){0} + (float)(c + 1);                                                                        \
        for (int c = 0; c < CHAINS; ++c)                                                                               \
            OPAQUE(sum[c]);                                                                                            \
        vec factor = (vec){0} + FACTOR, addend = (vec){0} + ADDEND;                                                    \
        OPAQUE(factor);                                                                                                \
        OPAQUE(addend);                                                                                                \
        for (ptrdiff_t r = 0; r < rounds; ++r) {                                                                       \
            _Pragma("clang loop unroll(full)") for (int c = 0; c < CHAINS; ++c) sum[c] = FMA(sum[c], factor, addend);  \
        }                                                                                                              \
        float total = 0;                                                                                               \
        for (int c = 0; c < CHAINS; ++c)                                                                               \
            for (int i = 0; i < WIDTH; ++i)                                                                            \
                total += sum[c][i];                                                                                    \
        return total;                                                                                                  \
    }

#define FUSED(sum, factor, addend) __builtin_elementwise_fma(sum, factor, addend)
#define SEPARATE(sum, factor, addend) ((sum) * (factor) + (addend))

PEAK_KERNEL(peak_portable, , 4, SEPARATE)

#if defined(__x86_64__)

#include <immintrin.h>

PEAK_KERNEL(peak_avx2, __attribute__((target("avx2,fma"))), 8, FUSED)
PEAK_KERNEL(peak_avx512, __attribute__((target("avx512f,fma"))), 16, FUSED)

/// Pairs of bf16 factors: each instruction adds two products to each of sixteen sums.
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) static float peak_avx512_bf16(ptrdiff_t rounds)
{
    __m512 sum[CHAINS];
    for (int c = 0; c < CHAINS; ++c)
        sum[c] = _mm512_set1_ps((float)(c + 1));
    __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(ADDEND), _mm512_set1_ps(ADDEND));
    __m512bh b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1), _mm512_set1_ps(1));
    for (ptrdiff_t r = 0; r < rounds; ++r) {
        _Pragma("clang loop unroll(full)") for (int c = 0; c < CHAINS; ++c) sum[c] = _mm512_dpbf16_ps(sum[c], a, b);
    }
    float total = 0;
    for (int c = 0; c < CHAINS; ++c)
        total += _mm512_reduce_add_ps(sum[c]);
    return total;
}

/// Products of 16 x 32 and 32 x 16 bf16 in tile registers, four sums in flight.
__attribute__((target("amx-tile,amx-bf16"))) static float peak_amx(ptrdiff_t rounds)
{
    _Alignas(64) struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int tile = 0; tile < 8; ++tile)
        shape.row_bytes[tile] = 64, shape.rows[tile] = 16;
    _Alignas(64) uint16_t ones[16 * 32];
    for (int i = 0; i < 16 * 32; ++i)
        ones[i] = 0x3f80;
    _tile_loadconfig(&shape);
    _tile_zero(0), _tile_zero(1), _tile_zero(2), _tile_zero(3);
    _tile_loadd(4, ones, 64), _tile_loadd(5, ones, 64), _tile_loadd(6, ones, 64), _tile_loadd(7, ones, 64);
    for (ptrdiff_t r = 0; r < rounds; ++r) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    float sums[16 * 16];
    _tile_stored(0, sums, 64);
    _tile_release();
    return sums[0];
}

#endif

double apus_peak_run(apus_dtype dtype, ptrdiff_t rounds, float *sink)
{
    int operations = 4 * 2;
#if defined(__x86_64__)
    uint32_t features = apus_cpu_features();
    if (dtype == APUS_BF16 && features & APUS_CPU_AMX_BF16) {
        *sink = peak_amx(rounds);
        return 4.0 * 2 * 16 * 16 * 32 * (double)rounds;
    }
    if (dtype == APUS_BF16 && features & APUS_CPU_AVX512_BF16) {
        *sink = peak_avx512_bf16(rounds);
        operations = 32 * 2;
    } else if (features & APUS_CPU_AVX512) {
        *sink = peak_avx512(rounds);
        operations = 16 * 2;
    } else if (features & APUS_CPU_AVX2) {
        *sink = peak_avx2(rounds);
        operations = 8 * 2;
    } else
#endif
    {
        *sink = peak_portable(rounds);
    }
    return (double)rounds * CHAINS * operations;
}
