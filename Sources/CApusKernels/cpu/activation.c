// Activations: SwiGLU over rows; GELU, ReLU and SiLU over elements.

#include "apus_activation.h"

#include "simd_math.h"

/// slope = the logistic function of 2 u, inner = d(2 u) / dx, u the argument of tanh in the tanh form of GELU.
///
/// (1 + tanh u) / 2 is the logistic function of 2 u. Beyond |x| = 16 it is 0 or 1; clamping keeps x^3 finite there.
APUS_INLINE void gelu_tanh_parts(f32x16 *slope, f32x16 *inner, const f32x16 *x) {
    const float twice_root = 1.595769122f;  // 2 sqrt(2 / pi)
    f32x16 v = *x;
    v = v > 16.0f ? (f32x16)16.0f : v;
    v = v < -16.0f ? (f32x16)-16.0f : v;
    f32x16 square = v * v;
    *slope = (twice_root * v) * (1.0f + 0.044715f * square);
    vector_sigmoid(slope);
    *inner = twice_root * (1.0f + 0.134145f * square);
}

#define APUS_TEMPLATE "swiglu_template.h"
#include "element_types.h"

#define APUS_TEMPLATE "activation_template.h"
#include "element_types.h"
