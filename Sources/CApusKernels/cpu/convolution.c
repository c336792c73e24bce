// The gated short convolution.

#include "apus_convolution.h"

#include "simd.h"

/// How many rows before t are read.
static inline ptrdiff_t reach_of(const int32_t *positions, ptrdiff_t t, ptrdiff_t tap_count) {
    ptrdiff_t reach = tap_count - 1;
    if (positions[t] < reach) reach = positions[t];
    return t < reach ? t : reach;
}

#define APUS_TEMPLATE "convolution_template.h"
#include "element_types.h"
