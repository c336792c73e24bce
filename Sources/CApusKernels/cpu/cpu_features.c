#include "apus_cpu.h"

#include <stdatomic.h>

static _Atomic int cpu_limit = APUS_CPU_LEVEL_AVX512_BF16;

/// The compiler runtime fills its table once and checks the operating system's register state as well as cpuid.
static uint32_t detect(void)
{
    uint32_t features = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        features |= APUS_CPU_AVX2;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
            features |= APUS_CPU_AVX512;
            if (__builtin_cpu_supports("avx512bf16"))
                features |= APUS_CPU_AVX512_BF16;
        }
    }
#endif
    return features;
}

uint32_t apus_cpu_features(void)
{
    switch (atomic_load_explicit(&cpu_limit, memory_order_relaxed)) {
    case APUS_CPU_LEVEL_SCALAR:
        return 0;
    case APUS_CPU_LEVEL_AVX2:
        return detect() & APUS_CPU_AVX2;
    case APUS_CPU_LEVEL_AVX512:
        return detect() & (APUS_CPU_AVX2 | APUS_CPU_AVX512);
    default:
        return detect();
    }
}

void apus_cpu_limit(apus_cpu_level level)
{
    atomic_store_explicit(&cpu_limit, (int)level, memory_order_relaxed);
}

apus_cpu_level apus_cpu_current_level(void)
{
    uint32_t features = apus_cpu_features();
    if (features & APUS_CPU_AVX512_BF16)
        return APUS_CPU_LEVEL_AVX512_BF16;
    if (features & APUS_CPU_AVX512)
        return APUS_CPU_LEVEL_AVX512;
    return features & APUS_CPU_AVX2 ? APUS_CPU_LEVEL_AVX2 : APUS_CPU_LEVEL_SCALAR;
}
