#ifndef APUS_CPU_H
#define APUS_CPU_H

#include <stdint.h>

/// Instruction sets that the kernels ask about, as bits of `apus_cpu_features()`.
enum {
    /// AVX2 and FMA3.
    APUS_CPU_AVX2 = 1u << 0,
    /// AVX-512 F, BW, VL and DQ.
    APUS_CPU_AVX512 = 1u << 1,
    /// AVX-512 BF16 (`vdpbf16ps`), always together with APUS_CPU_AVX512.
    APUS_CPU_AVX512_BF16 = 1u << 2,
    /// AMX with bf16, which the operating system lets this process use: what oneDNN's bf16 products run on. Always
    /// together with APUS_CPU_AVX512_BF16.
    APUS_CPU_AMX_BF16 = 1u << 3,
};

/// Highest instruction set that the kernels may use.
typedef enum apus_cpu_level {
    APUS_CPU_LEVEL_SCALAR = 0,
    APUS_CPU_LEVEL_AVX2 = 1,
    APUS_CPU_LEVEL_AVX512 = 2,
    APUS_CPU_LEVEL_AVX512_BF16 = 3,
} apus_cpu_level;

/// The bits that this CPU and operating system support, cut down to the limit set by `apus_cpu_limit`.
uint32_t apus_cpu_features(void);

/// Caps the instruction set of every kernel that dispatches on `apus_cpu_features()`.
/// For tests and troubleshooting: call it while no kernel runs. The cap can be raised again later.
void apus_cpu_limit(apus_cpu_level level);

/// The level that `apus_cpu_features()` amounts to.
apus_cpu_level apus_cpu_current_level(void);

#endif
