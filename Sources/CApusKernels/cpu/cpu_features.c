// syscall() is no part of C.
#define _DEFAULT_SOURCE

#include "apus_cpu.h"

#include <stdatomic.h>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static _Atomic int cpu_limit = APUS_CPU_LEVEL_AVX512_BF16;

/// Whether the system grants the registers of AMX, which a process has to ask for once.
static int may_use_amx(void)
{
#if defined(__x86_64__) && defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    static _Atomic int granted = -1;
    int known = atomic_load_explicit(&granted, memory_order_relaxed);
    if (known < 0) {
        known = __builtin_cpu_supports("amx-bf16") && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
        atomic_store_explicit(&granted, known, memory_order_relaxed);
    }
    return known;
#else
    return 0;
#endif
}

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
                features |= APUS_CPU_AVX512_BF16 | (may_use_amx() ? APUS_CPU_AMX_BF16 : 0);
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
