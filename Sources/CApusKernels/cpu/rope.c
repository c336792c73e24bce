// Rotary position embedding.

#include "apus_rope.h"

#include <math.h>

#include "simd.h"

void apus_rope_table(float *cosines, float *sines, ptrdiff_t positions, ptrdiff_t head_width, double theta) {
    ptrdiff_t pairs = head_width / 2;
    for (ptrdiff_t i = 0; i < pairs; ++i) {
        double frequency = pow(theta, -2.0 * (double)i / (double)head_width);
        for (ptrdiff_t p = 0; p < positions; ++p) {
            cosines[p * pairs + i] = (float)cos((double)p * frequency);
            sines[p * pairs + i] = (float)sin((double)p * frequency);
        }
    }
}

#define APUS_TEMPLATE "rope_template.h"
#include "element_types.h"
