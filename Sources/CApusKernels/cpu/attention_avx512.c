// Attention kernels for AVX-512 (x86-64-v4).
#if defined(__x86_64__)
#include "attention_internal.h"

#include <string.h>

#pragma clang attribute push(__attribute__((target("arch=x86-64-v4"))), apply_to = function)

#define APUS_LANES 16
#define APUS_FUSED 1
#define APUS_NAME(name) name##_avx512

#include "attention_vector.h"
#include "attention_product.h"
#include "attention_pack.h"
#include "attention_forward.h"
#include "attention_backward.h"

#pragma clang attribute pop
#endif
