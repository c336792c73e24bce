// Element-wise kernels, bias over rows, and reductions over a range.

#include "apus_elementwise.h"

#include "simd.h"

#define APUS_TEMPLATE "elementwise_template.h"
#include "element_types.h"

#define APUS_TEMPLATE "reduction_template.h"
#include "element_types.h"

APUS_CLONES void apus_add_scaled_bf16_to_f32(float *y, float a, const apus_bf16 *x, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u, v;
        load_bf16(&u, x + i, c);
        load_f32(&v, y + i, c);
        v = v + a * u;
        store_f32(y + i, &v, c);
    })
}

APUS_CLONES void apus_convert_f32_to_bf16(apus_bf16 *y, const float *x, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u;
        load_f32(&u, x + i, c);
        store_bf16(y + i, &u, c);
    })
}

APUS_CLONES void apus_convert_bf16_to_f32(float *y, const apus_bf16 *x, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u;
        load_bf16(&u, x + i, c);
        store_f32(y + i, &u, c);
    })
}
