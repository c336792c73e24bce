// RMSNorm and LayerNorm.

#include "apus_norm.h"

#include "simd.h"

/// 1 / sqrt(x) in f32, without the errno path of sqrtf.
APUS_INLINE float reciprocal_root(float x) {
    return 1.0f / __builtin_elementwise_sqrt(x);
}

#define APUS_TEMPLATE "rmsnorm_template.h"
#include "element_types.h"

#define APUS_TEMPLATE "layernorm_template.h"
#include "element_types.h"
